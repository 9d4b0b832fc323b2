"""The wire's format of deliveries to webhooks."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypeAliasType

from orders.errors import invalid
from orders.order.model import MAX_ID
from orders.order.named_types import WITHOUT_NUL
from orders.order.parsing import parse_order_id
from orders.order.schema import ID_EXAMPLE, WHOLE
from orders.webhooks import model
from orders.webhooks.deliveries_sql import MAX_REPLAYED, DeliveryFilters, Replay
from orders.webhooks.schemas import WEBHOOK_ID_EXAMPLE, WebhookType
from orders.webhooks.wanted import FOR_REPLAYS, known, pattern_of

DeliveryState = TypeAliasType("DeliveryState", Literal["waiting", "sending", "delivered", "failed"])
EndedState = TypeAliasType("EndedState", Literal["delivered", "failed"])
ReplayedType = TypeAliasType(
    "ReplayedType", Annotated[str, WithJsonSchema({"type": "string", "pattern": pattern_of(FOR_REPLAYS)})]
)

_EXAMPLE: dict[str, Any] = {
    "id": 57,
    "webhook_id": WEBHOOK_ID_EXAMPLE,
    "message_id": f"{ID_EXAMPLE}-1",
    "type": "order.placed",
    "position": 1235,
    "order_id": ID_EXAMPLE,
    "number": 1,
    "round": 0,
    "state": "waiting",
    "attempt_count": 1,
    "due_at": "2026-11-28T08:05:00.271828Z",
    "created_at": "2026-11-28T08:00:00.271828Z",
    "first_at": "2026-11-28T08:00:00.314159Z",
    "last_at": "2026-11-28T08:00:00.314159Z",
    "last_status": 500,
    "last_ms": 41,
    "last_error": None,
    "last_reply": "Internal Server Error",
}
_ATTEMPT: dict[str, Any] = {
    "number": 1,
    "at": "2026-11-28T08:00:00.314159Z",
    "ms": 41,
    "status": 500,
    "error": None,
    "reply": "Internal Server Error",
}


class Delivery(BaseModel):
    """A message to an endpoint, and what has become of it. Notices have no position and no order."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _EXAMPLE})

    id: int
    webhook_id: UUID
    message_id: Annotated[str, Field(description="The header `webhook-id` that the receiver gets.")]
    type: WebhookType
    position: Annotated[int | None, Field(description="Of the event, in the feed.")]
    order_id: UUID | None
    number: Annotated[int | None, Field(description="Of the event, in its order.")]
    round: Annotated[int, Field(description="0: the first; 1, 2, …: it was asked for again.")]
    state: DeliveryState
    attempt_count: int
    due_at: Annotated[datetime | None, Field(description="When it is tried, if it waits.")]
    created_at: datetime
    first_at: datetime | None
    last_at: Annotated[datetime | None, Field(description="Of the last attempt, like those below.")]
    last_status: int | None
    last_ms: int | None
    last_error: Annotated[str | None, Field(description="Why no answer came, in a word.")]
    last_reply: Annotated[str | None, Field(description="The beginning of an answer that was no success.")]


class Attempt(BaseModel):
    """An attempt that has ended."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    at: datetime
    ms: int | None
    status: Annotated[int | None, Field(description="What the receiver answered. Null: no answer came.")]
    error: Annotated[str | None, Field(description="Why no answer came, in a word.")]
    reply: Annotated[str | None, Field(description="The beginning of an answer that was no success.")]


class DeliveryWithAttempts(Delivery):
    """A delivery with its attempts, the first one first."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": {**_EXAMPLE, "attempts": [_ATTEMPT]}})

    attempts: list[Attempt]


class DeliveryPage(BaseModel):
    """Deliveries, the newest first, and the address of the next page. With filters a page may be short, even empty,
    although there is a next one.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "deliveries": [_EXAMPLE],
                "next": f"/webhooks/{WEBHOOK_ID_EXAMPLE}/deliveries?limit=1&cursor=57",
            }
        }
    )

    deliveries: list[Delivery]
    next: str | None


class DeliveriesQuery(BaseModel):
    """The parameters for a page of deliveries."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000, description="Deliveries per page.")] = 100
    cursor: Annotated[int | None, Field(ge=1, le=MAX_ID, description="Where the page begins: see `next`.")] = None
    state: Annotated[DeliveryState | None, Field(description="Only those in this state.")] = None
    type: Annotated[
        Annotated[str, Field(min_length=1, max_length=60, pattern=WITHOUT_NUL)] | None,
        Field(description="Only those of this type.", examples=["order.placed"]),
    ] = None
    order_id: Annotated[
        Annotated[str, WithJsonSchema({"type": "string", "format": "uuid", "examples": [ID_EXAMPLE]})] | None,
        Field(description="Only those about this order."),
    ] = None

    def filters(self) -> DeliveryFilters:
        """What is wanted. Raises OrderError."""
        order_id = None if self.order_id is None else parse_order_id(self.order_id)
        if self.order_id is not None and order_id is None:
            raise invalid("query/order_id", "not_an_order", f"order_id: {self.order_id[:60]!r} is not an order's ID.")
        return DeliveryFilters(self.state and model.DeliveryState(self.state), self.type, order_id, self.cursor)


class EventsToReplay(BaseModel):
    """Which events are delivered again. An empty object means all that the endpoint asks for, up to its position."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"after": 1200, "until": 1300, "types": ["order.placed"], "state": "failed"}]},
    )

    after: Annotated[
        int, Field(ge=0, le=MAX_ID), WHOLE, Field(description="Only events behind this position of the feed.")
    ] = 0
    until: Annotated[
        Annotated[int, Field(ge=1, le=MAX_ID), WHOLE] | None, Field(description="Only events up to this position.")
    ] = None
    types: Annotated[
        list[ReplayedType] | None,
        Field(min_length=1, max_length=50, description="Only events of these types. Without it: of the endpoint's."),
    ] = None
    state: Annotated[
        EndedState | None,
        Field(description="Only those whose last delivery ended so. Without it: also those that had none."),
    ] = None

    def replay(self) -> Replay:
        """What is asked for. Raises OrderError."""
        types = None if self.types is None else known(self.types, FOR_REPLAYS)
        return Replay(self.after, self.until, types, self.state and model.DeliveryState(self.state))


class Replayed(BaseModel):
    """How many events are delivered again."""

    model_config = ConfigDict(json_schema_extra={"example": {"count": 37}})

    count: Annotated[int, Field(description=f"At most {MAX_REPLAYED:,}.")]
