"""Trying without doing: the order, the stock and the events as they would be. Nothing is written, nothing is sent."""

import asyncio
import json
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orders.bulk import (
    MAX_ANSWER_BYTES,
    Move,
    Result,
    Wish,
    answered,
    as_order_error,
    in_bounds,
    judge,
    refused,
    results_of,
    wanted_by,
)
from orders.changing.change_sql import Change as OrderChange
from orders.changing.change_sql import Decide, DecideMany, Standing
from orders.errors import OrderError
from orders.neighbours.catalog import Catalog
from orders.neighbours.gate import DRY_RUN
from orders.neighbours.reply import NoAnswer, NotSent, Rubbish
from orders.order.keys_sql import KeyInUse
from orders.order.model import Author
from orders.placing.batch import Batch, Rehearsed
from orders.placing.checkout import Checkout
from orders.placing.entry import Answer, Request, Waiting
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.rehearsing import Changed, orders_as_placed, rehearse_changes
from orders.settings import Settings
from orders.stock.plan import Change, plan


@dataclass(frozen=True, slots=True)
class Preview:
    """An order as it would be and the events that would be written, both as JSON."""

    order: str
    events: str


Stock = Mapping[int, Change | None]
"""What would become of each product's stock; None: the catalog doesn't say what there is."""


class Rehearsal:
    """Says what the service would do. Reads the database, the carts and the catalog."""

    def __init__(self, database: Database, catalog: Catalog, checkout: Checkout, settings: Settings) -> None:
        self._database = database
        self._catalog = catalog
        self._checkout = checkout
        self._settings = settings

    # Placing ----------------------------------------------------------------------------------------------------

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

    # Changing ---------------------------------------------------------------------------------------------------

    async def change(
        self, order_id: UUID, wanted: str | None, decide: Decide, key: tuple[str, bytes] | None
    ) -> str | KeyInUse | None:
        """What `store.changing.change_order` would do with this order, as a preview; raises what `decide` raises."""

        def decide_one(standings: Mapping[UUID, Standing]) -> list[OrderChange]:
            return [change for standing in standings.values() if (change := decide(standing))]

        changed = await self._rehearse({order_id: wanted}, decide_one, key and key[0])
        if isinstance(changed, KeyInUse):
            return changed
        if order_id not in changed.orders:
            return None
        stock = await self._stock(changed.due)
        return preview_json(changed.orders[order_id], stock, changed.events.get(order_id, "[]"))

    async def move_each(
        self, moves: Sequence[Move], instance: str, *, needs_version: bool, all_or_nothing: bool
    ) -> tuple[list[Result], Stock]:
        """What moving all of these would be answered. Raises OrderError: all or nothing, and one is refused."""
        decide, errors = judge(moves, needs_version=needs_version, all_or_nothing=all_or_nothing)
        changed = await self._rehearse(wanted_by(moves), decide, max_bytes=MAX_ANSWER_BYTES)
        assert isinstance(changed, Changed)  # there was no key
        results = results_of(changed.orders, errors, instance)
        stock = await self._stock(changed.due)
        return [_with_events(m.order_id, results[m.order_id], changed) for m in moves], stock

    async def _rehearse(
        self,
        wanted: Mapping[UUID, str | None],
        decide: DecideMany,
        key: str | None = None,
        max_bytes: int | None = None,
    ) -> Changed | KeyInUse:
        return await self._database.run(lambda c: rehearse_changes(c, wanted, decide, key, max_bytes), Lane.CHANGES)

    async def _stock(self, due: Mapping[int, int]) -> dict[int, Change | None]:
        """What the next PUT of each of these products would say. No transaction is open meanwhile."""
        reads = {p: asyncio.create_task(self._quantity(p)) for p in due}
        if reads:
            await asyncio.wait(reads.values(), timeout=self._settings.orders_request_deadline_s)
        known = {p: read.result() for p, read in reads.items() if not read.cancel()}
        stock = {p: quantity for p, quantity in known.items() if quantity is not None}
        changes = plan(stock, {p: units for p, units in due.items() if p in stock}, ()).changes
        return {p: changes.get(p) for p in due}

    async def _quantity(self, product_id: int) -> int | None:
        try:
            product = await self._catalog.read(product_id, DRY_RUN)
        except (NotSent, NoAnswer, Rubbish):
            return None
        return product.quantity if product else None


def preview_json(order: str, stock: Stock, events: str) -> str:
    """A preview as the wire has it."""
    return f'{{"dry_run":true,"order":{order},"stock":{stock_json(stock)},"events":{events}}}'


def stock_json(stock: Stock) -> str:
    """Each product's stock before and after; both are null where the catalog doesn't say what there is."""
    return json.dumps(
        [
            {"product_id": p, "before": change and change.before, "after": change and change.after}
            for p, change in sorted(stock.items())
        ]
    )


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


def _with_events(order_id: UUID, result: Result, changed: Changed) -> Result:
    if result.status >= 300:
        return result
    return Result(result.status, {**result.members, "events": changed.events.get(order_id, "[]")})


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
