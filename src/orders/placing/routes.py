"""The routes that place an order."""

from typing import Any

from fastapi import APIRouter, Request, Response

from orders.errors import Code, invalid
from orders.order.attached import Attached
from orders.order.details import to_details
from orders.order.idempotency import ClientKey, Keyed
from orders.order.model import NO_DETAILS, Details, Line
from orders.order.schema import Order
from orders.placing.checkout import CheckoutRequest
from orders.placing.parameters import ToPlace
from orders.placing.schemas import OrderToPlace
from orders.placing.service import placing
from orders.principal import Principal, Scope
from orders.wire.answers import answered
from orders.wire.asking import author_of, key_of, not_permitted, principal_of, require_private
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
    asked = checkout_request(principal_of(request), customer_id, body, key_of(request))
    instance, author = request.scope["path"], author_of(request, actor)
    take(request, len(asked.items or ()) / LINES)
    if dry_run:
        return preview_response(await placing(request).dry_run.place(asked, instance, author))
    return answered(await placing(request).checkout.check_out(asked, instance, author))


def checkout_request(
    principal: Principal,
    customer_id: int,
    body: OrderToPlace | None,
    key: ClientKey | None,
    pointer: str = "#",
    lines_ahead: int = 0,
) -> CheckoutRequest:
    """What the principal asks for. `pointer`: where the order is in the body. Raises OrderError if the principal may
    not ask for something in it.
    """
    seer, key_stored = principal.seer, key.stored(Keyed.PLACE) if key else None
    if body is None:
        return CheckoutRequest(seer, customer_id, None, key_stored, channel=seer.channel)
    if body.channel is not None:
        _require_channel(principal, body.channel, pointer)
    return CheckoutRequest(
        seer,
        customer_id,
        None if body.items is None else [Line(item.product_id, item.quantity) for item in body.items],
        key_stored,
        _details_of(body, principal),
        lines_ahead,
        seer.channel or body.channel,
        body.channel,
    )


def _require_channel(principal: Principal, channel: str, pointer: str) -> None:
    """Raise OrderError if the principal may not place orders of this channel."""
    if principal.is_customer:
        raise not_permitted(Scope.ORDERS_PLACE, "To name a `channel`")
    own = principal.seer.channel
    if own not in (None, channel):
        raise invalid(f"{pointer}/channel", "other_channel", f"This key places orders of the channel {own!r} alone.")


_ATTACHED = set(Attached.model_fields)


def _details_of(body: OrderToPlace, principal: Principal) -> Details:
    """What the body attaches to the order. Raises OrderError if the principal may not attach something of it."""
    if body.model_fields_set.isdisjoint(_ATTACHED):
        return NO_DETAILS  # of most orders; to look for it costs more than to place them in the database
    if body.notes and body.notes.private is not None:
        require_private(principal.seer)
    if body.external_reference is not None and principal.is_customer:
        # A reference is one order's alone: a customer could ask which are taken, and take the shop's next one.
        raise not_permitted(Scope.ORDERS_CHANGE, "To set an `external_reference`")
    return to_details(body.model_dump(include=_ATTACHED))
