"""The routes: from HTTP to the use cases, and back. Orders pass through as the JSON that PostgreSQL built."""

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from orders.bulk import Wish
from orders.changing import move as changes
from orders.changing.describe import patch_details, to_details
from orders.changing.move import Asked, Units, change_status
from orders.errors import Code, OrderError, invalid
from orders.finding.history import read_order_at
from orders.finding.lists import EventListing, answer_events, answer_orders, understand
from orders.finding.query import PageQuery, sent_as
from orders.order.model import NO_DETAILS, Author, Details, Line
from orders.order.schema import (
    Cancellation,
    EventList,
    NewStatus,
    Order,
    OrderList,
    OrderPatch,
    OrderToPlace,
    Return,
    UnitsToCancel,
    UnitsToReturn,
    parse_any_customer_id,
    parse_customer_id,
    parse_key,
    parse_moment,
    parse_order_id,
    parse_status_or_refuse,
    parse_versions,
    problem_responses,
    refused_parameters,
)
from orders.placing.entry import Answer
from orders.shop import Shop, operation_id
from orders.wire.bodies import BodyRoute
from orders.wire.dry_run import DryRun, preview_response
from orders.wire.fast_routes import PlacingRoute, ReadingRoute
from orders.wire.parameters import (
    Actor,
    AnyCustomerId,
    CustomerId,
    CustomerListing,
    CustomerOrOrderId,
    IfMatch,
    IfNoneMatch,
    Key,
    Listing,
    OneOrMany,
    OrderId,
    ToCancel,
    ToPlace,
    ToReturn,
    order_or_refuse,
)

router = APIRouter(route_class=BodyRoute, generate_unique_id_function=operation_id)
reading = APIRouter(route_class=ReadingRoute, generate_unique_id_function=operation_id)
placing = APIRouter(route_class=PlacingRoute, generate_unique_id_function=operation_id)


