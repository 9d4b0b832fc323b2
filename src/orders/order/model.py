"""What an order is made of, and who asked for a change. Pure. `statuses` has the statuses."""

from collections.abc import Iterable
from dataclasses import dataclass

MAX_ID = 2**63 - 1
"""Maximum customer, product and cart ID: PostgreSQL's bigint. The minimum is 1."""

MAX_QUANTITY = 2**31 - 1
"""Maximum quantity of a line: PostgreSQL's integer, as in the tables that this service adopts. The minimum is 1."""

MAX_LINES = 500
"""Maximum number of different products in one order. More is a mistake or an attack; it also bounds a batch's work."""


@dataclass(frozen=True, slots=True)
class Author:
    """The author of a change and their request, as the order's history records them. `address`: the client's, which
    only the audit records.
    """

    actor: str = "api"
    request_id: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an order: a quantity of one product, 1 … 2^31-1."""

    product_id: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Details:
    """Metadata, external reference and notes of an order. `metadata` is a JSON object as text. None: not set."""

    external_reference: str | None = None
    metadata: str | None = None
    public_note: str | None = None
    private_note: str | None = None


NO_DETAILS = Details()


@dataclass(frozen=True, slots=True)
class Field:
    """A field of `Details`. `name` is also its column in `orders`, `type` is that column's type, and `path` leads to it
    in the order's JSON. `is_private`: it is null for a `Seer` that does not see private things.
    """

    name: str
    type: str
    path: tuple[str, ...]
    is_private: bool = False


ATTACHED = (
    Field("external_reference", "text", ("external_reference",)),
    Field("metadata", "jsonb", ("metadata",)),
    Field("public_note", "text", ("notes", "public")),
    Field("private_note", "text", ("notes", "private"), is_private=True),
)
"""The fields of `Details`. Statements, the order's JSON, events and exports are made from this table. A field of the
type jsonb is a JSON object, and `{}` if it is not set.
"""


def merge_lines(lines: Iterable[Line]) -> tuple[Line, ...]:
    """One line per product, sorted by product ID. Products are claimed in this order, which prevents deadlocks."""
    quantities: dict[int, int] = {}
    for line in lines:
        quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
    return tuple(Line(product_id, quantity) for product_id, quantity in sorted(quantities.items()))
