"""What happened to an order: the types of events, and an event before it is written.

PostgreSQL writes events: those of placing in `stock`, those of changes in `changing`, and a trigger writes one for
whoever writes none.
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
    """Something that happens to an order. `before` and `after` have those members of the order that change, `details`
    what was asked for beyond that. The order's new version is its number; PostgreSQL tells the time.
    """

    type: EventType
    author: Author
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    details: Mapping[str, Any] | None = None
    reason: str | None = None
    note: str | None = None

    def document(self, number: int, at: str) -> dict[str, Any]:
        """As the wire has it; `EVENT_JSON` in `document_sql` is the same of an event that was written."""
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
