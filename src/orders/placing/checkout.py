"""What a POST asks for: explicit items or the customer's cart, once per Idempotency-Key."""

import asyncio
import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import replace

from orders.errors import Code, OrderError, invalid
from orders.neighbours.carts import Cart, Carts
from orders.neighbours.gate import DRY_RUN
from orders.neighbours.reply import CircuitOpen, MalformedReply, NoAnswer, NotSent
from orders.order import keys_sql
from orders.order.idempotency import Answer, failure, is_recorded
from orders.order.keys_sql import Outcome
from orders.order.model import MAX_LINES, MAX_QUANTITY, NO_DETAILS, Author, Details, Line, merge_lines
from orders.placing.entry import Request
from orders.placing.queue import Placement
from orders.postgres.database import Database
from orders.settings import Settings
from orders.stock import claim_sql


class Checkout:
    """Turns items or a cart into a request to place, and hands it to the placement."""

    def __init__(self, database: Database, carts: Carts, placement: Placement, settings: Settings) -> None:
        self._database = database
        self._carts = carts
        self._placement = placement
        self._settings = settings

    async def check_out(
        self,
        customer_id: int,
        items: Sequence[Line] | None,
        key: str | None,
        instance: str,
        author: Author = Author(),  # noqa: B008 (frozen)
        details: Details = NO_DETAILS,
        lines_ahead: int = 0,
    ) -> Answer:
        """Place an order of `items` or, where None, of the customer's cart. Raises OrderError: nothing was ordered."""
        request = await self.prepare(customer_id, items, key, instance, author, details)
        if isinstance(request, Answer):
            return request
        return await self._placement.place(replace(request, lines_ahead=lines_ahead) if lines_ahead else request)

    async def prepare(
        self,
        customer_id: int,
        items: Sequence[Line] | None,
        key: str | None,
        instance: str,
        author: Author = Author(),  # noqa: B008 (frozen)
        details: Details = NO_DETAILS,
        *,
        remember: bool = True,
    ) -> Request | Answer:
        """What there is to place, or the answer where it was placed before. Without `remember` nothing is written.

        Raises OrderError: nothing can be ordered.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.orders_request_deadline_s
        fingerprint = _fingerprint(customer_id, items, details) if key else b""
        if key and (known := await self._placement.find_outcome(key, fingerprint)):
            return known
        if not remember:
            key = None
        if items is not None:
            lines = merge_lines(items)
            _require_orderable(lines)
            pointers = {line.product_id: f"#/items/{n}" for n, line in reversed(list(enumerate(items)))}
            return Request(customer_id, lines, deadline, instance, None, key, fingerprint, pointers, author, details)
        try:
            cart = await self._read_cart(customer_id, deadline, author.request_id if remember else DRY_RUN)
            if cart is None or not cart.is_active:
                return await self._repeat(customer_id, cart, key, fingerprint)
            _require_filled(cart, customer_id)
        except OrderError as error:
            await self._keep(key, fingerprint, error, instance)
            raise
        _require_orderable(cart.lines)
        return Request(customer_id, cart.lines, deadline, instance, cart.id, key, fingerprint, {}, author, details)

    async def _read_cart(self, customer_id: int, deadline: float, flow: Hashable) -> Cart | None:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._carts.read(customer_id, flow)
        except CircuitOpen as error:
            raise OrderError(Code.NEIGHBOUR_RESTING, f"{error}.", retry_after_s=1) from None
        except (NotSent, NoAnswer) as error:
            raise OrderError(Code.CART_UNAVAILABLE, f"{error}.") from None
        except TimeoutError:
            raise OrderError(Code.CART_UNAVAILABLE, "The Shopping Cart Service took too long to answer.") from None
        except MalformedReply as error:
            detail = f"The Shopping Cart Service is out of order: {error}."
            raise OrderError(Code.CART_REPLY_INVALID, detail) from None

    async def _repeat(self, customer_id: int, cart: Cart | None, key: str | None, fingerprint: bytes) -> Answer:
        """The cart is closed: a second click, after the first has been placed, is answered with the same order."""
        cart_id, within_s = cart.id if cart else None, self._settings.orders_cart_repeat_s
        order = await self._database.run(lambda c: claim_sql.order_of_cart(c, customer_id, cart_id, within_s))
        if order is None:
            raise OrderError(Code.CART_NOT_FOUND, f"Customer {customer_id} has no active cart.")
        if key:
            outcome = Outcome(201, order.body, order.order_id)
            await self._database.run(lambda c: keys_sql.keep_outcome(c, key, fingerprint, outcome))
        return Answer(201, order.body, order.order_id, replayed=True)

    async def _keep(self, key: str | None, fingerprint: bytes, error: OrderError, instance: str) -> None:
        """Remember a failure that came before there was a batch to remember it."""
        if key and is_recorded(error):
            outcome = failure(error, instance)
            await self._database.run(lambda c: keys_sql.keep_outcome(c, key, fingerprint, outcome))


def _require_filled(cart: Cart, customer_id: int) -> None:
    if not cart.lines:
        raise OrderError(Code.CART_EMPTY, f"The cart of customer {customer_id} holds nothing.")


def _require_orderable(lines: Sequence[Line]) -> None:
    if len(lines) > MAX_LINES:
        raise invalid("#/items", "too_long", f"An order has at most {MAX_LINES} products; these are {len(lines)}.")
    for line in lines:
        if line.quantity > MAX_QUANTITY:
            message = f"{line.quantity} of product {line.product_id} in one order: at most {MAX_QUANTITY}."
            raise invalid("#/items", "less_than_equal", message)


def _fingerprint(customer_id: int, items: Sequence[Line] | None, details: Details) -> bytes:
    """What makes two requests the same: customer, items (however they are written), and what is attached."""
    what = "cart" if items is None else [(line.product_id, line.quantity) for line in merge_lines(items)]
    attached = "" if details == NO_DETAILS else f" {details}"
    return hashlib.sha256(f"{customer_id} {what}{attached}".encode()).digest()
