"""What an endpoint and a delivery are. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from orders.order.events import EventType

TYPE_PREFIX = "order."
"""Prefix of the types of orders' events, as receivers know them: `order.placed` is `placed` in the history."""

ALL_TYPES = "*"
ALL_OF_ORDERS = "order.*"
OF_WEBHOOKS = "webhook.*"
"""Notices about other endpoints. An endpoint never gets those about itself."""

TEST = "webhook.test"
"""Type of the message that is sent on demand, to see whether it arrives."""

NOTICES = (TEST, "webhook.failing", "webhook.disabled")
"""Types of messages that are about webhooks, and no order's."""


class Ordering(StrEnum):
    """In which order an endpoint gets the events."""

    ORDER = "order"
    """Those of one order one after the other; of different orders at once."""
    NONE = "none"


class Payload(StrEnum):
    """Whether a message has the order as of the event, or only says where it is."""

    FULL = "full"
    THIN = "thin"


class DisabledReason(StrEnum):
    """Why nothing is sent to an endpoint."""

    ASKED = "asked"
    FAILING = "failing"
    GONE = "gone"
    """It answered 410."""


class DeliveryState(StrEnum):
    """The states of a delivery."""

    WAITING = "waiting"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Its last attempt failed. It can be delivered again on demand."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events are sent, and how."""

    id: UUID
    url: str
    types: tuple[str, ...]
    payload: Payload
    ordering: Ordering
    concurrency: int
    channel: str | None = None
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to send: an event at its position, or a notice (`position`, `order_id` and `number` are None then).

    `attempt` counts from 1. It tells a late result of an attempt that counted as lost from the result of the next.
    """

    delivery_id: int
    webhook_id: UUID
    type: str
    attempt: int
    created_at: datetime
    position: int | None = None
    order_id: UUID | None = None
    number: int | None = None
    notice: str | None = None

    @property
    def id(self) -> str:
        """The header `webhook-id`: the same at every attempt, and when it is delivered again."""
        return f"{self.order_id}-{self.number}" if self.order_id else f"notice-{self.delivery_id}"


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended. `status` is None if no answer came; `error` says why then. `reply` is its beginning."""

    message: Message
    at: datetime
    ms: int
    status: int | None = None
    error: str | None = None
    reply: str | None = None
    retry_after_s: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the endpoint has taken it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """Whether the endpoint says that it is gone for good."""
        return self.status == 410

    @property
    def asks_for_a_pause(self) -> bool:
        """Whether the endpoint wants nothing for a while."""
        return self.retry_after_s is not None and self.status in (429, 502, 503, 504)


def wants(types: Sequence[str], type: str) -> bool:
    """Whether one of the patterns takes this type (`order.moved`). Of the events, `*` alone takes `order.failed`: an
    order that was never placed.
    """
    if type in types or ALL_TYPES in types:
        return True
    if type.startswith(TYPE_PREFIX):
        return ALL_OF_ORDERS in types and type != TYPE_PREFIX + EventType.FAILED
    return OF_WEBHOOKS in types
