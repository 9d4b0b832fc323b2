"""The result of each entry of a request for many orders."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.errors import Code, OrderError, problem
from orders.order.document import Document
from orders.order.idempotency import Answer
from orders.postgres.database import DatabaseUnavailable

log = logging.getLogger(__name__)


MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Maximum size of the orders in one answer, as in a page of a list. Orders beyond it are given in short."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one entry: the HTTP status that it would have had alone, and its other members as JSON."""

    status: int
    members: Mapping[str, str]

    def json(self) -> str:
        """The result as JSON of the wire."""
        return f'{{"status":{self.status}{"".join(f",{json.dumps(n)}:{text}" for n, text in self.members.items())}}}'


def answered(answer: Answer) -> Result:
    """The result of an entry that was answered. The answer can be a failure that a key remembered."""
    member = "order" if answer.status < 300 else "problem"
    return Result(answer.status, {member: answer.body, **({"replayed": "true"} if answer.replayed else {})})


def refused(error: OrderError, instance: str) -> Result:
    """The result of an entry that was refused. Pointers in its problem begin at the entry."""
    again = {} if error.retry_after_s is None else {"retry_after_s": str(error.retry_after_s)}
    return Result(error.code.value.status, {"problem": json.dumps(problem(error, instance)), **again})


def as_order_error(error: Exception) -> OrderError:
    """The error for one entry. Other entries still get their own results."""
    if isinstance(error, OrderError):
        return error
    if isinstance(error, DatabaseUnavailable):
        unavailable = error.as_order_error()
        log.warning("%s: %s", unavailable.code.name.lower(), error)
        return unavailable
    log.error("unexpected error in a batch", exc_info=error)
    return OrderError(Code.INTERNAL_ERROR, "The service's log says more.")


def shown(order: Document) -> dict[str, str]:
    return {"order_in_short" if order.is_short else "order": order.json}


def in_bounds(results: Sequence[Result]) -> list[Result]:
    """The results, with orders in short once MAX_ANSWER_BYTES are reached."""
    room = MAX_ANSWER_BYTES
    bounded = []
    for result in results:
        order = result.members.get("order", "")
        room -= len(order.encode())
        bounded.append(result if room >= 0 or not order else _in_short(result, order))
    return bounded


def _in_short(result: Result, order: str) -> Result:
    document = json.loads(order)
    short = {name: document[name] for name in ("id", "status", "version")}
    others = {name: member for name, member in result.members.items() if name != "order"}
    return Result(result.status, {"order_in_short": json.dumps(short), **others})


def results_of(
    orders: Mapping[UUID, Document], errors: Mapping[UUID, OrderError], instance: str, status: int = 200
) -> dict[UUID, Result]:
    """The results of these orders, some of which were refused."""
    moved = {i: Result(status, shown(order)) for i, order in orders.items() if i not in errors}
    return {**moved, **{i: refused(error, instance) for i, error in errors.items()}}
