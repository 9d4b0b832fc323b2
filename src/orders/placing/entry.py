"""A request to place an order, the answer to it, and what an Idempotency-Key remembers of the two."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from uuid_utils.compat import uuid7

from orders.errors import Code, OrderError
from orders.order.idempotency import Answer, failure, is_recorded
from orders.order.keys_sql import Outcome
from orders.order.model import NO_DETAILS, Author, Details, Line
from orders.stock.plan import Shortage


@dataclass(frozen=True, slots=True)
class Request:
    """An order to place: the lines, merged, or those of the cart `cart_id`. `deadline` is the event loop's time.

    `lines_ahead`: lines of the orders before this one in the same HTTP request.
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
    def only_once(self) -> set[tuple[str, object]]:
        """What at most one order may have: its cart, and its reference."""
        reference = self.details.external_reference
        return ({("cart", self.cart)} if self.cart else set()) | ({("reference", reference)} if reference else set())

    @property
    def cart(self) -> tuple[int, int] | None:
        """What identifies the cart."""
        return None if self.cart_id is None else (self.customer_id, self.cart_id)


@dataclass(eq=False, slots=True)
class Waiting:
    """A request (None: only stock that is due back) on its way through a batch, and the future that is its answer."""

    products: frozenset[int]
    future: asyncio.Future[Answer]
    request: Request | None = None
    order_id: UUID = field(default_factory=uuid7)
    passed_over: int = 0
    turn_at: float = 0.0
    is_hindered: bool = False  # something that it needs was not free when its turn came

    def answer(self, answer: Answer) -> None:
        """Answer, unless the client was answered already."""
        if not self.future.done():
            self.future.set_result(answer)

    def refuse(self, error: Exception) -> None:
        """Answer with an error, unless the client was answered already."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # read, so that a client that has gone leaves no warning behind


def insufficient(request: Request, shortages: Sequence[Shortage]) -> OrderError:
    """400 with every line that falls short."""
    errors = [
        {
            **({"pointer": request.pointers[s.product_id]} if s.product_id in request.pointers else {}),
            "code": "insufficient_inventory" if s.is_known else "unknown_product",
            "message": f"Product {s.product_id}: {s.requested} requested, {s.available} available."
            if s.is_known
            else f"The catalog has no product {s.product_id}.",
            "product_id": s.product_id,
            "requested": s.requested,
            "available": s.available,
        }
        for s in shortages
    ]
    detail = " ".join(str(e["message"]) for e in errors[:5])
    return OrderError(Code.INSUFFICIENT_INVENTORY, detail, extra={"errors": errors})


def outcomes(refused: Mapping[Waiting, OrderError]) -> dict[str, Outcome]:
    """What is remembered for the keys of these requests."""
    return {
        w.request.key: failure(error, w.request.instance)
        for w, error in refused.items()
        if w.request and w.request.key and is_recorded(error)
    }
