"""The routes that change an order."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from orders.changing import cancel, take_back
from orders.changing.describe import patch_details
from orders.changing.move import change_status
from orders.changing.parameters import ToCancel, ToReturn
from orders.changing.rules import Asked, Units
from orders.changing.schemas import Cancellation, NewStatus, OrderPatch, Return, UnitsToCancel, UnitsToReturn
from orders.changing.service import changing
from orders.errors import Code, OrderError
from orders.order.parsing import parse_status_or_refuse, parse_versions
from orders.order.schema import Order
from orders.principal import Scope
from orders.wire.answers import ETAG_HEADER, answered
from orders.wire.asking import author_of, key_of, not_permitted, principal_of, require_private, seer_of
from orders.wire.bodies import BodyRoute
from orders.wire.dry_run import DryRun
from orders.wire.operations import operation_id
from orders.wire.parameters import Actor, IfMatch, Key, OrderId, order_or_refuse
from orders.wire.problems import READ_PROBLEMS, problem_responses

router = APIRouter(route_class=BodyRoute, generate_unique_id_function=operation_id)


_CHANGED = {
    200: {
        "model": Order,
        "description": "The order as it is now",
        "headers": ETAG_HEADER,
    },
    **problem_responses(
        Code.ORDER_NOT_FOUND,
        Code.STATUS_NOT_ALLOWED,
        Code.VERSION_CHANGED,
        Code.IF_MATCH_REQUIRED,
        Code.BODY_TOO_LARGE,
        Code.DATABASE_FULL,
        *READ_PROBLEMS,
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
        *READ_PROBLEMS,
    ),
}


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
    actor: Actor = None,
) -> Response:
    """Moves the order forward along its life, aside (`On Hold`, and back) or to an end (`Cancelled`: its stock goes
    back to the catalog). The status that it has already changes nothing.
    """
    order_id, service = order_or_refuse(id), changing(request)
    status = parse_status_or_refuse(body.status, "#/status", service.workflow)
    asked = _asked(request, actor, None, body.note)
    return answered(await change_status(service.apply(seer_of(request), dry_run), order_id, status, asked), dry_run)


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
    actor: Actor = None,
) -> Response:
    """Cancels the order; its stock goes back to the catalog, once, unless `restock` is false.

    With `items` only these units are cancelled: the lines' quantities and the total follow, the status stays.
    Cancelling the last units cancels the order. A partial cancellation that may have to be repeated should have an
    `Idempotency-Key` or an `If-Match`.
    """
    asked_for = body or Cancellation()
    asked = _asked(request, actor, asked_for.reason, asked_for.note)
    if not asked_for.restock and principal_of(request).is_customer:
        raise not_permitted(Scope.ORDERS_CHANGE, "A `restock` that is false")
    apply, units = changing(request).apply(seer_of(request), dry_run), _units(asked_for.items)
    answer = await cancel.cancel_order(
        apply, order_or_refuse(id), asked, units, restock=asked_for.restock, key=key_of(request)
    )
    return answered(answer, dry_run)


@router.post("/orders/{id}/return", summary="Goods of an order came back", tags=["orders"], responses=_PARTLY_CHANGED)
async def return_order(
    request: Request,
    id: OrderId,
    dry_run: DryRun,
    body: ToReturn = None,
    if_match: IfMatch = None,  # noqa: ARG001
    key: Key = None,  # noqa: ARG001
    actor: Actor = None,
) -> Response:
    """Records goods that came back, line by line; those that are `restocked` go back to the catalog.

    Once everything is back, the order is `Returned`. An order that was moved there with PUT can have its goods recorded
    afterwards.
    """
    asked_for = body or Return()
    asked = _asked(request, actor, asked_for.reason, asked_for.note)
    apply, units = changing(request).apply(seer_of(request), dry_run), _units(asked_for.items)
    return answered(await take_back.return_order(apply, order_or_refuse(id), asked, units, key_of(request)), dry_run)


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
    actor: Actor = None,
) -> Response:
    """Merges a JSON merge patch into `external_reference`, `metadata` and `notes`: null removes a member, the
    members of objects are merged. The order's version grows by one, unless nothing changes.
    """
    asked = _asked(request, actor, None, None)
    patch = body.model_dump(exclude_unset=True)
    service, seer = changing(request), seer_of(request)
    if _touches_private(patch):
        require_private(seer)
    apply = service.apply(seer, dry_run)
    answer = await patch_details(apply, service.database, seer, order_or_refuse(id), patch, asked)
    return answered(answer, dry_run)


def _touches_private(patch: Mapping[str, Any]) -> bool:
    """Whether the patch could change the private note. `"notes": null` removes it."""
    return "notes" in patch and (patch["notes"] is None or "private" in patch["notes"])


def _asked(request: Request, actor: str | None, reason: str | None, note: str | None) -> Asked:
    """The author of the change, and the versions that they know. Raises OrderError if If-Match is
    required and missing.
    """
    versions = parse_versions(request.headers.getlist("if-match"), "If-Match")
    if versions is None and changing(request).needs_if_match:
        raise OrderError(Code.IF_MATCH_REQUIRED, "Send the order's ETag in If-Match.")
    return Asked(author_of(request, actor), reason, note, versions)


def _units(items: Sequence[UnitsToCancel] | None) -> list[Units]:
    return [
        Units(i.id, i.quantity, i.condition) if isinstance(i, UnitsToReturn) else Units(i.id, i.quantity)
        for i in items or ()
    ]
