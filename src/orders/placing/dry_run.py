"""An order as it would be if it were placed: with its stock and events. Nothing is written, nothing is sent."""

import asyncio
import json
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orders.errors import OrderError
from orders.neighbours.catalog import Catalog
from orders.order.idempotency import Answer
from orders.order.model import Author
from orders.order.results import Result, answered, as_order_error, in_bounds, refused
from orders.placing.batch import Batch, Rehearsed
from orders.placing.bulk import Wish
from orders.placing.checkout import Checkout
from orders.placing.dry_run_sql import orders_as_placed
from orders.placing.entry import Request, Waiting
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.settings import Settings
from orders.wire.dry_run import Stock, preview_json


@dataclass(frozen=True, slots=True)
class Preview:
    """An order as it would be and the events that would be written, both as JSON."""

    order: str
    events: str


class PlacingDryRun:
    """Says what placing would do. Reads the database, the carts and the catalog."""

    def __init__(self, database: Database, catalog: Catalog, checkout: Checkout, settings: Settings) -> None:
        self._database = database
        self._catalog = catalog
        self._checkout = checkout
        self._settings = settings

    async def place(self, wish: Wish, instance: str, author: Author) -> Answer:
        """What placing would be answered: 200 with the preview, or a repetition. Raises OrderError."""
        (outcome,), stock = await self._place([wish], instance, author)
        if isinstance(outcome, OrderError):
            raise outcome
        if isinstance(outcome, Answer):
            return outcome
        return Answer(200, preview_json(outcome.order, stock, outcome.events), None)

    async def place_each(self, wishes: Sequence[Wish], instance: str, author: Author) -> tuple[list[Result], Stock]:
        """What placing all of these together would be answered, in the order in which they stand."""
        outcomes, stock = await self._place(wishes, instance, author)
        return in_bounds([_result(outcome, instance) for outcome in outcomes]), stock

    async def _place(
        self, wishes: Sequence[Wish], instance: str, author: Author
    ) -> tuple[list[Preview | Answer | OrderError], Stock]:
        prepared = await asyncio.gather(*(self._prepare(wish, instance, author) for wish in wishes))
        first: dict[object, Waiting] = {}  # of one cart only the first is planned; the others get the same order
        for n, one in enumerate(prepared):
            if isinstance(one, Request):
                first.setdefault(one.cart or n, _waiting(one))
        rehearsed = await Batch(
            list(first.values()), self._database, self._catalog, self._settings, _ignore, _ignore
        ).rehearse()
        previews = await self._previews(rehearsed, author)
        outcomes: list[Preview | Answer | OrderError] = []
        for n, one in enumerate(prepared):
            if isinstance(one, Request):
                waiting = first[one.cart or n]
                found = _outcome(waiting, previews, rehearsed)
                outcomes.append(found if waiting.request is one else _again(found))
            else:
                outcomes.append(one)
        return outcomes, rehearsed.changes

    async def _prepare(self, wish: Wish, instance: str, author: Author) -> Request | Answer | OrderError:
        try:
            return await self._checkout.prepare(
                wish.customer_id, wish.items, wish.key, instance, author, wish.details, remember=False
            )
        except Exception as error:
            return as_order_error(error)

    async def _previews(self, rehearsed: Rehearsed, author: Author) -> dict[Waiting, Preview]:
        if not rehearsed.orders:
            return {}
        new = list(rehearsed.orders.values())
        documents = await self._database.run(lambda c: orders_as_placed(c, new), Lane.CHANGES)
        return {
            waiting: Preview(json.dumps(document), json.dumps([_placed_event(document, author)]))
            for waiting, document in zip(rehearsed.orders, documents, strict=True)
        }


def _waiting(request: Request) -> Waiting:
    products = frozenset(line.product_id for line in request.lines)
    return Waiting(products, asyncio.get_running_loop().create_future(), request)


def _ignore(*_: Iterable[Any] | Coroutine[Any, Any, None]) -> None:
    """A rehearsed batch hands nothing on."""


def _outcome(
    waiting: Waiting, previews: Mapping[Waiting, Preview], rehearsed: Rehearsed
) -> Preview | Answer | OrderError:
    if waiting in previews:
        return previews[waiting]
    if order := rehearsed.repeated.get(waiting):
        return Answer(201, order.body, order.order_id, replayed=True)
    return rehearsed.refused[waiting]


def _again(outcome: Preview | Answer | OrderError) -> Preview | Answer | OrderError:
    """What the second order of one cart would be answered."""
    return Answer(201, outcome.order, None, replayed=True) if isinstance(outcome, Preview) else outcome


def _result(outcome: Preview | Answer | OrderError, instance: str) -> Result:
    if isinstance(outcome, OrderError):
        return refused(outcome, instance)
    if isinstance(outcome, Preview):
        return Result(201, {"order": outcome.order, "events": outcome.events})
    result = answered(outcome)
    return Result(result.status, {**result.members, "events": "[]"}) if outcome.status < 300 else result


def _placed_event(order: Mapping[str, Any], author: Author) -> dict[str, Any]:
    """The first event of an order, as SETTLE would write it."""
    return {
        "number": 1,
        "type": "placed",
        "before": {"status": "Pending"},
        "after": {"status": order["status"]},
        "details": None,
        "actor": author.actor,
        "reason": None,
        "note": None,
        "request_id": author.request_id,
        "at": order["updated_at"],
    }
