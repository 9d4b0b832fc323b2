"""An order's state under lock, and the change that is decided for it, of each kind. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from orders.errors import OrderError
from orders.order.events import Event
from orders.order.model import NO_DETAILS, Details

ALL_THAT_IS_LEFT = 0
"""Number in `stock_returns` of stock that goes back with all that is left of an order. That happens once in its life.
Stock that goes back with a part of the order has the number of that event.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A line of an order. `quantity` was not cancelled; `returned` of that came back."""

    id: int
    product_id: int
    quantity: int
    unit_price: int | None
    cancelled: int
    returned: int

    @property
    def left(self) -> int:
        """Units that can still be cancelled or come back."""
        return self.quantity - self.returned


@dataclass(frozen=True, slots=True)
class OrderState:
    """An order's state under lock, and the statuses that may follow.

    `wanted_is_hold` and `wanted_gives_back` are about the wanted status: the table has it as a hold, or as one that
    gives stock back. `description_count`: number of changes of the details. It is only counted if no status is wanted
    and the order has a thousand versions.
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
        """All units that can still be cancelled or come back."""
        return cls(_by_product(state, {part.id: part.left for part in state.parts}), ALL_THAT_IS_LEFT)

    @classmethod
    def of_lines(cls, state: OrderState, quantities: Mapping[int, int]) -> "Restock":
        """These units by line."""
        return cls(_by_product(state, quantities), state.version + 1)


NO_RESTOCK = Restock({}, ALL_THAT_IS_LEFT)


def _by_product(state: OrderState, quantities: Mapping[int, int]) -> dict[int, int]:
    """The units per product. An adopted order may have a product in several lines."""
    units: dict[int, int] = {}
    for part in state.parts:
        if quantity := quantities.get(part.id, 0):
            units[part.product_id] = units.get(part.product_id, 0) + quantity
    return units


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an order in this `state`, and its event. There is one constructor for each kind of change.

    `status`, `held_from` and `total` are the new ones. `cancelled` and `returned` map lines to quantities: units that
    are cancelled, and goods that came back. `attached`: the new details, or None if they stay.
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
        """A change to another status. The lines stay as they are."""
        return cls(state, event, status, held_from, state.total, restock=restock)

    @classmethod
    def of_cancelled_units(
        cls, state: OrderState, event: Event, units: Mapping[int, int], total: int | None, restock: Restock
    ) -> "Change":
        """A cancelled part of the order. The status stays."""
        return cls(state, event, state.status, state.held_from, total, cancelled=units, restock=restock)

    @classmethod
    def of_returned_goods(
        cls, state: OrderState, event: Event, units: Mapping[int, int], restock: Restock, status: str | None
    ) -> "Change":
        """Goods that came back. `status`: the new status, or None if it stays."""
        held_from = None if status else state.held_from
        return cls(state, event, status or state.status, held_from, state.total, returned=units, restock=restock)

    @classmethod
    def of_attached(cls, state: OrderState, event: Event, attached: Details) -> "Change":
        """New details. All else stays."""
        return cls(state, event, state.status, state.held_from, state.total, attached=attached)


Decide = Callable[[OrderState], Change | None]
"""A function that decides what becomes of an order (None: nothing). If it raises, everything is undone."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions about many orders: changes, and refusals. The other orders stay as they are."""

    changes: Sequence[Change]
    refused: Mapping[UUID, OrderError] = field(default_factory=dict)


DecideMany = Callable[[Mapping[UUID, OrderState]], Decisions]
"""A function that decides about many orders. It gets those that exist, and may be called twice. If it raises,
everything is undone.
"""
