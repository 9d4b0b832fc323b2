"""The routes: from HTTP to the use cases, and back. Orders pass through as the JSON that PostgreSQL built."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from orders.batching import Batcher
from orders.change_status import change_status
from orders.checkout import Checkout
from orders.database import Connection, Database
from orders.describe import patch_details, to_details
from orders.errors import Code, OrderError
from orders.listing import METADATA_PARAMETER, ListQuery, next_url, parse_cursor
from orders.order import NO_DETAILS, Line
from orders.request import Answer
from orders.schemas import (
    NewStatus,
    Order,
    OrderList,
    OrderPatch,
    OrderToPlace,
    parse_customer_id,
    parse_key,
    parse_order_id,
    parse_status_or_refuse,
    problem_responses,
)
from orders.store.listing import Filters, count_orders, list_orders, page_json
from orders.store.reading import read_orders

LOADS_AT_ONCE = 2
"""Queries for orders by ID that run at once; the next batch gathers meanwhile."""


T = TypeVar("T")

SLOW_READS_AT_ONCE = 2
"""Reports and pages of exports that are read at once; the other threads are for placing."""


class Shop:
    """What the routes need: the database, the use cases, and reads by ID that are answered together."""

    def __init__(self, database: Database, checkout: Checkout) -> None:
        self.database = database
        self.checkout = checkout
        self.orders: Batcher[UUID, str] = Batcher(
            lambda ids: database.run(lambda c: read_orders(c, ids)), parallel=LOADS_AT_ONCE
        )
        self.slow_reads = asyncio.Semaphore(SLOW_READS_AT_ONCE)

    async def read_slowly(self, query: Callable[[Connection], T]) -> T:
        """A query that may take seconds: it waits for its turn, so that placing always finds a database thread."""
        async with self.slow_reads:
            return await self.database.run(query)


router = APIRouter()

CustomerId = Annotated[
    str,
    Path(description="The customer: 1 … 2^63-1.", examples=["42"], json_schema_extra={"pattern": "^[1-9][0-9]{0,18}$"}),
]
CustomerOrOrderId = Annotated[
    str,
    Path(
        description="A customer's ID (an integer) means that customer; an order's ID (a UUID) means that order.",
        examples=["42", "019ab1e2-7c3d-7a41-9b52-0d6c3f1e8a77"],
    ),
]
OrderId = Annotated[
    str,
    Path(
        description="The order.",
        json_schema_extra={"format": "uuid"},
        examples=["019ab1e2-7c3d-7a41-9b52-0d6c3f1e8a77"],
    ),
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="1 … 255 visible ASCII characters of your choice; repeating the request with the same key "
        "repeats the answer and orders nothing twice. Kept 72 hours at least.",
        examples=["7f3d2c1e"],
    ),
]
ToPlace = Annotated[
    OrderToPlace | None,
    Body(
        openapi_examples={
            "items": {
                "summary": "Explicit items",
                "value": {"items": [{"product_id": 7, "quantity": 2}, {"product_id": 3, "quantity": 1}]},
            },
            "details": {
                "summary": "With fields for others",
                "value": {
                    "items": [{"product_id": 7, "quantity": 2}],
                    "external_reference": "web-2026-004711",
                    "metadata": {"channel": "web", "gift": True},
                    "notes": {"public": "Leave it with the neighbour."},
                },
            },
            "cart": {"summary": "The customer's cart", "value": {}},
        }
    ),
]
Listing = Annotated[ListQuery, Query()]

_READ_PROBLEMS = (Code.INVALID_REQUEST, Code.DATABASE_UNAVAILABLE)
_LIST_PROBLEMS = (*_READ_PROBLEMS, Code.TOO_SLOW)
_LISTS = {"parameters": [METADATA_PARAMETER]}
_PLACED = {
    201: {
        "model": Order,
        "description": "Created: the order is placed and its stock is taken",
        "headers": {
            "Location": {"description": "The order's address.", "schema": {"type": "string"}},
            "Idempotent-Replayed": {
                "description": "`true` where this repeats an earlier answer.",
                "schema": {"type": "string"},
            },
        },
    },
    **problem_responses(
        Code.INSUFFICIENT_INVENTORY,
        Code.CART_EMPTY,
        Code.CART_NOT_FOUND,
        Code.NOT_FOUND,
        Code.KEY_IN_USE,
        Code.EXTERNAL_REFERENCE_TAKEN,
        Code.BODY_TOO_LARGE,
        Code.INVALID_REQUEST,
        Code.TOTAL_TOO_LARGE,
        Code.KEY_REUSED,
        Code.ORDER_FAILED,
        Code.CATALOG_UNAVAILABLE,
        Code.CATALOG_REPLY_INVALID,
        Code.CART_UNAVAILABLE,
        Code.CART_REPLY_INVALID,
        Code.NEIGHBOUR_RESTING,
        Code.STOCK_BUSY,
        Code.OVERLOADED,
        Code.DATABASE_UNAVAILABLE,
    ),
}


HEALTH_RESPONSES = problem_responses(Code.DATABASE_UNAVAILABLE)


@router.get(
    "/orders",
    summary="All orders, newest first",
    tags=["orders"],
    responses={200: {"model": OrderList, "description": "A page of orders"}, **problem_responses(*_LIST_PROBLEMS)},
    openapi_extra=_LISTS,
)
async def get_orders(request: Request, query: Listing) -> Response:
    """Placed orders, newest first unless `sort` says otherwise; all filters have to hold. Those that are being placed,
    or failed, are there for who asks with `status`.
    """
    return await _list(request, query, None)


@router.get(
    "/orders/{id}",
    summary="One order (by its ID), or all orders of one customer (by the customer's ID)",
    tags=["orders"],
    responses={
        200: {"model": Order | OrderList, "description": "The order, or the customer's orders"},
        **problem_responses(Code.ORDER_NOT_FOUND, Code.NO_ORDERS_FOR_CUSTOMER, Code.NOT_FOUND, *_LIST_PROBLEMS),
    },
    openapi_extra=_LISTS,
)
async def get_order(request: Request, id: CustomerOrOrderId, query: Listing) -> Response:
    """`GET /orders/{order_id}` answers with the order, `GET /orders/{customer_id}` with a list of the customer's
    orders, newest first; what the ID looks like decides. The parameters are for the list.
    """
    order_id = parse_order_id(id)
    if order_id is None:
        return await _list(request, query, _customer(id))
    query.refuse_unknown()
    body = await _shop(request).orders.get(order_id)
    if body is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    return Response(body, media_type="application/json")


@router.post(
    "/orders/{id}",
    status_code=201,
    summary="Place an order for a customer",
    tags=["orders"],
    responses=_PLACED,
)
async def place_order(request: Request, id: CustomerId, body: ToPlace = None, key: Key = None) -> Response:  # noqa: ARG001
    """Places an order of `items` or, without them, of the customer's shopping cart, which is closed then.

    201 if and only if the order is placed and its stock is taken. After any other answer nothing was ordered.
    """
    return await _place(request, _customer(id, "a customer's ID (1 … 2^63-1)"), body)


@router.put(
    "/orders/{id}",
    summary="Change an order's status",
    tags=["orders"],
    responses={
        200: {"model": Order, "description": "Updated"},
        **problem_responses(Code.ORDER_NOT_FOUND, Code.STATUS_NOT_ALLOWED, Code.BODY_TOO_LARGE, *_READ_PROBLEMS),
    },
)
async def change_order_status(
    request: Request,
    id: OrderId,
    body: NewStatus,
) -> Response:
    """Moves the order forward along its life, aside (`On Hold`, and back) or to an end (`Cancelled`: its stock goes
    back to the catalog). The status that it has already changes nothing.
    """
    order_id = _order(id)
    status = parse_status_or_refuse(body.status, "#/status")
    return Response(await change_status(_shop(request).database, order_id, status), media_type="application/json")


@router.patch(
    "/orders/{id}",
    summary="Change what is attached to an order",
    tags=["orders"],
    responses={
        200: {"model": Order, "description": "Updated"},
        **problem_responses(Code.ORDER_NOT_FOUND, Code.EXTERNAL_REFERENCE_TAKEN, Code.BODY_TOO_LARGE, *_READ_PROBLEMS),
    },
    openapi_extra={
        "requestBody": {
            "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/OrderPatch"}}}
        }
    },
)
async def patch_order(request: Request, id: OrderId, body: OrderPatch) -> Response:
    """Merges a JSON merge patch into `external_reference`, `metadata` and `notes`: null removes a member, the
    members of objects are merged. The order's version grows by one, unless nothing changes.
    """
    patch = body.model_dump(exclude_unset=True)
    return Response(await patch_details(_shop(request).database, _order(id), patch), media_type="application/json")


@router.get(
    "/customers/{customer_id}/orders",
    summary="All orders of one customer",
    tags=["customers"],
    responses={
        200: {"model": OrderList, "description": "A page of the customer's orders, newest first"},
        **problem_responses(Code.NO_ORDERS_FOR_CUSTOMER, *_LIST_PROBLEMS),
    },
    openapi_extra=_LISTS,
)
async def get_customer_orders(request: Request, customer_id: CustomerId, query: Listing) -> Response:
    """The same as `GET /orders/{customer_id}`, at an address that is nobody else's."""
    return await _list(request, query, _customer(customer_id, "a customer's ID (1 … 2^63-1)"))


