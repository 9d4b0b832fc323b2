"""The table of operations: everything that can be asked of the service, and what is known of it.

The service does not start if a route is missing in the table, or if an entry has no route (`addresses`).
"""

import enum
from dataclasses import dataclass

from fastapi.routing import APIRoute

MAX_BODY_BYTES = 256 * 1024
"""Maximum size of a body. An order of the most lines that are allowed fits seven times."""

MAX_BULK_BYTES = 1024 * 1024
"""Maximum size of the body of a request for many orders."""


class Kind(enum.Enum):
    """What an operation does."""

    READS = "reads orders, or totals of them"
    WRITES = "places or changes orders"
    PREVIEWS = "tells what a write would do"
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


NOTHING_THERE = Operation("nothing_there", Kind.NOTHING)
"""A request to an address that does not exist."""

METHOD_NOT_ALLOWED = Operation("method_not_allowed", Kind.NOTHING)
"""A request to an address that exists, by a method that it does not have."""

OPTIONS = Operation("options", Kind.NOTHING)
"""The question which methods an address has."""

_READS = (
    "get_orders",
    "get_order",
    "get_order_events",
    "get_customer_orders",
    "export_csv",
    "export_ndjson",
    "report_sales",
    "report_products",
    "report_statuses",
)
_WRITES = (
    "place_order",
    "place_customer_order",
    "change_order_status",
    "cancel_order",
    "return_order",
    "patch_order",
)
_BULK_WRITES = ("place_orders", "change_order_statuses")
_ABOUT = ("get_about", "get_health")
_PAGES = (
    "get_workflow",
    "get_problems",
    "get_problem",
    "get_openapi",
    "get_docs",
    "get_redoc",
    "static-offline-docs",
)
"""Operations whose answers stay the same until the next release."""

_ALL = (
    *(Operation(id, Kind.READS) for id in _READS),
    *(Operation(id, Kind.WRITES) for id in _WRITES),
    *(Operation(id, Kind.WRITES, MAX_BULK_BYTES) for id in _BULK_WRITES),
    *(Operation(f"preview_{id}", Kind.PREVIEWS) for id in _WRITES),
    *(Operation(f"preview_{id}", Kind.PREVIEWS, MAX_BULK_BYTES) for id in _BULK_WRITES),
    *(Operation(id, Kind.ABOUT) for id in _ABOUT),
    *(Operation(id, Kind.ABOUT, is_public=True) for id in _PAGES),
)

OPERATIONS = {operation.id: operation for operation in _ALL}
"""The table."""


def operation_id(route: APIRoute) -> str:
    """What the OpenAPI document calls an operation: the name of its function."""
    return route.name
