"""The author of a change, and the rules of every change: the version, the next status, the units that are left."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orders.changing.change import OrderState
from orders.errors import Code, OrderError, invalid
from orders.order.events import Event, EventType
from orders.order.model import Author

RESTOCKED = "restocked"
"""The condition of returned goods in which they go back to the catalog."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The author of a change, their reason and note, and the versions of the order that they know (None: any)."""

    author: Author = Author()  # noqa: RUF009 (frozen)
    reason: str | None = None
    note: str | None = None
    versions: Container[int] | None = None

    def event(
        self,
        type: EventType,
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        details: Mapping[str, Any] | None = None,
    ) -> Event:
        """The event of the change."""
        return Event(type, self.author, before, after, details, self.reason, self.note)


@dataclass(frozen=True, slots=True)
class Units:
    """A number of units of one line. `condition`: the state in which they came back."""

    line_id: int
    quantity: int
    condition: str = RESTOCKED


def require_version(state: OrderState, asked: Asked) -> None:
    """Raise OrderError if the order's version is none of those that the author of the change knows."""
    if asked.versions is not None and state.version not in asked.versions:
        raise OrderError(
            Code.VERSION_CHANGED,
            f"The order has version {state.version}, which is none of those that you named.",
            extra={"version": state.version},
        )


def require_allowed(state: OrderState, status: str) -> None:
    """Raise OrderError if this status may not follow."""
    if status not in state.allowed:
        names = ", ".join(state.allowed) or "nothing: it is final"
        raise OrderError(
            Code.STATUS_NOT_ALLOWED,
            f"An order that is {state.status} can't become {status}; it can become {names}.",
            extra={"allowed_statuses": list(state.allowed)},
        )


def quantities_of(state: OrderState, units: Sequence[Units]) -> dict[int, int]:
    """The units per line, summed up if a line is named twice. Raises OrderError if there is no such line, or too few
    are left.
    """
    left = {part.id: part.left for part in state.parts}
    quantities: dict[int, int] = {}
    errors: list[dict[str, Any]] = []
    for n, u in enumerate(units):
        if u.line_id not in left:
            lines = ", ".join(map(str, left))
            raise invalid(f"#/items/{n}/id", "unknown_line", f"The order has no line {u.line_id}; it has {lines}.")
        quantities[u.line_id] = quantities.get(u.line_id, 0) + u.quantity
        if quantities[u.line_id] > left[u.line_id]:
            errors.append(_exceeded(n, u.line_id, quantities[u.line_id], left[u.line_id]))
    if errors:
        detail = " ".join(str(error["message"]) for error in errors[:5])
        raise OrderError(Code.QUANTITY_EXCEEDED, detail, extra={"errors": errors})
    return quantities


def _exceeded(n: int, line_id: int, quantity: int, left: int) -> dict[str, Any]:
    return {
        "pointer": f"#/items/{n}/quantity",
        "code": "quantity_exceeded",
        "message": f"Line {line_id}: {quantity} asked for, {left} left.",
        "left": left,
    }


def is_all_that_is_left(state: OrderState, quantities: Mapping[int, int]) -> bool:
    """Whether nothing of the order is left without these units."""
    return all(quantities.get(part.id, 0) == part.left for part in state.parts)


def status_members(status: str, held_from: str | None) -> dict[str, Any]:
    """The members of an event for the order's status."""
    return {"status": status, **({"held_from": held_from} if held_from else {})}
