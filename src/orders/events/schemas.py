"""The wire's format of the feed."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from orders.events.wanted import KNOWN_TYPES
from orders.order.named_types import EventDetails, OrderMembers
from orders.order.schema import ID_EXAMPLE

FeedEventType = TypeAliasType(
    "FeedEventType",
    Annotated[
        str,
        Field(
            description="What happened: the event's type in the order's history, with `order.` in front. Later "
            "versions add some.",
            examples=[KNOWN_TYPES[0]],
            json_schema_extra={"x-extensible-enum": list(KNOWN_TYPES)},
        ),
    ],
)
"""Not an enum: a client with one could not read an event of a newer version."""

EVENT_EXAMPLE: dict[str, Any] = {
    "position": 1235,
    "id": f"{ID_EXAMPLE}-1",
    "type": "order.placed",
    "order_id": ID_EXAMPLE,
    "number": 1,
    "customer_id": 42,
    "channel": None,
    "at": "2026-11-23T22:31:07.141592Z",
    "actor": "key:shop",
    "reason": None,
    "note": None,
    "request_id": "checkout-7f3d2c1e",
    "before": {"status": "Pending"},
    "after": {"status": "Ordered"},
    "details": None,
}


class FeedEvent(BaseModel):
    """An event in the feed. `number` is the order's version after it, as in `GET /orders/{id}/events`."""

    position: Annotated[int, Field(description="1, 2, 3, … without a gap. An order's events are in their order.")]
    id: Annotated[str, Field(description="The same event has the same `id`, wherever it is met.")]
    type: FeedEventType
    order_id: UUID
    number: int
    customer_id: int
    channel: str | None
    at: datetime
    actor: str
    reason: str | None
    note: str | None
    request_id: str | None
    before: Annotated[OrderMembers | None, Field(description="The members of the order that changed, as they were.")]
    after: Annotated[OrderMembers | None, Field(description="The same members, as they were then.")]
    details: Annotated[EventDetails | None, Field(description="What was asked for beyond that.")]


class FeedPage(BaseModel):
    """A page of the feed. `next` is the address of the following page, also where there is none yet: ask again there.

    A page of a filtered feed may be empty, and `next` be farther on: it passes at most 10,000 positions.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"events": [EVENT_EXAMPLE], "next": "/events?after=1235&mark=5c0de1f2", "head": 1302}
        }
    )

    events: list[FeedEvent]
    next: str
    head: Annotated[int, Field(description="The last position that there is.")]


class FeedHead(BaseModel):
    """Where the feed ends."""

    model_config = ConfigDict(json_schema_extra={"example": {"head": 1302, "lag_s": 0.04}})

    head: Annotated[int, Field(description="The last position that there is.")]
    lag_s: Annotated[
        float | None,
        Field(
            description="Age of the oldest event that has no position yet, in seconds; 0 if all have one. Null while "
            "old events are being added to the feed."
        ),
    ]
