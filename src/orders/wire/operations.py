"""The table of operations: everything that can be asked of the service, and what is known of it.

The service does not start if a route is missing in the table, or if an entry has no route (`addresses`).
"""

import dataclasses
import enum
from dataclasses import dataclass

from fastapi.routing import APIRoute

from orders.principal import CustomerMay, Scope

MAX_BODY_BYTES = 256 * 1024
"""Maximum size of a body. An order of the most lines that are allowed fits seven times."""

MAX_BULK_BYTES = 1024 * 1024
"""Maximum size of the body of a request for many orders."""


class Kind(enum.Enum):
    """What an operation does."""

    READS = "reads orders, or totals of them"
    WRITES = "places or changes orders"
    PREVIEWS = "tells what a write would do"
    MANAGES = "changes keys or webhooks, or tells about them"
    ABOUT = "tells about the service, the same to everyone"
    NOTHING = "is no operation: there is nothing at this address, or not by this method"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked of the service, by a method and a path."""

    id: str
    """The name of the route's function: what the OpenAPI document calls `operationId`."""
    kind: Kind
    max_body_bytes: int = MAX_BODY_BYTES
    is_public: bool = False
    """Whether caches may keep the answer."""
    scope: Scope | None = None
    """The scope that it needs. None: everyone may ask."""
    customer_may: CustomerMay | None = None
    """What a customer has to be allowed to do. None: no customer may ask, if it needs a scope."""
    is_lasting: bool = False
    """Whether its answer goes on for as long as the client likes. Access is checked again meanwhile."""
    cost: int = 1
    """What a request costs in the limits of its principal, as far as it is known before it is read (`costs`)."""


NOTHING_THERE = Operation("nothing_there", Kind.NOTHING)
"""A request to an address that does not exist."""

METHOD_NOT_ALLOWED = Operation("method_not_allowed", Kind.NOTHING)
"""A request to an address that exists, by a method that it does not have."""

OPTIONS = Operation("options", Kind.NOTHING)
"""The question which methods an address has."""

_READ_BY_CUSTOMERS = ("get_orders", "get_order", "get_order_events", "get_customer_orders")
_READ_BY_STAFF = ("export_csv", "export_ndjson")
_COST_OF_MANY = 10
"""Cost of an export and of a report: they read much, and each takes a database thread for as long as several lists."""

_REPORTS = ("report_sales", "report_products", "report_statuses")
_FEED = ("get_events", "get_events_head")
_PLACING = ("place_order", "place_customer_order")
_CHANGING = ("change_order_status", "return_order", "patch_order")
_MANAGING = ("create_key", "list_keys", "rotate_key", "revoke_key", "list_audit")
_WATCHING_WEBHOOKS = ("list_webhooks", "get_webhook", "list_deliveries", "get_delivery")
_MANAGING_WEBHOOKS = (
    *("create_webhook", "patch_webhook", "delete_webhook", "rotate_webhook_secret"),
    *("test_webhook", "redeliver", "replay_webhook"),
)
_ABOUT = ("get_about", "get_health")
_PAGES = (
    *("get_problems", "get_problem", "get_schemas", "get_schema"),
    *("get_openapi", "get_asyncapi", "get_docs", "get_redoc", "static-offline-docs"),
)
"""Operations whose answers stay the same until the next release."""

_READS = (
    *(Operation(id, Kind.READS, scope=Scope.ORDERS_READ, customer_may=CustomerMay.READ) for id in _READ_BY_CUSTOMERS),
    *(Operation(id, Kind.READS, scope=Scope.ORDERS_READ, cost=_COST_OF_MANY) for id in _READ_BY_STAFF),
    *(Operation(id, Kind.READS, scope=Scope.REPORTS_READ, cost=_COST_OF_MANY) for id in _REPORTS),
    *(Operation(id, Kind.READS, scope=Scope.EVENTS_READ) for id in _FEED),
    Operation("stream_events", Kind.READS, scope=Scope.EVENTS_READ, is_lasting=True),
)

_WRITES = (
    *(Operation(id, Kind.WRITES, scope=Scope.ORDERS_PLACE, customer_may=CustomerMay.PLACE) for id in _PLACING),
    Operation("place_orders", Kind.WRITES, MAX_BULK_BYTES, scope=Scope.ORDERS_PLACE),
    *(Operation(id, Kind.WRITES, scope=Scope.ORDERS_CHANGE) for id in _CHANGING),
    Operation("cancel_order", Kind.WRITES, scope=Scope.ORDERS_CHANGE, customer_may=CustomerMay.CANCEL),
    Operation("change_order_statuses", Kind.WRITES, MAX_BULK_BYTES, scope=Scope.ORDERS_CHANGE),
)

_ALL = (
    *_READS,
    *_WRITES,
    *(dataclasses.replace(one, id=f"preview_{one.id}", kind=Kind.PREVIEWS) for one in _WRITES),
    *(Operation(id, Kind.MANAGES, scope=Scope.ACCESS_MANAGE) for id in _MANAGING),
    *(Operation(id, Kind.MANAGES, scope=Scope.WEBHOOKS_READ) for id in _WATCHING_WEBHOOKS),
    *(Operation(id, Kind.MANAGES, scope=Scope.WEBHOOKS_MANAGE) for id in _MANAGING_WEBHOOKS),
    Operation("preview_replay_webhook", Kind.PREVIEWS, scope=Scope.WEBHOOKS_MANAGE),
    Operation("get_workflow", Kind.ABOUT, scope=Scope.ORDERS_READ, customer_may=CustomerMay.READ),
    *(Operation(id, Kind.ABOUT) for id in _ABOUT),
    *(Operation(id, Kind.ABOUT, is_public=True) for id in _PAGES),
)

OPERATIONS = {operation.id: operation for operation in _ALL}
"""The table."""


def operation_id(route: APIRoute) -> str:
    """What the OpenAPI document calls an operation: the name of its function."""
    return route.name
