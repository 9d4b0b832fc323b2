"""What an order is made of, and who asks for it. Pure; which statuses there are is in `workflow`."""

from collections.abc import Iterable
from dataclasses import dataclass

MAX_ID = 2**63 - 1
"""Customer, product and cart identifiers are 1 … 2^63-1: PostgreSQL's bigint."""

MAX_QUANTITY = 2**31 - 1
"""A line's quantity is 1 … 2^31-1: PostgreSQL's integer, as in the tables that this service adopts."""

MAX_LINES = 500
"""More different products than this in one order is a mistake or an attack; it also bounds a batch's work."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who asked for a change and in which request: what the order's history remembers of them."""

    actor: str = "api"
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """So many of one product. `quantity` is 1 … 2^31-1."""

    product_id: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Details:
    """What others attach to an order. `metadata` is a JSON object as text; None everywhere: nothing."""

    external_reference: str | None = None
    metadata: str | None = None
    public_note: str | None = None
    private_note: str | None = None


NO_DETAILS = Details()


def merge_lines(lines: Iterable[Line]) -> tuple[Line, ...]:
    """One line per product, in the order of product IDs (the order in which products are claimed: no deadlocks)."""
    quantities: dict[int, int] = {}
    for line in lines:
        quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
    return tuple(Line(product_id, quantity) for product_id, quantity in sorted(quantities.items()))
