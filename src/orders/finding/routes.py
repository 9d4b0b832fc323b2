"""The routes that read orders. They pass on the JSON that PostgreSQL built."""

from collections.abc import Container

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from orders.errors import Code, OrderError, invalid
from orders.finding.answers import EventListing, answer_events, answer_orders, understand
from orders.finding.history import read_order_at
from orders.finding.parameters import CustomerListing, Listing, OneOrMany
from orders.finding.query import PageQuery, sent_as
from orders.finding.service import finding
from orders.order.parsing import (
    parse_any_customer_id,
    parse_moment,
    parse_order_id,
    parse_versions,
)
from orders.order.schema import EventList, Order, OrderList
from orders.wire.answers import ETAG_HEADER, etag, order_response
from orders.wire.asking import seer_of
from orders.wire.fast_routes import ReadingRoute
from orders.wire.operations import operation_id
from orders.wire.parameters import AnyCustomerId, CustomerOrOrderId, IfNoneMatch, OrderId, customer_or_refuse
from orders.wire.problems import READ_PROBLEMS, problem_responses, refused_parameters

router = APIRouter(route_class=ReadingRoute, generate_unique_id_function=operation_id)


_EITHER_ID = "a customer's ID (1 … 2^63-1) or an order's (a UUID)"
_LIST_PROBLEMS = (*READ_PROBLEMS, Code.TOO_SLOW)


@router.get(
    "/orders",
    summary="All orders, newest first",
    tags=["orders"],
    responses={200: {"model": OrderList, "description": "A page of orders"}, **problem_responses(*_LIST_PROBLEMS)},
)
async def get_orders(request: Request, query: Listing) -> Response:
    """Placed orders, newest first unless `sort` says otherwise. All filters have to hold. Orders that are being placed,
    or that failed, are only listed if `status` asks for them.
    """
    return await answer_orders(request, query, None)


@router.get(
    "/orders/{id}",
    summary="One order (by its ID), or all orders of one customer (by the customer's ID)",
    tags=["orders"],
    responses={
        200: {"model": Order | OrderList, "description": "The order, or the customer's orders", "headers": ETAG_HEADER},
        304: {"description": "The order still has the version in `If-None-Match`", "headers": ETAG_HEADER},
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
    # read here, so that a malformed header is refused for lists, too
    known = parse_versions(request.headers.getlist("if-none-match"), "If-None-Match")
    order_id = parse_order_id(id)
    if order_id is None:
        if query.at is not None:
            raise invalid("query/at", "extra_forbidden", "at: this is for one order.")
        return await answer_orders(request, query, customer_or_refuse(id, _EITHER_ID))
    service, seer = finding(request), seer_of(request)
    if query.model_fields_set:
        await understand(query, service)  # so that a malformed or unknown parameter is the error that is told
        _refuse_what_is_for_lists(query, request)
    if query.at is not None:
        order = await read_order_at(service.database, service.workflow, order_id, seer, parse_moment(query.at))
        return _unless_known(known, order["version"], JSONResponse(order, headers=etag(order["version"])))
    found = await service.read_order(order_id, seer)
    if found is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    return _unless_known(known, found.version, order_response(found))


def _unless_known(known: Container[int] | None, version: int, answer: Response) -> Response:
    """The answer, or 304 if the client knows the version already."""
    if known is not None and version in known:
        return Response(status_code=304, headers=etag(version))
    return answer


@router.get(
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


@router.get(
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


def _refuse_what_is_for_lists(query: PageQuery, request: Request) -> None:
    if fields := query.model_dump(exclude_defaults=True, exclude={"at"}):
        names = [sent_as(field, request.query_params) for field in fields]
        raise refused_parameters(names, "{} is for lists; this is the address of one order.")
