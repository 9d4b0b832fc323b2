"""The routes of deliveries to webhooks: what became of them, and delivering them again."""

from dataclasses import asdict
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from orders.errors import Code
from orders.webhooks.delivery_schemas import (
    DeliveriesQuery,
    Delivery,
    DeliveryPage,
    DeliveryWithAttempts,
    EventsToReplay,
    Replayed,
)
from orders.webhooks.endpoint_routes import webhooks_of
from orders.webhooks.parameters import DeliveryId, WebhookId, delivery_or_refuse, webhook_or_refuse
from orders.wire.asking import author_of, seer_of
from orders.wire.bodies import BodyRoute
from orders.wire.costs import ENTRIES, ROWS, charge
from orders.wire.dry_run import DryRun
from orders.wire.fast_routes import ReadingRoute
from orders.wire.operations import operation_id
from orders.wire.parameters import WITHOUT_PARAMETERS, Actor
from orders.wire.problems import READ_PROBLEMS, problem_responses

list_router = APIRouter(tags=["webhooks"], route_class=ReadingRoute, generate_unique_id_function=operation_id)
router = APIRouter(tags=["webhooks"], route_class=BodyRoute, generate_unique_id_function=operation_id)


@list_router.get(
    "/webhooks/{id}/deliveries",
    summary="What was sent to a webhook",
    responses={
        200: {"model": DeliveryPage, "description": "A page of deliveries, newest first"},
        **problem_responses(Code.WEBHOOK_NOT_FOUND, *READ_PROBLEMS),
    },
)
async def list_deliveries(request: Request, id: WebhookId, query: Annotated[DeliveriesQuery, Query()]) -> Response:
    """Each message with what has become of it: those that wait, that arrived, and that were given up."""
    webhook_id, filters = webhook_or_refuse(id), query.filters()
    found, before = await webhooks_of(request).deliveries(webhook_id, filters, query.limit, seer_of(request))
    charge(request, len(found) / ROWS)
    page = DeliveryPage(
        deliveries=[Delivery.model_validate(view) for view in found], next=_next(webhook_id, query, before)
    )
    return JSONResponse(page.model_dump(mode="json"))


@router.get(
    "/webhook-deliveries/{id}",
    summary="A delivery with its attempts",
    responses={
        200: {"model": DeliveryWithAttempts, "description": "The delivery"},
        **problem_responses(Code.DELIVERY_NOT_FOUND, *READ_PROBLEMS),
    },
    dependencies=WITHOUT_PARAMETERS,
)
async def get_delivery(request: Request, id: DeliveryId) -> Response:
    """What became of each attempt."""
    view, attempts = await webhooks_of(request).delivery(delivery_or_refuse(id), seer_of(request))
    told = DeliveryWithAttempts(**asdict(view), attempts=[asdict(attempt) for attempt in attempts])
    return JSONResponse(told.model_dump(mode="json"))


@router.post(
    "/webhook-deliveries/{id}/redeliver",
    summary="Deliver once more",
    status_code=202,
    responses={
        202: {"model": Delivery, "description": "The new delivery, or the one that still waits: it is due now"},
        **problem_responses(Code.DELIVERY_NOT_FOUND, Code.WEBHOOK_DISABLED, Code.DATABASE_FULL, *READ_PROBLEMS),
    },
    dependencies=WITHOUT_PARAMETERS,
)
async def redeliver(request: Request, id: DeliveryId, actor: Actor = None) -> Response:
    """Sends the same message again, whatever became of it, in a new round with attempts of its own."""
    author, seer = author_of(request, actor), seer_of(request)
    view = await webhooks_of(request).redeliver(delivery_or_refuse(id), author, seer)
    headers = {"Location": f"/webhook-deliveries/{view.id}"}
    return JSONResponse(Delivery.model_validate(view).model_dump(mode="json"), 202, headers)


@router.post(
    "/webhooks/{id}/replay",
    summary="Deliver many events again",
    status_code=202,
    responses={
        202: {"model": Replayed, "description": "How many are delivered again"},
        **problem_responses(
            Code.WEBHOOK_NOT_FOUND,
            Code.WEBHOOK_DISABLED,
            Code.BODY_TOO_LARGE,
            Code.TOO_SLOW,
            Code.DATABASE_FULL,
            *READ_PROBLEMS,
        ),
    },
)
async def replay_webhook(
    request: Request, id: WebhookId, dry_run: DryRun, body: EventsToReplay, actor: Actor = None
) -> Response:
    """Delivers events of a part of the feed again, each in a new round. What waits already is not doubled. Count them
    first, with `dry_run=true`.
    """
    asked, author, seer = body.replay(), author_of(request, actor), seer_of(request)
    count = await webhooks_of(request).replay(webhook_or_refuse(id), asked, author, seer, dry_run=dry_run)
    charge(request, count / ENTRIES)
    return JSONResponse({"count": count}, 200 if dry_run else 202)


def _next(webhook_id: UUID, query: DeliveriesQuery, before: int | None) -> str | None:
    """The address of the page that begins before this delivery."""
    if before is None:
        return None
    filters = query.model_dump(exclude_none=True, exclude={"limit", "cursor"})
    return f"/webhooks/{webhook_id}/deliveries?{urlencode({'limit': query.limit, **filters, 'cursor': before})}"