_TO_THE_ORDER = {"operationId": "get_order", "parameters": {"id": "$response.body#/id"}}
_READ_PROBLEMS = (Code.INVALID_REQUEST, Code.DATABASE_UNAVAILABLE)
_LIST_PROBLEMS = (*_READ_PROBLEMS, Code.TOO_SLOW)
_PLACED: dict[int | str, dict[str, Any]] = {
    201: {
        "model": Order,
        "description": "Created: the order is placed and its stock is taken",
        "headers": {
            "Location": {"description": "The order's address.", "required": True, "schema": {"type": "string"}},
            "ETag": {"description": "The order's version, quoted.", "schema": {"type": "string"}},
            "Idempotent-Replayed": {
                "description": "`true` where this repeats an earlier answer.",
                "schema": {"const": "true"},
            },
        },
        "links": {
            "get_order": _TO_THE_ORDER,
            "change_order_status": {"operationId": "change_order_status", "parameters": {"id": "$response.body#/id"}},
            "get_order_events": {"operationId": "get_order_events", "parameters": {"id": "$response.body#/id"}},
            "get_customer_orders": {
                "operationId": "get_customer_orders",
                "parameters": {"customer_id": "$response.body#/customer_id"},
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
        Code.DATABASE_FULL,
    ),
}


_ETAG = {"ETag": {"description": "The order's version, quoted.", "schema": {"type": "string"}}}
_CHANGED = {
    200: {
        "model": Order,
        "description": "The order as it is now",
        "headers": _ETAG,
    },
    **problem_responses(
        Code.ORDER_NOT_FOUND,
        Code.STATUS_NOT_ALLOWED,
        Code.VERSION_CHANGED,
        Code.IF_MATCH_REQUIRED,
        Code.BODY_TOO_LARGE,
        Code.DATABASE_FULL,
        *_READ_PROBLEMS,
    ),
}
_PARTLY_CHANGED = {
    **_CHANGED,
    **problem_responses(Code.STATUS_NOT_ALLOWED, Code.QUANTITY_EXCEEDED, Code.KEY_IN_USE),
    **problem_responses(Code.INVALID_REQUEST, Code.KEY_REUSED),
}

_DESCRIBED = {
    200: _CHANGED[200],
    **problem_responses(
        Code.ORDER_NOT_FOUND,
        Code.EXTERNAL_REFERENCE_TAKEN,
        Code.DESCRIBED_TOO_OFTEN,
        Code.VERSION_CHANGED,
        Code.IF_MATCH_REQUIRED,
        Code.BODY_TOO_LARGE,
        Code.DATABASE_FULL,
        *_READ_PROBLEMS,
    ),
}


@reading.get(
    "/orders",
    summary="All orders, newest first",
    tags=["orders"],
    responses={200: {"model": OrderList, "description": "A page of orders"}, **problem_responses(*_LIST_PROBLEMS)},
)
async def get_orders(request: Request, query: Listing) -> Response:
    """Placed orders, newest first unless `sort` says otherwise; all filters have to hold. Those that are being placed,
    or failed, are there for who asks with `status`.
    """
    return await answer_orders(request, query, None)


@reading.get(
    "/orders/{id}",
    summary="One order (by its ID), or all orders of one customer (by the customer's ID)",
    tags=["orders"],
    responses={
        200: {"model": Order | OrderList, "description": "The order, or the customer's orders", "headers": _ETAG},
        304: {"description": "The order still has the version in `If-None-Match`", "headers": _ETAG},
        **problem_responses(
            Code.ORDER_NOT_FOUND, Code.NOT_RECORDED, Code.NO_ORDERS_FOR_CUSTOMER, Code.NOT_FOUND, *_LIST_PROBLEMS
        ),
    },
)
async def get_order(
    request: Request,
    id: CustomerOrOrderId,
    query: OneOrMany,
    if_none_match: IfNoneMatch = None,  # noqa: ARG001 (for the docs, as all headers; read with all its values)
) -> Response:
    """`GET /orders/{order_id}` answers with the order (`at`: as it was then), `GET /orders/{customer_id}` with a list
    of the customer's orders, newest first; what the ID looks like decides. The other parameters are for the list;
    beside one order they are refused, unless they have their default, which generated clients send.
    """
    known = parse_versions(request.headers.getlist("if-none-match"), "If-None-Match")  # refused beside a list, too
    order_id = parse_order_id(id)
    if order_id is None:
        if query.at is not None:
            raise invalid("query/at", "extra_forbidden", "at: this is for one order.")
        return await answer_orders(request, query, _customer(id))
    shop = _shop(request)
    if query.model_fields_set:
        await understand(query, shop)  # what is malformed, or known to nobody, is said first
        _refuse_what_is_for_lists(query, request)
    if query.at is not None:
        order = await read_order_at(shop.database, shop.workflow, order_id, parse_moment(query.at))
        return _unless_known(known, JSONResponse(order, headers={"ETag": f'"{order["version"]}"'}))
    body = await shop.orders.get(order_id)
    if body is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    return _unless_known(known, _order_response(body))


def _unless_known(known: Container[int] | None, answer: Response) -> Response:
    """The answer, or 304 where the client has that version."""
    if known is not None and int(answer.headers["etag"].strip('"')) in known:
        return Response(status_code=304, headers={"ETag": answer.headers["etag"]})
    return answer


@reading.get(
    "/orders/{id}/events",
    summary="What happened to an order",
    tags=["orders"],
    responses={
        200: {"model": EventList, "description": "A page of changes, first things first"},
        **problem_responses(Code.ORDER_NOT_FOUND, *_LIST_PROBLEMS),
    },
)
async def get_order_events(request: Request, id: OrderId, query: EventListing) -> Response:
    """Numbered 1, 2, 3, …: an event's number is the order's version after it, and `?at=` takes it. `next` is the
    address of the following page.
    """
    return await answer_events(request, id, query)


@placing.post(
    "/orders/{id}",
    status_code=201,
    summary="Place an order for a customer",
    tags=["orders"],
    responses=_PLACED,
)
async def place_order(
    request: Request,
    id: CustomerId,
    dry_run: DryRun,
    body: ToPlace = None,
    key: Key = None,  # noqa: ARG001
    actor: Actor = "api",
) -> Response:
    """Places an order of `items` or, without them, of the customer's shopping cart, which is closed then.

    201 if and only if the order is placed and its stock is taken. After any other answer nothing was ordered.
    """
    return await _place(request, _customer(id, "a customer's ID (1 … 2^63-1)"), body, actor, dry_run)


@router.put(
    "/orders/{id}",
    summary="Change an order's status",
    tags=["orders"],
    responses=_CHANGED,
)
async def change_order_status(
    request: Request,
    id: OrderId,
    body: NewStatus,
    dry_run: DryRun,
    if_match: IfMatch = None,  # noqa: ARG001
    actor: Actor = "api",
) -> Response:
    """Moves the order forward along its life, aside (`On Hold`, and back) or to an end (`Cancelled`: its stock goes
    back to the catalog). The status that it has already changes nothing.
    """
    order_id, shop = order_or_refuse(id), _shop(request)
    status = parse_status_or_refuse(body.status, "#/status", shop.workflow)
    asked = _asked(request, actor, None, body.note)
    body_or_preview = await change_status(shop.database, order_id, status, asked, _rehearse(request, dry_run))
    return _answered(Answer(200, body_or_preview, None), dry_run)


@router.post(
    "/orders/{id}/cancel", summary="Cancel an order, or a part of it", tags=["orders"], responses=_PARTLY_CHANGED
)
async def cancel_order(
    request: Request,
    id: OrderId,
    dry_run: DryRun,
    body: ToCancel = None,
    if_match: IfMatch = None,  # noqa: ARG001
    key: Key = None,  # noqa: ARG001
    actor: Actor = "api",
) -> Response:
    """Cancels the order; its stock goes back to the catalog, once, unless `restock` is false.

    With `items` only these units are cancelled: the lines' quantities and the total follow, the status stays. Who
    cancels the last of them cancels the order. A partial cancellation that may have to be repeated should have an
    `Idempotency-Key` or an `If-Match`.
    """
    asked_for = body or Cancellation()
    asked = _asked(request, actor, asked_for.reason, asked_for.note)
    key_value = parse_key(request.headers.getlist("idempotency-key"))
    units = _units(asked_for.items)
    shop, rehearse = _shop(request), _rehearse(request, dry_run)
    answer = await changes.cancel_order(
        shop.database, order_or_refuse(id), asked, units, restock=asked_for.restock, key=key_value, rehearse=rehearse
    )
    return _answered(answer, dry_run)


@router.post("/orders/{id}/return", summary="Goods of an order came back", tags=["orders"], responses=_PARTLY_CHANGED)
async def return_order(
    request: Request,
    id: OrderId,
    dry_run: DryRun,
    body: ToReturn = None,
    if_match: IfMatch = None,  # noqa: ARG001
    key: Key = None,  # noqa: ARG001
    actor: Actor = "api",
) -> Response:
    """Records goods that came back, line by line; those that are `restocked` go back to the catalog.

    Once everything is back, the order is `Returned`. An order that was moved there with PUT can have its goods recorded
    afterwards.
    """
    asked_for = body or Return()
    asked = _asked(request, actor, asked_for.reason, asked_for.note)
    key_value = parse_key(request.headers.getlist("idempotency-key"))
    shop, units, rehearse = _shop(request), _units(asked_for.items), _rehearse(request, dry_run)
    return _answered(
        await changes.return_order(shop.database, order_or_refuse(id), asked, units, key_value, rehearse), dry_run
    )


@router.patch(
    "/orders/{id}",
    summary="Change what is attached to an order",
    tags=["orders"],
    responses=_DESCRIBED,
    openapi_extra={
        "requestBody": {
            "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/OrderPatch"}}}
        }
    },
)
async def patch_order(
    request: Request,
    id: OrderId,
    body: OrderPatch,
    dry_run: DryRun,
    if_match: IfMatch = None,  # noqa: ARG001
    actor: Actor = "api",
) -> Response:
    """Merges a JSON merge patch into `external_reference`, `metadata` and `notes`: null removes a member, the
    members of objects are merged. The order's version grows by one, unless nothing changes.
    """
    asked = _asked(request, actor, None, None)
    patch = body.model_dump(exclude_unset=True)
    rehearse = _rehearse(request, dry_run)
    document = await patch_details(_shop(request).database, order_or_refuse(id), patch, asked, rehearse)
    return _answered(Answer(200, document, None), dry_run)