@router.post(
    "/customers/{customer_id}/orders",
    status_code=201,
    summary="Place an order for this customer",
    tags=["customers"],
    responses=_PLACED,
)
async def place_customer_order(
    request: Request,
    customer_id: CustomerId,
    body: ToPlace = None,
    key: Key = None,  # noqa: ARG001 (declared for the docs; read with all its values in _place)
) -> Response:
    """The same as `POST /orders/{customer_id}`."""
    return await _place(request, _customer(customer_id, "a customer's ID (1 … 2^63-1)"), body)


@router.get("/problems", summary="Every error there is", tags=["about"])
async def get_problems() -> dict[str, dict[str, Any]]:
    """Each error's code with its HTTP status, its title, and what to do about it."""
    return {code.name.lower(): _describe(code) for code in Code}


@router.get(
    "/problems/{code}",
    summary="What an error means",
    tags=["about"],
    responses=problem_responses(Code.NOT_FOUND, Code.INVALID_REQUEST),
)
async def get_problem(code: str) -> JSONResponse:
    """The page behind a problem's `type`."""
    if code.upper() not in Code.__members__:
        raise OrderError(Code.NOT_FOUND, f"There is no error {code[:60]!r}.")
    return JSONResponse(_describe(Code[code.upper()]))


def _describe(code: Code) -> dict[str, Any]:
    return {"status": code.value.status, "title": code.value.title, "advice": code.value.advice}


