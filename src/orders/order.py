"""What an order is: its lines, its statuses, and which status may follow which. Pure; knows nothing outside itself."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

MAX_ID = 2**63 - 1
"""Customer, product and cart identifiers are 1 … 2^63-1: PostgreSQL's bigint."""

MAX_QUANTITY = 2**31 - 1
"""A line's quantity is 1 … 2^31-1: PostgreSQL's integer, as in the tables that this service adopts."""

MAX_LINES = 500
"""More different products than this in one order is a mistake or an attack; it also bounds a batch's work."""


class Status(StrEnum):
    """Where an order stands. Written as the API writes it."""

    PENDING = "Pending"  # being placed: its stock may or may not be taken, and nobody was told 201
    ORDERED = "Ordered"  # placed: its stock is taken and the customer was told so
    CONFIRMED = "Confirmed"  # the shop has accepted it
    PAID = "Paid"
    PROCESSING = "Processing"  # being picked and packed
    SHIPPED = "Shipped"
    DELIVERED = "Delivered"
    COMPLETED = "Completed"  # final: nothing more is expected
    ON_HOLD = "On Hold"  # set aside; goes back to where it was, or is cancelled
    CANCELLED = "Cancelled"  # final: its stock goes back
    RETURNED = "Returned"  # the goods came back
    REFUNDED = "Refunded"  # final: the money went back
    FAILED = "Failed"  # final: was never placed; whatever stock was taken goes back


LINE_OF_LIFE = (
    Status.ORDERED,
    Status.CONFIRMED,
    Status.PAID,
    Status.PROCESSING,
    Status.SHIPPED,
    Status.DELIVERED,
    Status.COMPLETED,
)
NOT_PLACED = (Status.PENDING, Status.FAILED)
"""Only placing an order and its recovery move an order into or out of these."""

FINAL = (Status.COMPLETED, Status.CANCELLED, Status.REFUNDED, Status.FAILED)

_BEFORE_SHIPPING = LINE_OF_LIFE[: LINE_OF_LIFE.index(Status.SHIPPED)]
_AFTER_SHIPPING = (Status.SHIPPED, Status.DELIVERED)
_CHANGEABLE = tuple(s for s in Status if s not in NOT_PLACED)
_BY_LOWER_CASE = {s.lower(): s for s in Status}


def parse_status(text: str) -> Status | None:
    """The status that `text` names, whatever its case ("on hold", "On_Hold" and "ON HOLD" are one); None if unknown."""
    return _BY_LOWER_CASE.get(" ".join(text.replace("_", " ").split()).lower())


def allowed_statuses(status: str, held_from: str | None = None, *, adopted: bool = False) -> tuple[Status, ...]:
    """The statuses that may follow `status`, in the order of an order's life.

    Forward along the line, skipping allowed, never backwards; `On Hold` goes back to `held_from`, where the order
    was. An adopted order may stand in a status that is none of ours, or `Pending` in another sense: it may go to every
    status that a person can set.
    """
    if status in LINE_OF_LIFE:
        here = LINE_OF_LIFE.index(Status(status))
        following = set(LINE_OF_LIFE[here + 1 :]) | _leaves_the_line(Status(status))
    elif status == Status.ON_HOLD:
        following = {Status.CANCELLED} | ({Status(held_from)} if held_from in LINE_OF_LIFE else set())
    elif status == Status.RETURNED:
        following = {Status.REFUNDED}
    elif status in FINAL or (status in NOT_PLACED and not adopted):
        following = set()
    else:
        following = set(_CHANGEABLE)
    return tuple(s for s in Status if s in following)


def _leaves_the_line(status: Status) -> set[Status]:
    if status in _BEFORE_SHIPPING:
        return {Status.ON_HOLD, Status.CANCELLED}
    if status in _AFTER_SHIPPING:
        return {Status.RETURNED, Status.REFUNDED}
    return set()


def gives_stock_back(status: Status) -> bool:
    """Whether an order's stock goes back to the catalog when it moves here. Returned goods are looked at first."""
    return status is Status.CANCELLED


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
