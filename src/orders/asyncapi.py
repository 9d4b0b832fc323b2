"""The AsyncAPI document: what the service sends by itself. `openapi` describes what it answers."""

import functools
from typing import Any

from fastapi.responses import JSONResponse

from orders.events.message_schemas import OrderMessage, message_schema
from orders.events.parameters import StreamQuery
from orders.events.schemas import EVENT_EXAMPLE, FeedEvent
from orders.events.wanted import KNOWN_TYPES
from orders.version import VERSION

Document = dict[str, Any]


@functools.cache
def describe_messages() -> Document:
    """The document at `/asyncapi.json`: AsyncAPI 3.0."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Orders",
            "version": VERSION,
            "description": "What happens to orders, as messages. Each event comes at least once, and the events of an "
            "order come in their order.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": _SERVERS,
        "channels": {
            "feed": _channel("/events", "Pages of events, first things first.", "service", ("event",)),
            "stream": _channel("/events/stream", "Events as they happen (Server-Sent Events).", "service", ("event",)),
            "webhook": _channel(None, "The URL of an endpoint.", "receiver", tuple(map(_name, KNOWN_TYPES))),
        },
        "operations": {
            "readFeed": _operation("feed", "Read the feed", "GET"),
            "followStream": _operation("stream", "Follow the stream", "GET", _query()),
            "sendToWebhook": _operation("webhook", "Send to a webhook", "POST"),
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "With `events:read`."}},
            "messages": {"event": _EVENT} | {_name(type): _message(type) for type in KNOWN_TYPES},
            "schemas": _schemas(),
        },
    }


async def get_asyncapi() -> JSONResponse:
    """The AsyncAPI document: what the service sends by itself."""
    return JSONResponse(describe_messages())


_SERVERS: Document = {
    "service": {
        "host": "localhost:8000",
        "protocol": "http",
        "description": "This service.",
        "security": [{"$ref": "#/components/securitySchemes/bearer"}],
    },
    "receiver": {
        "host": "{receiver}",
        "protocol": "https",
        "description": "A program of yours.",
        "variables": {"receiver": {"default": "shop.example", "description": "Where it listens."}},
    },
}

_EVENT: Document = {
    "name": "event",
    "title": "An event in the feed",
    "contentType": "application/json",
    "payload": {"$ref": "#/components/schemas/FeedEvent"},
    "examples": [{"name": "placed", "payload": EVENT_EXAMPLE}],
}

_SIGNED: Document = {
    "type": "object",
    "description": "Signed as Standard Webhooks 1.0.0 says.",
    "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
    "properties": {
        "webhook-id": {"type": "string", "description": "The same at every attempt: the event's `id`."},
        "webhook-timestamp": {"type": "string", "description": "When it was sent, in seconds."},
        "webhook-signature": {"type": "string", "description": "`v1,…`; several during a rotation."},
    },
}


def _channel(address: str | None, description: str, server: str, messages: tuple[str, ...]) -> Document:
    return {
        "address": address,
        "description": description,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _operation(channel: str, title: str, method: str, query: Document | None = None) -> Document:
    http = {"method": method, "bindingVersion": "0.3.0", **({"query": query} if query else {})}
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "title": title,
        "bindings": {"http": http},
    }


def _query() -> Document:
    schema = StreamQuery.model_json_schema()
    return {"type": "object", "properties": schema["properties"]}


def _name(type: str) -> str:
    """The name of a message in the document, which may have no dot: `order_placed`."""
    return type.replace(".", "_")


def _message(type: str) -> Document:
    schema = message_schema(type)
    return {
        "name": type,
        "title": type,
        "summary": schema["description"],
        "contentType": "application/json",
        "headers": _SIGNED,
        "payload": {"$ref": f"#/components/schemas/{_name(type)}"},
        "examples": [{"name": "full", "payload": schema["examples"][0]}],
    }


def _schemas() -> Document:
    """The schemas. Those of the types share what they consist of."""
    found: Document = {}
    for model in (OrderMessage, FeedEvent):
        schema = model.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        found |= {**schema.pop("$defs"), model.__name__: schema}
    for type in KNOWN_TYPES:
        only = {"type": "object", "properties": {"type": {"const": type}}}
        found[_name(type)] = {"allOf": [{"$ref": "#/components/schemas/OrderMessage"}, only]}
    return found