@reading.get(
    "/customers/{customer_id}/orders",
    summary="All orders of one customer",
    tags=["customers"],
    responses={
        200: {"model": OrderList, "description": "A page of the customer's orders, newest first"},
        **problem_responses(Code.NO_ORDERS_FOR_CUSTOMER, *_LIST_PROBLEMS),
    },
)
async def get_customer_orders(request: Request, customer_id: AnyCustomerId, query: CustomerListing) -> Response:
    """The same as `GET /orders/{customer_id}`, at an address that is nobody else's. Here customers of 0 and less have
    their orders, too, which were adopted from the simpler service.
    """
    known = parse_any_customer_id(customer_id)
    if known is None:
        raise OrderError(Code.NOT_FOUND, f"{customer_id[:60]!r} is not a customer's ID.")
    return await answer_orders(request, query, known)


@placing.post(
    "/customers/{customer_id}/orders",
    status_code=201,
    summary="Place an order for this customer",
    tags=["customers"],
    responses=_PLACED,
)
async def place_customer_order(
    request: Request,
    customer_id: CustomerId,
    dry_run: DryRun,
    body: ToPlace = None,
    key: Key = None,  # noqa: ARG001 (declared for the docs; read with all its values in _place)
    actor: Actor = "api",
) -> Response:
    """The same as `POST /orders/{customer_id}`."""
    return await _place(request, _customer(customer_id, "a customer's ID (1 … 2^63-1)"), body, actor, dry_run)


