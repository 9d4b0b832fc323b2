"""The routes of webhooks. A key of a channel makes and sees webhooks of that channel only."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from orders.errors import Code, OrderError, invalid
from orders.order.idempotency import Answer
from orders.order.parsing import parse_versions
from orders.webhooks.endpoint_views_sql import EndpointView
from orders.webhooks.endpoints import Added, Repeatable, Webhooks, key_for
from orders.webhooks.endpoints_sql import EndpointChange, NewEndpoint
from orders.webhooks.model import Ordering, Payload
from orders.webhooks.parameters import IfMatch, WebhookId, webhook_or_refuse
from orders.webhooks.schemas import (
    NewWebhook,
    SecretRotation,
    SentRequest,
    Signature,
    TestResult,
    Webhook,
    WebhookList,
    WebhookPatch,
    WebhookToMake,
    shown,
    shown_with,
)
from orders.webhooks.wanted import known
from orders.wire.answers import ETAG_HEADER, etag
from orders.wire.asking import author_of, key_of, seer_of
from orders.wire.bodies import BodyRoute
from orders.wire.operations import operation_id
from orders.wire.parameters import WITHOUT_PARAMETERS, Actor, Key
from orders.wire.problems import READ_PROBLEMS, problem_responses

router = APIRouter(
    prefix="/webhooks",
    tags=["webhooks"],
    route_class=BodyRoute,
    generate_unique_id_function=operation_id,
    dependencies=WITHOUT_PARAMETERS,
)

_OF_ONE = (Code.WEBHOOK_NOT_FOUND, *READ_PROBLEMS)
_WRITES = (*_OF_ONE, Code.BODY_TOO_LARGE, Code.DATABASE_FULL)
_ID = {"id": "$response.body#/id"}
_LINKS = {
    name: {"operationId": name, "parameters": _ID}
    for name in (
        *("get_webhook", "patch_webhook", "rotate_webhook_secret", "test_webhook", "list_deliveries"),
        *("replay_webhook", "preview_replay_webhook"),
    )
}


def webhooks_of(request: Request) -> Webhooks:
    """The webhooks of the application that the request came to."""
    found: Webhooks = request.app.state.webhooks
    return found


@router.post(
    "",
    summary="Make a webhook",
    status_code=201,
    responses={
        201: {
            "model": NewWebhook,
            "description": "The webhook. Its secret is in `secret`, never shown again",
            "headers": ETAG_HEADER,
            "links": _LINKS,
        },
        **problem_responses(
            Code.INVALID_REQUEST,
            Code.ADDRESS_NOT_ALLOWED,
            Code.KEY_REUSED,
            Code.TOO_MANY_WEBHOOKS,
            Code.POSITION_AHEAD,
            Code.NOT_PERMITTED,
            Code.SECRET_NOT_SET,
            Code.DATABASE_UNAVAILABLE,
            Code.DATABASE_FULL,
            Code.BODY_TOO_LARGE,
        ),
    },
)
async def create_webhook(
    request: Request,
    body: WebhookToMake,
    key: Key = None,  # noqa: ARG001
    actor: Actor = None,
) -> Response:
    """Makes an endpoint: from now on, or from a position of the feed on, its events are sent there as signed messages
    (Standard Webhooks).
    """
    new, author = _new(request, body), author_of(request, actor)
    secret, client_key = key_for(Signature(body.signature).kind, body.secret), key_of(request)
    repeatable = None
    if client_key:
        content = json.dumps(body.model_dump(mode="json"), sort_keys=True).encode()
        repeatable = Repeatable(client_key, content, lambda view: shown_with(view, None).model_dump_json())
    made = await webhooks_of(request).add(new, secret, author, repeatable)
    return _repeated(made) if isinstance(made, Answer) else _shown_once(made, 201)


@router.get("", summary="The webhooks", responses={200: {"model": WebhookList}, **problem_responses(*READ_PROBLEMS)})
async def list_webhooks(request: Request) -> Response:
    """All webhooks, the oldest first, with how they do. Their secrets are shown nowhere."""
    found = await webhooks_of(request).all(seer_of(request))
    return JSONResponse(WebhookList(webhooks=[shown(view) for view in found]).model_dump(mode="json"))


@router.get(
    "/{id}",
    summary="A webhook",
    responses={
        200: {"model": Webhook, "description": "The webhook", "headers": ETAG_HEADER},
        **problem_responses(*_OF_ONE),
    },
)
async def get_webhook(request: Request, id: WebhookId) -> Response:
    """How it is set up, and how it does. `ETag` is the version of how it is set up."""
    return _answer(await webhooks_of(request).find(webhook_or_refuse(id), seer_of(request)))


@router.patch(
    "/{id}",
    summary="Change a webhook",
    responses={
        200: {"model": Webhook, "description": "The webhook as it is now", "headers": ETAG_HEADER},
        **problem_responses(Code.INVALID_REQUEST, Code.ADDRESS_NOT_ALLOWED, Code.VERSION_CHANGED, *_WRITES),
    },
    openapi_extra={
        "requestBody": {
            "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/WebhookPatch"}}}
        }
    },
)
async def patch_webhook(
    request: Request,
    id: WebhookId,
    body: WebhookPatch,
    if_match: IfMatch = None,  # noqa: ARG001
    actor: Actor = None,
) -> Response:
    """Changes the members that are sent; of events that wait already, only where they go. Disabling it loses nothing:
    once enabled, it goes on where it stopped, or with `"from": "now"` leaves out what it has not got.
    """
    versions = parse_versions(request.headers.getlist("if-match"), "If-Match")
    change = _change(body.model_dump(exclude_unset=True))
    author, seer = author_of(request, actor), seer_of(request)
    return _answer(await webhooks_of(request).change(webhook_or_refuse(id), change, versions, author, seer))


@router.delete(
    "/{id}",
    summary="Delete a webhook",
    status_code=204,
    responses={204: {"description": "It is deleted"}, **problem_responses(*_OF_ONE, Code.DATABASE_FULL)},
)
async def delete_webhook(request: Request, id: WebhookId, actor: Actor = None) -> Response:
    """Deletes it with its secrets and its deliveries. Nothing more is sent."""
    author, seer = author_of(request, actor), seer_of(request)
    await webhooks_of(request).delete(webhook_or_refuse(id), author, seer)
    return Response(status_code=204)


@router.post(
    "/{id}/rotate",
    summary="Give a webhook a new secret",
    responses={
        200: {
            "model": NewWebhook,
            "description": "The webhook. Its new secret is in `secret`, never shown again",
            "headers": ETAG_HEADER,
        },
        **problem_responses(Code.SECRET_NOT_SET, *_WRITES),
    },
)
async def rotate_webhook_secret(request: Request, id: WebhookId, body: SecretRotation, actor: Actor = None) -> Response:
    """For `keep_old_for_h` hours messages are signed with both secrets, so that the receiver can change over."""
    keep = timedelta(hours=body.keep_old_for_h)
    author, seer = author_of(request, actor), seer_of(request)
    return _shown_once(await webhooks_of(request).rotate(webhook_or_refuse(id), keep, author, seer), 200)


@router.post(
    "/{id}/test",
    summary="Send a webhook a test message",
    responses={
        200: {"model": TestResult, "description": "What became of it, whether or not it arrived"},
        **problem_responses(Code.WEBHOOK_DISABLED, Code.SECRET_NOT_SET, *_OF_ONE),
    },
)
async def test_webhook(request: Request, id: WebhookId) -> Response:
    """Sends `webhook.test` at once, and tells what was sent and what came back. It changes nothing."""
    sent = await webhooks_of(request).test(webhook_or_refuse(id), seer_of(request))
    result = sent.result
    told = TestResult(
        delivered=result.is_success,
        status=result.status,
        ms=result.ms,
        error=result.error,
        reply=result.reply,
        request=SentRequest(headers=sent.headers, body=sent.body.decode()),
    )
    return JSONResponse(told.model_dump(mode="json"))


def _new(request: Request, body: WebhookToMake) -> NewEndpoint:
    """What is asked for. Raises OrderError."""
    return NewEndpoint(
        body.url,
        known(body.types),
        Payload(body.payload),
        Ordering(body.ordering),
        body.concurrency,
        _channel(request, body.channel),
        body.description,
        None if body.start == "now" else body.start,
    )


def _channel(request: Request, asked: str | None) -> str | None:
    """The channel of a new webhook: the one that the credential is bound to, if it is. Raises OrderError (403)."""
    own = seer_of(request).channel
    if own is not None and asked not in (None, own):
        raise OrderError(Code.NOT_PERMITTED, f"A credential of the channel {own} makes webhooks of that channel only.")
    return own or asked


def _change(sent: Mapping[str, Any]) -> EndpointChange:
    """What is asked for by these members. Raises OrderError."""
    status = sent.get("status")
    if "start" in sent and status != "enabled":
        raise invalid("#/from", "extra_forbidden", "from: it means something beside `status` `enabled` only.")
    values = {name: value for name, value in sent.items() if name not in ("status", "start")}
    if "types" in values:
        values["types"] = list(known(values["types"]))
    return EndpointChange(values, None if status is None else status == "enabled", "start" in sent)


def _answer(view: EndpointView) -> Response:
    return JSONResponse(shown(view).model_dump(mode="json"), headers=etag(view.version))


def _shown_once(made: Added, status: int) -> Response:
    """The answer with a secret. Nothing stores it: every answer but public ones has `Cache-Control: no-store`."""
    headers = etag(made.endpoint.version)
    if status == 201:
        headers["Location"] = f"/webhooks/{made.endpoint.id}"
    return JSONResponse(shown_with(made.endpoint, made.secret).model_dump(mode="json"), status, headers)


def _repeated(answer: Answer) -> Response:
    """The first answer once more, without its secret."""
    assert answer.version is not None
    location = f"/webhooks/{json.loads(answer.body)['id']}"
    headers = {**etag(answer.version), "Location": location, "Idempotent-Replayed": "true"}
    return Response(answer.body, answer.status, headers, "application/json")
