"""What waits in the queue, and goes through a batch: an order to place, or stock that is due back."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from uuid_utils.compat import uuid7

from orders.order.idempotency import Answer
from orders.order.model import NO_DETAILS, Author, Details, Line
from orders.principal import Seer


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """An order that the `seer` asks for: the lines, merged, or those of the cart `cart_id`.

    `deadline` is the event loop's time. `lines_ahead` counts the lines of the orders before this one in the same HTTP
    request.
    """

    seer: Seer
    customer_id: int
    lines: tuple[Line, ...]
    deadline: float
    instance: str
    cart_id: int | None = None
    key: str | None = None
    fingerprint: bytes = b""
    pointers: Mapping[int, str] = field(default_factory=dict)
    author: Author = Author()  # noqa: RUF009 (frozen)
    details: Details = NO_DETAILS
    channel: str | None = None
    lines_ahead: int = 0

    @property
    def cart(self) -> tuple[int, int] | None:
        """What identifies the cart."""
        return None if self.cart_id is None else (self.customer_id, self.cart_id)


@dataclass(eq=False, slots=True)
class Entry:
    """An entry of the queue. It needs `products`, and its answer is the `future`.

    `turn_at` and `deadline` are the event loop's times. `only_once` is what at most one order of a batch may have.
    `is_hindered`: at its turn something that it needs was not free.
    """

    products: frozenset[int]
    future: asyncio.Future[Answer]
    turn_at: float
    deadline: float
    only_once: frozenset[tuple[str, object]] = frozenset()
    passed_over: int = 0
    is_hindered: bool = False

    def answer(self, answer: Answer) -> None:
        """Answer, unless the client was answered already."""
        if not self.future.done():
            self.future.set_result(answer)

    def refuse(self, error: Exception) -> None:
        """Answer with an error, unless the client was answered already."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # read, so that a client that has gone leaves no warning behind


@dataclass(eq=False, slots=True)
class GiveBack(Entry):
    """Stock that is due back to one product. It rides on the product's next PUT."""


@dataclass(eq=False, slots=True, kw_only=True)
class PlaceOrder(Entry):
    """An order to place, with its Idempotency-Key, its cart and its external reference, where it has them.

    It gets another `order_id` if it has to start over after INTEND.
    """

    request: OrderRequest
    key: str | None
    cart: tuple[int, int] | None
    reference: str | None
    order_id: UUID = field(default_factory=uuid7)

    @property
    def is_plain(self) -> bool:
        """Whether it needs nothing but its products."""
        return self.key is None and self.cart is None and self.reference is None


def queue_entry(request: OrderRequest, future: asyncio.Future[Answer], turn_at: float = 0.0) -> PlaceOrder:
    """The entry of a request."""
    cart, reference = request.cart, request.details.external_reference
    only_once = {"cart": cart, "reference": reference}
    return PlaceOrder(
        frozenset([line.product_id for line in request.lines]),
        future,
        turn_at,
        request.deadline,
        frozenset((name, value) for name, value in only_once.items() if value is not None),
        request=request,
        key=request.key,
        cart=cart,
        reference=reference,
    )