def _shop(request: Request) -> Shop:
    shop: Shop = request.app.state.shop
    return shop


def _customer(text: str, expected: str = "a customer's ID (1 … 2^63-1) or an order's (a UUID)") -> int:
    customer_id = parse_customer_id(text)
    if customer_id is None:
        raise OrderError(Code.NOT_FOUND, f"{text[:60]!r} is not {expected}.")
    return customer_id


def _asked(request: Request, actor: str, reason: str | None, note: str | None) -> Asked:
    """Who asks for a change, and of which versions. Raises OrderError where If-Match is required and missing."""
    versions = parse_versions(request.headers.getlist("if-match"), "If-Match")
    if versions is None and _shop(request).needs_if_match:
        raise OrderError(Code.IF_MATCH_REQUIRED, "Send the order's ETag in If-Match.")
    return Asked(Author(actor, request.state.request_id), reason, note, versions)


def _units(items: Sequence[UnitsToCancel] | None) -> list[Units]:
    return [
        Units(i.id, i.quantity, i.condition) if isinstance(i, UnitsToReturn) else Units(i.id, i.quantity)
        for i in items or ()
    ]


def _refuse_what_is_for_lists(query: PageQuery, request: Request) -> None:
    if fields := query.model_dump(exclude_defaults=True, exclude={"at"}):
        names = [sent_as(field, request.query_params) for field in fields]
        raise refused_parameters(names, "{} is for lists; this is the address of one order.")


_VERSION = re.compile(r'"version" : ([0-9]+)')
"""In an order's JSON as PostgreSQL builds it. Nobody else can write this into it: in a text the quotes are escaped, and
jsonb puts no space before a colon."""


def _order_response(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An order, with its version as ETag."""
    version = _VERSION.search(body)
    assert version is not None
    return Response(body, status, {**(headers or {}), "ETag": f'"{version[1]}"'}, "application/json")


async def _place(request: Request, customer_id: int, body: OrderToPlace | None, actor: str, dry_run: bool) -> Response:
    key = parse_key(request.headers.getlist("idempotency-key"))
    items = None
    if body and body.items is not None:
        items = [Line(item.product_id, item.quantity) for item in body.items]
    author = Author(actor, request.state.request_id)
    details = details_of(body) if body else NO_DETAILS
    if dry_run:
        wish = Wish(customer_id, items, key, details)
        return preview_response(await _shop(request).rehearsal.place(wish, request.url.path, author))
    answer = await _shop(request).checkout.check_out(customer_id, items, key, request.scope["path"], author, details)
    return _answered(answer)


_ATTACHED = {"external_reference", "metadata", "notes"}


def details_of(body: OrderToPlace) -> Details:
    """What the body attaches to the order."""
    if body.model_fields_set.isdisjoint(_ATTACHED):
        return NO_DETAILS  # of most orders; to look for it costs more than to place them in the database
    return to_details(body.model_dump(include=_ATTACHED))


def _rehearse(request: Request, dry_run: bool) -> changes.Rehearse | None:
    return _shop(request).rehearsal.change if dry_run else None


def _answered(answer: Answer, dry_run: bool = False) -> Response:
    if dry_run:
        return preview_response(answer)
    headers = {"Location": f"/orders/{answer.order_id}"} if answer.order_id else {}
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    if answer.status < 300:
        return _order_response(answer.body, answer.status, headers)
    return Response(answer.body, answer.status, headers, "application/problem+json")
