"""The wire's format of messages about events: what webhooks and brokers are sent. `webhooks.body` writes the bytes."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from orders.events.schemas import FeedEventType
from orders.events.wanted import KNOWN_TYPES, MEANINGS
from orders.order.named_types import EventDetails, OrderMembers
from orders.order.schema import ID_EXAMPLE, ORDER_EXAMPLE, Order

VERSION = 1
"""Version of the schemas. Within one, members are only added."""

MESSAGE_EXAMPLE: dict[str, Any] = {
    "type": KNOWN_TYPES[0],
    "timestamp": "2026-11-23T22:31:07.141592Z",
    "data": {
        "position": 1235,
        "order_id": ID_EXAMPLE,
        "number": 1,
        "order_url": f"/orders/{ID_EXAMPLE}?at=1",
        "customer_id": 42,
        "channel": "web",
        "actor": "key:shop",
        "reason": None,
        "before": {"status": "Pending"},
        "after": {"status": "Ordered"},
        "details": None,
        "order": ORDER_EXAMPLE,
    },
}


class MessageData(BaseModel):
    """What happened to an order. `number` is the order's version after it."""

    position: Annotated[int, Field(description="The position in the feed.")]
    order_id: UUID
    number: int
    order_url: Annotated[str, Field(description="Where the order is, as of this event.")]
    customer_id: int
    channel: str | None
    actor: str
    reason: str | None
    before: Annotated[OrderMembers | None, Field(description="The members of the order that changed, as they were.")]
    after: Annotated[OrderMembers | None, Field(description="The same members, as they were then.")]
    details: Annotated[EventDetails | None, Field(description="What was asked for beyond that.")]
    order: Annotated[
        Order | None,
        Field(description="The order as of this event. Null if it was not asked for, or if the message was too large."),
    ]


class OrderMessage(BaseModel):
    """A message about an event of an order, as Standard Webhooks has it."""

    model_config = ConfigDict(json_schema_extra={"example": MESSAGE_EXAMPLE})

    type: FeedEventType
    timestamp: Annotated[datetime, Field(description="When it happened.")]
    data: MessageData


class PublishedSchema(BaseModel):
    """A schema, and where it is."""

    type: FeedEventType
    version: int
    url: str


class PublishedSchemas(BaseModel):
    """The schemas of all types of messages."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"schemas": [{"type": KNOWN_TYPES[0], "version": 1, "url": "/schemas/order.placed/1"}]}
        }
    )

    schemas: list[PublishedSchema]


def schema_url(type: str, version: int) -> str:
    """The address of the schema of a type of messages (`order.placed`)."""
    return f"/schemas/{type}/{version}"


def message_schema(type: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the messages of this type."""
    schema = OrderMessage.model_json_schema(mode="serialization")
    del schema["example"]
    schema["$defs"].pop("FeedEventType")
    schema["properties"]["type"] = {"const": type}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": schema_url(type, VERSION),
        **schema,
        "title": type,
        "description": f"A message about an event of an order: {MEANINGS[type]}.",
        "examples": [{**MESSAGE_EXAMPLE, "type": type}],
    }
