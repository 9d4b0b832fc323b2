"""The events of an order: their types, and an event before it is written.

SQL writes events: in `stock` those of placing, in `changing` those of changes. A trigger writes one for every new
version of an order that comes without an event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from orders.order.model import Author
from orders.order.statuses import PENDING


class EventType(StrEnum):
    """The type of an event, and when it is written. tests/integration/test_event_types.py compares it with the SQL."""

    PLACED = "placed", "the order was placed, and its stock is taken"
    FAILED = "failed", "the order could not be placed; stock that was taken for it goes back"
    MOVED = "moved", "the order has another status, and its lines are as they were"
    CANCELLED = "cancelled", "the order, or some units of it, were cancelled"
    RETURNED = "returned", "goods of the order came back"
    DESCRIBED = "described", "what is attached to the order was changed"
    CHANGED = "changed", "somebody changed the order in the database itself, and its status stayed"

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


@dataclass(frozen=True, slots=True)
class Event:
    """An event before it is written. `before` and `after` have the members of the order that change. `details` is what
    was asked for beyond that. PostgreSQL adds the number, which is the order's new version, and the time.
    """

    type: EventType
    author: Author
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    details: Mapping[str, Any] | None = None
    reason: str | None = None
    note: str | None = None

    def document(self, number: int, at: str) -> dict[str, Any]:
        """The event as the wire has it. `EVENT_JSON` in `document_sql` makes the same of a written event."""
        return {
            "number": number,
            "type": self.type.value,
            "before": self.before,
            "after": self.after,
            "details": self.details,
            "actor": self.author.actor,
            "reason": self.reason,
            "note": self.note,
            "request_id": self.author.request_id,
            "at": at,
        }


def placed(author: Author, status: str) -> Event:
    """The first event of an order, as SETTLE writes it."""
    return Event(EventType.PLACED, author, before={"status": PENDING}, after={"status": status})
