"""Many orders in one request: placing them, and moving them. Each has its own result, in the order of the request."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.changing.change_sql import Change, DecideMany, Standing, change_orders
from orders.changing.move import Asked, move
from orders.errors import Code, OrderError, problem
from orders.order.document_sql import Short
from orders.order.model import NO_DETAILS, Author, Details, Line
from orders.placing.checkout import Checkout
from orders.placing.entry import Answer
from orders.postgres.database import Database, DatabaseUnavailable
from orders.postgres.lanes import Lane

log = logging.getLogger(__name__)

AT_ONCE = 200
"""So many orders are moved, and locked meanwhile, in one transaction: a thousand cost five commits."""

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Maximum size of the orders in one answer, as in a page of a list; those behind it are in short."""


@dataclass(frozen=True, slots=True)
class Wish:
    """An order to place: of these items or, where None, of the customer's cart; once per key; `details` go with it.

    `lines_ahead`: lines of the orders before it in the same HTTP request. It puts off its turn.
    """

    customer_id: int
    items: Sequence[Line] | None = None
    key: str | None = None
    details: Details = NO_DETAILS
    lines_ahead: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """An order, and the status that it is to have."""

    order_id: UUID
    status: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one entry: the HTTP status that it would have had alone, and its other members as JSON."""

    status: int
    members: Mapping[str, str]

    def json(self) -> str:
        """As the wire has it."""
        return f'{{"status":{self.status}{"".join(f",{json.dumps(n)}:{text}" for n, text in self.members.items())}}}'


async def place_each(checkout: Checkout, wishes: Sequence[Wish], instance: str, author: Author) -> list[Result]:
    """Place all of them at once: they meet in the placement's batches. Raises nothing."""
    results = await asyncio.gather(*(_place(checkout, wish, instance, author) for wish in wishes))
    if failed := [result.status for result in results if result.status >= 500]:
        log.warning("POST %s [%s]: %s of %s orders failed", instance, author.request_id, len(failed), len(results))
    return in_bounds(results)


async def _place(checkout: Checkout, wish: Wish, instance: str, author: Author) -> Result:
    try:
        return answered(
            await checkout.check_out(
                wish.customer_id, wish.items, wish.key, instance, author, wish.details, wish.lines_ahead
            )
        )
    except Exception as error:
        return refused(as_order_error(error), instance)


def answered(answer: Answer) -> Result:
    """The result of an entry that was answered; a failure that was remembered, too."""
    member = "order" if answer.status < 300 else "problem"
    return Result(answer.status, {member: answer.body, **({"replayed": "true"} if answer.replayed else {})})


def refused(error: OrderError, instance: str) -> Result:
    """The result of an entry that was refused. Pointers in it are those of the entry, wherever that stands."""
    again = {} if error.retry_after_s is None else {"retry_after_s": str(error.retry_after_s)}
    return Result(error.code.value.status, {"problem": json.dumps(problem(error, instance)), **again})


def as_order_error(error: Exception) -> OrderError:
    """What one entry is told, so that the others are told what became of them."""
    if isinstance(error, OrderError):
        return error
    if isinstance(error, DatabaseUnavailable):
        unavailable = error.as_order_error()
        log.warning("%s: %s", unavailable.code.name.lower(), error)
        return unavailable
    log.error("unexpected error in a batch", exc_info=error)
    return OrderError(Code.INTERNAL_ERROR, "The service's log says more.")


async def move_each(
    database: Database, moves: Sequence[Move], instance: str, *, needs_version: bool = False
) -> list[Result]:
    """Move each of these orders for itself; no order is there twice. Raises nothing."""
    results: dict[UUID, Result] = {}
    room = MAX_ANSWER_BYTES
    in_order = sorted(moves, key=lambda m: m.order_id)  # of all, so that two calls meet in the same order of locks
    for some in [in_order[n : n + AT_ONCE] for n in range(0, len(moves), AT_ONCE)]:
        decide, errors = judge(some, needs_version=needs_version)
        try:
            orders = await _change(database, some, decide, room)
        except Exception as error:
            results |= dict.fromkeys((m.order_id for m in some), refused(as_order_error(error), instance))
        else:
            results |= results_of(orders, errors, instance)
            room -= sum(len(order.encode()) for order in orders.values())
    return [results[m.order_id] for m in moves]


async def move_all(database: Database, moves: Sequence[Move], *, needs_version: bool = False) -> list[Result]:
    """Move all of these orders in one transaction. Raises OrderError that names each refusal: nothing was changed."""
    decide, _ = judge(moves, needs_version=needs_version, all_or_nothing=True)
    orders = await _change(database, moves, decide, MAX_ANSWER_BYTES)
    return [Result(200, _shown(orders[m.order_id])) for m in moves]


async def _change(database: Database, moves: Sequence[Move], decide: DecideMany, max_bytes: int) -> dict[UUID, str]:
    wanted = wanted_by(moves)
    return await database.run(lambda c: change_orders(c, wanted, decide, max_bytes), Lane.CHANGES)


def _shown(order: str) -> dict[str, str]:
    return {"order_in_short" if isinstance(order, Short) else "order": order}


def in_bounds(results: Sequence[Result]) -> list[Result]:
    """The results, with those orders in short for which there is no room."""
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


def wanted_by(moves: Sequence[Move]) -> dict[UUID, str]:
    """The status that each order is to have."""
    return {m.order_id: m.status for m in moves}


def results_of(
    orders: Mapping[UUID, str], errors: Mapping[UUID, OrderError], instance: str, status: int = 200
) -> dict[UUID, Result]:
    """The results of orders, of which some were refused."""
    moved = {i: Result(status, _shown(body)) for i, body in orders.items() if i not in errors}
    return {**moved, **{i: refused(error, instance) for i, error in errors.items()}}


def judge(
    moves: Sequence[Move], *, needs_version: bool, all_or_nothing: bool = False
) -> tuple[DecideMany, dict[UUID, OrderError]]:
    """The function that decides what becomes of all these orders, and (filled by it) why some are refused.

    With `all_or_nothing` it raises OrderError where one is.
    """
    errors: dict[UUID, OrderError] = {}

    def decide(standings: Mapping[UUID, Standing]) -> list[Change]:
        errors.clear()
        changes = []
        for one in moves:
            try:
                changes.append(_judge_one(one, standings.get(one.order_id), needs_version=needs_version))
            except OrderError as error:
                errors[one.order_id] = error
        if errors and all_or_nothing:
            raise _nothing_changed(moves, errors)
        return [change for change in changes if change]

    return decide, errors


def _judge_one(one: Move, standing: Standing | None, *, needs_version: bool) -> Change | None:
    if needs_version and one.asked.versions is None:
        raise OrderError(Code.IF_MATCH_REQUIRED, "Send the order's `version`, as you read it.")
    if standing is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {one.order_id}.")
    return move(standing, one.status, one.asked)


def _nothing_changed(moves: Sequence[Move], errors: Mapping[UUID, OrderError]) -> OrderError:
    """409 with each order that is in the way."""
    found = [
        {
            "pointer": f"#/orders/{n}",
            "code": errors[m.order_id].code.name.lower(),
            "message": errors[m.order_id].detail,
            "id": str(m.order_id),
            **errors[m.order_id].extra,
        }
        for n, m in enumerate(moves)
        if m.order_id in errors
    ]
    detail = f"{len(found)} of {len(moves)} orders can't be moved, so none was. The first: {found[0]['message']}"
    return OrderError(Code.BATCH_REFUSED, detail, extra={"errors": found})