def _shop(request: Request) -> Shop:
    shop: Shop = request.app.state.shop
    return shop


def _customer(text: str, expected: str = "a customer's ID (1 … 2^63-1) or an order's (a UUID)") -> int:
    customer_id = parse_customer_id(text)
    if customer_id is None:
        raise OrderError(Code.NOT_FOUND, f"{text[:60]!r} is not {expected}.")
    return customer_id


def _order(text: str) -> UUID:
    order_id = parse_order_id(text)
    if order_id is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"{text[:60]!r} is not an order's ID.")
    return order_id


async def _place(request: Request, customer_id: int, body: OrderToPlace | None) -> Response:
    key = parse_key(request.headers.getlist("idempotency-key"))
    items = None
    if body and body.items is not None:
        items = [Line(item.product_id, item.quantity) for item in body.items]
    details = to_details(body.model_dump(exclude={"items"})) if body else NO_DETAILS
    answer = await _shop(request).checkout.check_out(customer_id, items, key, request.url.path, details)
    return _answered(answer)


def _answered(answer: Answer) -> Response:
    headers = {"Location": f"/orders/{answer.order_id}"} if answer.order_id else {}
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    media_type = "application/json" if answer.status == 201 else "application/problem+json"
    return Response(answer.body, answer.status, headers, media_type)


async def _list(request: Request, query: ListQuery, customer_id: int | None) -> Response:
    filters, sort = query.to_filters(customer_id), query.to_sort()
    after = parse_cursor(query.cursor, filters, sort)
    run = _shop(request).database.run
    page = await run(lambda c: list_orders(c, filters, sort, after, limit=query.limit))
    if customer_id is not None and filters == Filters(customer_id=customer_id) and not page.orders and after is None:
        raise OrderError(Code.NO_ORDERS_FOR_CUSTOMER, f"Customer {customer_id} has no orders.")
    count = await run(lambda c: count_orders(c, filters)) if query.include_total else None
    return Response(
        page_json(page, next_url(request.url.path, query, filters, page.end), count), media_type="application/json"
    )
