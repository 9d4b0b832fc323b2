"""What waits in the queue, and goes through a batch: an order to place, or stock that is due back."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from uuid import UUID

from uuid_utils.compat import uuid7

from orders.order.idempotency import Answer
from orders.order.model import NO_DETAILS, Author, Details, Line


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """An order that somebody asks for: the lines, merged, or those of the cart `cart_id`.

    `deadline` is the event loop's time. `lines_ahead` counts the lines of the orders before this one in the same HTTP
    request.
    """

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
    lines_ahead: int = 0

    @property
    def cart(self) -> tuple[int, int] | None:
        """What identifies the cart."""
        return None if self.cart_id is None else (self.customer_id, self.cart_id)


@dataclass(eq=False, slots=True)
class Entry:
    """An entry of the queue. It needs `products`, and its answer is the `future`.

    `turn_at` and `deadline` are the event loop's times. `is_hindered`: at its turn something that it needs was not
    free.
    """

    ONLY_ONCE: ClassVar[frozenset[tuple[str, object]]] = frozenset()

    products: frozenset[int]
    future: asyncio.Future[Answer]
    turn_at: float
    deadline: float
    passed_over: int = 0
    is_hindered: bool = False

    @property
    def only_once(self) -> frozenset[tuple[str, object]]:
        """What at most one order of a batch may have."""
        return self.ONLY_ONCE

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
    """An order to place. It gets another `order_id` if it has to start over after INTEND."""

    request: OrderRequest
    order_id: UUID = field(default_factory=uuid7)

    @property
    def key(self) -> str | None:
        """Its Idempotency-Key."""
        return self.request.key

    @property
    def reference(self) -> str | None:
        """Its external reference."""
        return self.request.details.external_reference

    @property
    def only_once(self) -> frozenset[tuple[str, object]]:
        """Its cart, and its reference."""
        if self.request.cart_id is None and self.reference is None:
            return self.ONLY_ONCE
        named = {"cart": self.request.cart, "reference": self.reference}
        return frozenset((name, value) for name, value in named.items() if value is not None)


def place_order(request: OrderRequest, future: asyncio.Future[Answer], turn_at: float = 0.0) -> PlaceOrder:
    """The entry of a request."""
    products = frozenset(line.product_id for line in request.lines)
    return PlaceOrder(products, future, turn_at, request.deadline, request=request)
