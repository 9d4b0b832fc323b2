"""The OpenAPI document: what FastAPI finds in the routes, and what it can't see."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from orders.access.audit_routes import AuditPage
from orders.access.schemas import KEY_ID_EXAMPLE, Key, KeyList, NewKey
from orders.events.message_schemas import OrderMessage, schema_url
from orders.events.wanted import KNOWN_TYPES, MEANINGS
from orders.order.schema import ID_EXAMPLE, EventList, Order, OrderList, Problem
from orders.order.statuses import Workflow
from orders.webhooks.delivery_schemas import Delivery, DeliveryPage, DeliveryWithAttempts
from orders.webhooks.schemas import WEBHOOK_ID_EXAMPLE, NewWebhook, TestResult, Webhook, WebhookList
from orders.wire.bulk import BatchPreview, BatchResults
from orders.wire.dry_run import Preview
from orders.wire.for_generators import suit_generators
from orders.wire.parameters import REQUEST_ID
from orders.wire.security import describe_access


def describe_api(app: FastAPI, workflow: Workflow) -> dict[str, Any]:
    """The document at `/openapi.json`, with the shop's statuses. Built once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=_DESCRIPTION,
            routes=app.routes,
            servers=app.servers,
            license_info=app.license_info,
            tags=_TAGS,
        )
        schemas = document["components"]["schemas"]
        # FastAPI does not find this schema by itself
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"), Problem=problem)
        for answer in _WITH_NULLS:
            schemas[answer.__name__]["example"] = answer.model_json_schema()["example"]
        _describe_webhooks(document)
        describe_access(document)
        document["components"]["parameters"] = {"RequestId": _REQUEST_ID}
        for path, operations in document["paths"].items():
            _name_instance(operations, path)
            operations["parameters"] = [{"$ref": "#/components/parameters/RequestId"}]
        schemas["Status"]["x-extensible-enum"] = list(workflow.by_name)
        suit_generators(document)
        app.openapi_schema = document
    return app.openapi_schema


_OF_WEBHOOKS = (Webhook, NewWebhook, WebhookList, TestResult, Delivery, DeliveryWithAttempts, DeliveryPage)
_OF_ORDERS = (Order, OrderList, EventList, Preview, BatchResults, BatchPreview)
_WITH_NULLS = (*_OF_ORDERS, Key, NewKey, KeyList, AuditPage, *_OF_WEBHOOKS)
"""Answers whose examples have nulls, which FastAPI leaves out."""


def _name_instance(operations: dict[str, Any], path: str) -> None:
    """Put the operation's address into the examples of its problems."""
    for operation in operations.values():
        is_customers = operation["operationId"] in ("get_order", "place_order", "preview_place_order")
        for response in operation["responses"].values():
            examples = response.get("content", {}).get("application/problem+json", {}).get("examples", {})
            for code, example in examples.items():
                is_orders = not is_customers or code in ("order_not_found", "not_recorded")
                own_id = next((known for start, known in _IDS.items() if path.startswith(start)), ID_EXAMPLE)
                ids = {"id": own_id if is_orders else "42", "customer_id": "42", "code": "not_found"}
                ids |= {"type": KNOWN_TYPES[0], "version": "9"}
                example["value"]["instance"] = path.format(**ids)


_IDS = {"/keys": KEY_ID_EXAMPLE, "/webhooks": WEBHOOK_ID_EXAMPLE, "/webhook-deliveries": "57"}
"""IDs in addresses that are no order's."""


def _describe_webhooks(document: dict[str, Any]) -> None:
    """Add what the service sends by itself (OpenAPI 3.1)."""
    schema = OrderMessage.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    for name, part in {**schema.pop("$defs"), OrderMessage.__name__: schema}.items():
        document["components"]["schemas"].setdefault(name, part)
    document["webhooks"] = {type: {"post": _sent(type)} for type in KNOWN_TYPES}


def _sent(type: str) -> dict[str, Any]:
    return {
        "operationId": "receive_" + type.replace(".", "_"),
        "summary": f"{type}: {MEANINGS[type]}",
        "description": f"Signed as Standard Webhooks says. The schema of this type alone: `{schema_url(type, 1)}`.",
        "tags": ["events"],
        "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/OrderMessage"}}}},
        "responses": {"2XX": {"description": "Taken. After any other answer it is sent again."}},
    }


_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Names this request in the logs and in the order's history. Every answer has it, or one of our own.",
    "schema": {"type": "string", "pattern": f"^{REQUEST_ID}$"},
    "example": "checkout-7f3d2c1e",
}

_DESCRIPTION = """
Turns a shopping cart, or a list of items, into an order whose stock is really taken from the product catalog.

* A **customer ID** is an integer, an **order ID** a UUID: that tells `GET /orders/{customer_id}` from
  `GET /orders/{order_id}`. Both are the one operation `GET /orders/{id}` here, because OpenAPI knows no two paths that
  differ only in a parameter's name. `/customers/{customer_id}/orders` says the same without ambiguity.
* **201 if and only if the order is placed and its stock is taken.** After any other answer nothing was ordered.
* **`/dry-run`**, in front of the address of any write, tells what would be: the order, the stock and the events.
  Nothing is written or sent. `dry_run=true`, as a parameter of the write itself, is the same.
* Filters with a bound have two names, `created_at_gte` and `created_at[gte]`, and so have `metadata=key=value` and
  `metadata[key]=value`. Only the first of each, which clients can be generated from, is listed below.
* Requests carry a key or a customer's token: `Authorization: Bearer …`. Each operation names the scope that it needs.
* Whoever asks too much gets 429. `RateLimit-Policy` and `RateLimit` in each answer say what is allowed and
  what is left.
* Errors are RFC 9457 problem documents; `GET /problems` lists them.
"""
_TAGS = [
    {"name": "orders", "description": "Placing, reading and moving orders."},
    {"name": "customers", "description": "The customer's operations at addresses of their own."},
    {"name": "events", "description": "What happens to all orders, to be followed."},
    {"name": "dry run", "description": "What a write would do."},
    {"name": "reports", "description": "Totals for people."},
    {"name": "exports", "description": "Whole lists as files."},
    {"name": "keys", "description": "API keys: who may ask, and for what."},
    {"name": "audit", "description": "Who did what that no order's history tells."},
    {"name": "webhooks", "description": "Events that are sent to URLs of yours, and what became of them."},
    {"name": "about", "description": "The service itself."},
]
