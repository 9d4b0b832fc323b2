"""The routes of API keys. Nobody gives a key what they don't have, and a key of a channel knows that channel's only."""

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from orders.access import keys_sql
from orders.access.granting import LONGEST, Caller, refuse_to_give
from orders.access.keys import ID
from orders.access.keys_sql import AccessKey
from orders.access.known_keys import KnownKeys
from orders.access.schemas import Key, KeyIdSchema, KeyList, KeyRotation, KeyToMake, NewKey
from orders.errors import Code, OrderError, invalid
from orders.postgres.lanes import Lane
from orders.wire.asking import author_of, principal_of, seer_of
from orders.wire.bodies import BodyRoute
from orders.wire.operations import operation_id
from orders.wire.parameters import WITHOUT_PARAMETERS, Actor
from orders.wire.problems import problem_responses

router = APIRouter(
    prefix="/keys",
    tags=["keys"],
    route_class=BodyRoute,
    generate_unique_id_function=operation_id,
    dependencies=WITHOUT_PARAMETERS,
)

KeyId = Annotated[str, KeyIdSchema, Path(description="The key's ID: the first 8 characters after `ord_`.")]

_LINKS = {
    "rotate_key": {"operationId": "rotate_key", "parameters": {"id": "$response.body#/id"}},
    "revoke_key": {"operationId": "revoke_key", "parameters": {"id": "$response.body#/id"}},
}
_PROBLEMS = (Code.NOT_PERMITTED, Code.INVALID_REQUEST, Code.DATABASE_UNAVAILABLE)
_WRITES = (*_PROBLEMS, Code.DATABASE_FULL)


def known_keys(request: Request) -> KnownKeys:
    """The keys of the application that the request came to."""
    keys: KnownKeys = request.app.state.keys
    return keys


@router.post(
    "",
    summary="Make a key",
    status_code=201,
    responses={
        201: {"model": NewKey, "description": "The key. Its secret is in `key`, never shown again", "links": _LINKS},
        **problem_responses(Code.BODY_TOO_LARGE, *_WRITES),
    },
)
async def create_key(request: Request, body: KeyToMake, actor: Actor = None) -> Response:
    """Makes an API key. The first one ends the time in which programs on this machine may ask without any."""
    grant, caller = body.grant(), _caller(request, actor)
    refuse_to_give(principal_of(request), grant.scopes, grant.channel)
    now = datetime.now(UTC)
    if grant.expires_at is not None and not now < grant.expires_at <= now + LONGEST:
        raise invalid("#/expires_at", "expiry_invalid", "expires_at: this is in the past, or more than 100 years away.")
    keys = known_keys(request)
    text, key = await keys.database.run(lambda c: keys_sql.create_key(c, grant, caller), Lane.CHANGES)
    keys.note_made()
    return _shown_once(text, key)


@router.get("", summary="The keys", responses={200: {"model": KeyList}, **problem_responses(*_PROBLEMS)})
async def list_keys(request: Request) -> Response:
    """All keys, newest first, without their secrets: also those that were revoked, have expired or were replaced."""
    channel = seer_of(request).channel
    found = await known_keys(request).database.run(lambda c: keys_sql.list_keys(c, channel), Lane.READS)
    listed = KeyList(keys=[Key.model_validate(key) for key in found])
    return JSONResponse(listed.model_dump(mode="json"))


@router.post(
    "/{id}/rotate",
    summary="Replace a key by a new one",
    status_code=201,
    responses={
        201: {
            "model": NewKey,
            "description": "The new key. Its secret is in `key`, never shown again",
            "links": _LINKS,
        },
        **problem_responses(Code.BODY_TOO_LARGE, Code.NOT_FOUND, Code.KEY_ENDED, *_WRITES),
    },
)
async def rotate_key(request: Request, id: KeyId, body: KeyRotation | None = None, actor: Actor = None) -> Response:
    """Makes a key that may do the same and lasts as long again. The old one goes on for `keep_old_for_h` hours, so that
    nobody is locked out while the new one is put in its places.
    """
    caller, old = _caller(request, actor), await _find(request, id)
    refuse_to_give(principal_of(request), old.scopes, old.channel)
    keep = timedelta(hours=(body or KeyRotation()).keep_old_for_h)
    keys = known_keys(request)
    rotated = await keys.database.run(lambda c: keys_sql.rotate_key(c, id, keep, caller), Lane.CHANGES)
    if rotated is None:
        raise _no_key(id)
    keys.note_ended(id)
    return _shown_once(*rotated)


@router.delete(
    "/{id}",
    summary="Revoke a key",
    status_code=204,
    responses={204: {"description": "It is revoked"}, **problem_responses(Code.NOT_FOUND, *_WRITES)},
)
async def revoke_key(request: Request, id: KeyId, actor: Actor = None) -> Response:
    """Ends a key at once, in every replica within 5 s. It stays in the list. Safe to repeat."""
    caller, keys = _caller(request, actor), known_keys(request)
    await _find(request, id)
    await keys.database.run(lambda c: keys_sql.revoke_key(c, id, caller), Lane.CHANGES)
    keys.note_ended(id)
    return Response(status_code=204)


async def _find(request: Request, key_id: str) -> AccessKey:
    """The key, if this principal may know of it. Raises OrderError (404)."""
    if not re.fullmatch(ID, key_id):
        raise _no_key(key_id)
    found = await known_keys(request).database.run(lambda c: keys_sql.find_key(c, key_id), Lane.READS)
    channel = seer_of(request).channel
    if found is None or channel not in (None, found.channel):
        raise _no_key(key_id)
    return found


def _no_key(key_id: str) -> OrderError:
    return OrderError(Code.NOT_FOUND, f"There is no key {key_id[:60]!r}.")


def _shown_once(text: str, key: AccessKey) -> Response:
    """The answer with a new key. Nothing stores it: every answer but public ones has `Cache-Control: no-store`."""
    return JSONResponse(NewKey(key=text, **asdict(key)).model_dump(mode="json"), 201)


def _caller(request: Request, actor: str | None) -> Caller:
    author = author_of(request, actor)
    return Caller(author.actor, _address(request), author.request_id)


def _address(request: Request) -> str | None:
    """The client's IP address. A client at a socket of this machine has none."""
    host: Any = request.client.host if request.client else ""
    try:
        return str(ip_address(host))
    except ValueError:
        return None
