"""An order as it would be if it were placed: with its stock and events. Nothing is written, nothing is sent."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orders.errors import OrderError, reference_taken
from orders.neighbours.catalog import Catalog
from orders.neighbours.limiter import DRY_RUN
from orders.order import events
from orders.order.idempotency import Answer, order_answer
from orders.order.model import Author
from orders.order.results import Result, answered, as_order_error, in_bounds, refused
from orders.placing.checkout import Checkout, CheckoutRequest
from orders.placing.dry_run_sql import orders_as_placed
from orders.placing.entry import Entry, OrderRequest, PlaceOrder, queue_entry
from orders.placing.planning import new_order, plan_orders
from orders.placing.reading import read_products
from orders.placing.sorting import placed_cart, products_of, refusal_after_claim
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.stock import claim_sql
from orders.stock.claim_sql import CartOrder
from orders.stock.intend_sql import NewOrder
from orders.stock.plan import Adjustment
from orders.wire.dry_run import Stock, preview_json


@dataclass(frozen=True, slots=True)
class Preview:
    """An order as it would be and the events that would be written, both as JSON."""

    order: str
    events: str


WouldBe = Preview | Answer | OrderError
"""What would become of an order."""


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """The orders that would be placed, who would be refused, whose cart has become an order already, and the stock."""

    orders: Mapping[PlaceOrder, NewOrder]
    refused: Mapping[PlaceOrder, OrderError]
    repeated: Mapping[PlaceOrder, CartOrder]
    changes: Mapping[int, Adjustment]


class PlacingDryRun:
    """Says what placing would do. Reads the database, the carts and the catalog."""

    def __init__(self, database: Database, catalog: Catalog, checkout: Checkout) -> None:
        self._database = database
        self._catalog = catalog
        self._checkout = checkout

    async def place(self, asked: CheckoutRequest, instance: str, author: Author) -> Answer:
        """What placing would be answered: 200 with the preview, or a repetition. Raises OrderError."""
        (outcome,), stock = await self._place([asked], instance, author)
        if isinstance(outcome, OrderError):
            raise outcome
        if isinstance(outcome, Answer):
            return outcome
        return Answer(200, preview_json(outcome.order, stock, outcome.events), None)

    async def place_each(
        self, asked: Sequence[CheckoutRequest], instance: str, author: Author
    ) -> tuple[list[Result], Stock]:
        """What placing all of these together would be answered, in the order in which they stand."""
        outcomes, stock = await self._place(asked, instance, author)
        return in_bounds([_result(outcome, instance) for outcome in outcomes]), stock

    async def _place(
        self, asked: Sequence[CheckoutRequest], instance: str, author: Author
    ) -> tuple[list[WouldBe], Stock]:
        prepared = await asyncio.gather(*(self._prepare(one, instance, author) for one in asked))
        orders: dict[object, PlaceOrder] = {}  # of one cart only the first is planned; the others get the same order
        for n, one in enumerate(prepared):
            if isinstance(one, OrderRequest):
                future = asyncio.get_running_loop().create_future()
                orders.setdefault(one.cart or n, queue_entry(one, future))
        foreseen = await self._foresee(list(orders.values()))
        found = await self._outcomes(foreseen, author)
        outcomes: list[WouldBe] = []
        for n, one in enumerate(prepared):
            if isinstance(one, OrderRequest):
                order = orders[one.cart or n]
                outcomes.append(found[order] if order.request is one else _again(found[order]))
            else:
                outcomes.append(one)
        return outcomes, foreseen.changes

    async def _prepare(
        self, asked: CheckoutRequest, instance: str, author: Author
    ) -> OrderRequest | Answer | OrderError:
        try:
            return await self._checkout.prepare(asked, instance, author, remember=False)
        except Exception as error:
            return as_order_error(error)

    async def _foresee(self, orders: Sequence[PlaceOrder]) -> _Foreseen:
        """READ and PLAN of these orders, each of another cart, as if all of their products were free."""
        products = sorted(products_of(orders))
        carts = {order.cart: order.request.seer for order in orders if order.cart}
        references = [order.reference for order in orders if order.reference]
        claimed = await self._database.run(lambda c: claim_sql.look(c, products, carts, references))
        repeated = {order: found for order in orders if (found := placed_cart(order, claimed.cart_orders))}
        refused = _twice_here(orders)
        refused |= {order: error for order in orders if (error := refusal_after_claim(order, claimed))}
        ready = [order for order in orders if order not in repeated and order not in refused]
        read = await read_products(self._catalog, ready, DRY_RUN, Entry.refuse)
        planned = plan_orders(ready, claimed.due, read, asyncio.get_running_loop().time())
        new = {order: new_order(order, read.products) for order in planned.orders}
        return _Foreseen(new, {**refused, **planned.refused}, repeated, planned.changes)

    async def _outcomes(self, foreseen: _Foreseen, author: Author) -> dict[PlaceOrder, WouldBe]:
        repeated = {o: order_answer(201, f.document, f.order_id, replayed=True) for o, f in foreseen.repeated.items()}
        return {**foreseen.refused, **repeated, **await self._previews(foreseen.orders, author)}

    async def _previews(self, orders: Mapping[PlaceOrder, NewOrder], author: Author) -> dict[PlaceOrder, Preview]:
        if not orders:
            return {}
        new = list(orders.values())
        documents = await self._database.run(lambda c: orders_as_placed(c, new), Lane.CHANGES)
        return {
            order: Preview(json.dumps(document), json.dumps([_first_event(document, author)]))
            for order, document in zip(orders, documents, strict=True)
        }


def _twice_here(orders: Sequence[PlaceOrder]) -> dict[PlaceOrder, OrderError]:
    """The orders with a reference that one before them has, too."""
    first: dict[str, PlaceOrder] = {}
    for order in orders:
        if order.reference:
            first.setdefault(order.reference, order)
    return {o: reference_taken(o.reference, None) for o in orders if o.reference and first[o.reference] is not o}


def _again(outcome: WouldBe) -> WouldBe:
    """What the second order of one cart would be answered."""
    return Answer(201, outcome.order, None, replayed=True) if isinstance(outcome, Preview) else outcome


def _result(outcome: WouldBe, instance: str) -> Result:
    if isinstance(outcome, OrderError):
        return refused(outcome, instance)
    if isinstance(outcome, Preview):
        return Result(201, {"order": outcome.order, "events": outcome.events})
    result = answered(outcome)
    return Result(result.status, {**result.members, "events": "[]"}) if outcome.status < 300 else result


def _first_event(order: Mapping[str, Any], author: Author) -> dict[str, Any]:
    return events.placed(author, order["status"]).document(order["version"], order["updated_at"])
