"""The routes that place an order."""

from typing import Any

from fastapi import APIRouter, Request, Response

from orders.errors import Code
from orders.order.attached import Attached
from orders.order.details import to_details
from orders.order.model import NO_DETAILS, Details, Line
from orders.order.parsing import (
    parse_key,
)
from orders.order.schema import Order
from orders.placing.checkout import CheckoutRequest
from orders.placing.parameters import ToPlace
from orders.placing.schemas import OrderToPlace
from orders.placing.service import placing
from orders.wire.answers import answered
from orders.wire.asking import author_of
from orders.wire.costs import LINES, take
from orders.wire.dry_run import DryRun, preview_response
from orders.wire.fast_routes import PlacingRoute
from orders.wire.operations import operation_id
from orders.wire.parameters import Actor, CustomerId, Key, customer_or_refuse
from orders.wire.problems import problem_responses

router = APIRouter(route_class=PlacingRoute, generate_unique_id_function=operation_id)


_TO_THE_ORDER = {"operationId": "get_order", "parameters": {"id": "$response.body#/id"}}


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


@router.post(
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
    actor: Actor = None,
) -> Response:
    """Places an order of `items` or, without them, of the customer's shopping cart, which is closed then.

    201 if and only if the order is placed and its stock is taken. After any other answer nothing was ordered.
    """
    return await _place(request, customer_or_refuse(id), body, actor, dry_run)


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
    dry_run: DryRun,
    body: ToPlace = None,
    key: Key = None,  # noqa: ARG001 (declared for the docs; read with all its values in _place)
    actor: Actor = None,
) -> Response:
    """The same as `POST /orders/{customer_id}`."""
    return await _place(request, customer_or_refuse(customer_id), body, actor, dry_run)


async def _place(
    request: Request, customer_id: int, body: OrderToPlace | None, actor: str | None, dry_run: bool
) -> Response:
    asked = checkout_request(customer_id, body, parse_key(request.headers.getlist("idempotency-key")))
    instance, author = request.scope["path"], author_of(request, actor)
    take(request, len(asked.items or ()) / LINES)
    if dry_run:
        return preview_response(await placing(request).dry_run.place(asked, instance, author))
    return answered(await placing(request).checkout.check_out(asked, instance, author))


def checkout_request(
    customer_id: int, body: OrderToPlace | None, key: str | None, lines_ahead: int = 0
) -> CheckoutRequest:
    """What the body asks for."""
    if body is None:
        return CheckoutRequest(customer_id, None, key)
    items = None if body.items is None else [Line(item.product_id, item.quantity) for item in body.items]
    return CheckoutRequest(customer_id, items, key, _details_of(body), lines_ahead)


_ATTACHED = set(Attached.model_fields)


def _details_of(body: OrderToPlace) -> Details:
    """What the body attaches to the order."""
    if body.model_fields_set.isdisjoint(_ATTACHED):
        return NO_DETAILS  # of most orders; to look for it costs more than to place them in the database
    return to_details(body.model_dump(include=_ATTACHED))
