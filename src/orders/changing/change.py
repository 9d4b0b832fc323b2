"""Where an order stands, and what becomes of it: a change of each kind, as it was decided. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from orders.errors import OrderError
from orders.order.events import Event
from orders.order.model import NO_DETAILS, Details

ALL_THAT_IS_LEFT = 0
"""Number in `stock_returns` of the stock that goes back when all that is left of an order does, which happens once in
its life. Stock of a part has the number of the part's event.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A line as it stands: `quantity` is what is left of it, of which `returned` came back."""

    id: int
    product_id: int
    quantity: int
    unit_price: int | None
    cancelled: int
    returned: int

    @property
    def left(self) -> int:
        """What can still be cancelled or come back."""
        return self.quantity - self.returned


@dataclass(frozen=True, slots=True)
class OrderState:
    """Where an order stands, what may follow, and (of the status that is wanted) whether the table has it as a hold,
    and as one that gives stock back. `description_count` says how often what is attached was changed; it is counted
    where no status is wanted and the order has a thousand versions.
    """

    id: UUID
    status: str
    held_from: str | None
    version: int
    total: int | None
    allowed: tuple[str, ...]
    wanted_is_hold: bool
    wanted_gives_back: bool
    parts: tuple[Part, ...]
    attached: Details = NO_DETAILS
    description_count: int = 0


@dataclass(frozen=True, slots=True)
class Restock:
    """Stock of an order that goes back to the catalog: units by product, and their number in `stock_returns`."""

    units: Mapping[int, int]
    number: int

    @classmethod
    def of_all_that_is_left(cls, state: OrderState) -> "Restock":
        """All that was neither cancelled nor came back."""
        return cls(_by_product(state, {part.id: part.left for part in state.parts}), ALL_THAT_IS_LEFT)

    @classmethod
    def of_lines(cls, state: OrderState, quantities: Mapping[int, int]) -> "Restock":
        """These units by line."""
        return cls(_by_product(state, quantities), state.version + 1)


NO_RESTOCK = Restock({}, ALL_THAT_IS_LEFT)


def _by_product(state: OrderState, quantities: Mapping[int, int]) -> dict[int, int]:
    """The units of lines as units of products: an adopted order may name a product in several lines."""
    units: dict[int, int] = {}
    for part in state.parts:
        if quantity := quantities.get(part.id, 0):
            units[part.product_id] = units.get(part.product_id, 0) + quantity
    return units


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an order that is in this `state`, and its event. Below is one constructor for each kind.

    `status`, `held_from` and `total` are those after it. `cancelled` and `returned` are units by line: what was
    cancelled, and the goods that came back. `attached` is None where it stays as it is.
    """

    state: OrderState
    event: Event
    status: str
    held_from: str | None
    total: int | None
    cancelled: Mapping[int, int] = field(default_factory=dict)
    returned: Mapping[int, int] = field(default_factory=dict)
    restock: Restock = NO_RESTOCK
    attached: Details | None = None

    @classmethod
    def of_status(
        cls, state: OrderState, event: Event, status: str, held_from: str | None, restock: Restock
    ) -> "Change":
        """Another status; the lines stay as they are."""
        return cls(state, event, status, held_from, state.total, restock=restock)

    @classmethod
    def of_cancelled_units(
        cls, state: OrderState, event: Event, units: Mapping[int, int], total: int | None, restock: Restock
    ) -> "Change":
        """A part of the order is cancelled; the status stays."""
        return cls(state, event, state.status, state.held_from, total, cancelled=units, restock=restock)

    @classmethod
    def of_returned_goods(
        cls, state: OrderState, event: Event, units: Mapping[int, int], restock: Restock, status: str | None
    ) -> "Change":
        """Goods came back; with `status` it is the order's from now on."""
        held_from = None if status else state.held_from
        return cls(state, event, status or state.status, held_from, state.total, returned=units, restock=restock)

    @classmethod
    def of_attached(cls, state: OrderState, event: Event, attached: Details) -> "Change":
        """What is attached to the order is this from now on; all else stays."""
        return cls(state, event, state.status, state.held_from, state.total, attached=attached)


Decide = Callable[[OrderState], Change | None]
"""What becomes of an order (None: nothing). What it raises undoes everything."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What becomes of many orders: those that change, and why others are refused. Of the rest nothing becomes."""

    changes: Sequence[Change]
    refused: Mapping[UUID, OrderError] = field(default_factory=dict)


DecideMany = Callable[[Mapping[UUID, OrderState]], Decisions]
"""What becomes of many orders, of those that exist. What it raises undoes everything; it may be asked twice."""
