"""What a POST asks for: explicit items or the customer's cart, once per Idempotency-Key."""

import asyncio
import functools
import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from orders.errors import Code, OrderError, invalid, no_active_cart, no_customer
from orders.neighbours.carts import Cart, Carts
from orders.neighbours.limiter import DRY_RUN
from orders.neighbours.reply import CircuitOpen, MalformedReply, NoAnswer, NotSent
from orders.order import keys_sql
from orders.order.idempotency import Answer, failure, is_recorded, order_answer
from orders.order.keys_sql import Outcome
from orders.order.model import MAX_LINES, MAX_QUANTITY, NO_DETAILS, Author, Details, Line, merge_lines
from orders.placing.entry import OrderRequest
from orders.placing.queue import Placement
from orders.postgres.database import Database
from orders.principal import Seer
from orders.settings import Settings
from orders.stock import claim_sql


@dataclass(frozen=True, slots=True)
class CheckoutRequest:
    """What a client asks for: an order of these items or, where None, of the customer's cart; once per key.

    `seer`: whose orders the client sees. `key`: as it is stored. `channel`: the one that the order gets.
    `named_channel`: the one that the request names. `lines_ahead`: lines of the orders before it in the same HTTP
    request. It puts off its turn.
    """

    seer: Seer
    customer_id: int
    items: Sequence[Line] | None = None
    key: str | None = None
    details: Details = NO_DETAILS
    lines_ahead: int = 0
    channel: str | None = None
    named_channel: str | None = None

    @property
    def fingerprint(self) -> bytes:
        """What makes two requests the same: customer, items (however they are written), what is attached, and
        the channel if the request names one.
        """
        items = self.items
        what = "cart" if items is None else [(line.product_id, line.quantity) for line in merge_lines(items)]
        attached = "" if self.details == NO_DETAILS else f" {self.details}"
        channel = "" if self.named_channel is None else f" channel={self.named_channel}"
        return hashlib.sha256(f"{self.customer_id} {what}{attached}{channel}".encode()).digest()


class Checkout:
    """Turns items or a cart into an order to place, and hands it to the queue."""

    def __init__(self, database: Database, carts: Carts, placement: Placement, settings: Settings) -> None:
        self._database = database
        self._carts = carts
        self._placement = placement
        self._settings = settings

    async def check_out(self, asked: CheckoutRequest, instance: str, author: Author = Author()) -> Answer:  # noqa: B008
        """Place the order. Raises OrderError: nothing was ordered."""
        request = await self.prepare(asked, instance, author)
        return request if isinstance(request, Answer) else await self._placement.place(request)

    async def prepare(
        self, asked: CheckoutRequest, instance: str, author: Author, *, remember: bool = True
    ) -> OrderRequest | Answer:
        """What there is to place, or the answer where it was placed before. Without `remember` nothing is written.

        Raises OrderError: nothing can be ordered.
        """
        _require_own(asked)
        deadline = asyncio.get_running_loop().time() + self._settings.orders_request_deadline_s
        fingerprint = asked.fingerprint if asked.key else b""
        if asked.key and (known := await self._placement.find_outcome(asked.key, fingerprint)):
            return known
        key = asked.key if remember else None
        request = functools.partial(
            OrderRequest,
            asked.seer,
            asked.customer_id,
            deadline=deadline,
            instance=instance,
            key=key,
            fingerprint=fingerprint,
            author=author,
            details=asked.details,
            channel=asked.channel,
            lines_ahead=asked.lines_ahead,
        )
        if asked.items is not None:
            return request(lines=_orderable(merge_lines(asked.items)), pointers=_pointers(asked.items))
        try:
            cart = await self._read_cart(asked.customer_id, deadline, author.request_id if remember else DRY_RUN)
            if cart is None or not cart.is_active:
                return await self._repeat(asked, cart, key, fingerprint)
            _require_filled(cart, asked.customer_id)
        except OrderError as error:
            await self._keep(key, fingerprint, error, instance)
            raise
        return request(lines=_orderable(cart.lines), cart_id=cart.id)

    async def _read_cart(self, customer_id: int, deadline: float, flow: Hashable) -> Cart | None:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._carts.read(customer_id, flow, surely=True)  # an order is refused by what it says
        except CircuitOpen as error:
            raise OrderError(Code.NEIGHBOUR_RESTING, f"{error}.", retry_after_s=1) from None
        except (NotSent, NoAnswer) as error:
            raise OrderError(Code.CART_UNAVAILABLE, f"{error}.") from None
        except TimeoutError:
            raise OrderError(Code.CART_UNAVAILABLE, "The Shopping Cart Service took too long to answer.") from None
        except MalformedReply as error:
            detail = f"The Shopping Cart Service is out of order: {error}."
            raise OrderError(Code.CART_REPLY_INVALID, detail) from None

    async def _repeat(self, asked: CheckoutRequest, cart: Cart | None, key: str | None, fingerprint: bytes) -> Answer:
        """The cart is closed: a second click, after the first has been placed, is answered with the same order."""
        cart_id, within_s = cart.id if cart else None, self._settings.orders_cart_repeat_s
        order = await self._database.run(
            lambda c: claim_sql.order_of_cart(c, asked.seer, asked.customer_id, cart_id, within_s)
        )
        if order is None:
            raise no_active_cart(asked.customer_id)
        if key:
            outcome = Outcome(201, order.document.json, order.order_id)
            await self._database.run(lambda c: keys_sql.keep_outcome(c, key, fingerprint, outcome))
        return order_answer(201, order.document, order.order_id, replayed=True)

    async def _keep(self, key: str | None, fingerprint: bytes, error: OrderError, instance: str) -> None:
        """Remember a failure that came before there was a batch to remember it."""
        if key and is_recorded(error):
            outcome = failure(error, instance)
            await self._database.run(lambda c: keys_sql.keep_outcome(c, key, fingerprint, outcome))


def _require_own(asked: CheckoutRequest) -> None:
    """Refuse an order for another customer, as if that were none."""
    if asked.seer.customer_id not in (None, asked.customer_id):
        raise no_customer(str(asked.customer_id))


def _require_filled(cart: Cart, customer_id: int) -> None:
    if not cart.lines:
        raise OrderError(Code.CART_EMPTY, f"The cart of customer {customer_id} holds nothing.")


def _orderable(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """The lines. Raises OrderError: they are too many, or too much of one product."""
    if len(lines) > MAX_LINES:
        raise invalid("#/items", "too_long", f"An order has at most {MAX_LINES} products; these are {len(lines)}.")
    for line in lines:
        if line.quantity > MAX_QUANTITY:
            message = f"{line.quantity} of product {line.product_id} in one order: at most {MAX_QUANTITY}."
            raise invalid("#/items", "less_than_equal", message)
    return lines


def _pointers(items: Sequence[Line]) -> dict[int, str]:
    """Where each product stands first in the request."""
    return {line.product_id: f"#/items/{n}" for n, line in reversed(list(enumerate(items)))}
