"""The edge: what happens to each request before its route, and to each answer after it, in one layer.

Requests get an ID, and pass the `gate`. Answers get the request's ID, the headers that keep private data out of caches,
and a line in the log. All this is one layer, because each wrapper around `send` costs CPU for each message.
"""

import re
import time
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from orders.errors import Code, OrderError
from orders.wire.failures import problem_response
from orders.wire.gate import Gate
from orders.wire.parameters import REQUEST_ID
from orders.wire.request_log import RequestLog

_REQUEST_ID = re.compile(REQUEST_ID.encode())
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")


CORS: dict[str, Any] = {
    "allow_methods": ["GET", "POST", "PUT", "PATCH", "DELETE"],
    "allow_headers": [
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "Last-Event-ID",
        "X-Actor",
        "X-Request-ID",
    ],
    "expose_headers": [
        "ETag",
        "Location",
        "Idempotent-Replayed",
        "X-Request-ID",
        "Retry-After",
        "RateLimit",
        "RateLimit-Policy",
    ],
    "max_age": 600,
}
"""What pages of the origins in ORDERS_CORS_ORIGINS may send, and which headers of an answer they may read."""


class Edge:
    """The layer around the whole application."""

    def __init__(self, app: ASGIApp, gate: Gate, log: RequestLog) -> None:
        self._app = app
        self._gate = gate
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = time.perf_counter()
        headers = dict(scope["headers"])  # the last one of each name; checks that need all of them read the scope
        method, scope = scope["method"], _plain(scope)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        asked = self._gate.ask(scope, method, headers)
        sender = _Sender(send, request_id, asked.answer_headers, is_private=not asked.operation.is_public)
        try:
            await self._gate.answer(asked, self._app, receive, sender)
        except Exception as bug:
            self._log.note_bug(method, scope, bug)
            if sender.status:
                raise  # the answer has begun: the server breaks it off
            failed = OrderError(Code.INTERNAL_ERROR, "The service's log says more.")
            await problem_response(Request(scope), failed)(scope, receive, sender)
        finally:
            self._log.note(method, scope, sender.status, time.perf_counter() - began_at)


def _plain(scope: Scope) -> Scope:
    """The scope with HEAD replaced by GET (the server leaves out the body), and without a slash at the path's end."""
    path, changes = scope["path"], {}
    if scope["method"] == "HEAD":
        changes["method"] = "GET"
    if len(path) > 1 and path.endswith("/"):
        changes["path"] = path.rstrip("/") or "/"
    return {**scope, **changes} if changes else scope


class _Sender:
    """Sends an answer and adds the headers that every answer has. `status` is 0 until the answer has begun."""

    __slots__ = ("_extra", "_more", "_send", "status")

    def __init__(self, send: Send, request_id: bytes, more: list[tuple[bytes, bytes]], *, is_private: bool) -> None:
        self.status = 0
        self._send = send
        self._more = more  # filled by checks, after this
        self._extra = [(b"x-request-id", request_id), _NOSNIFF, *([_NO_STORE] if is_private else ())]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._extra, *self._more]
        await self._send(message)


def _request_id(headers: dict[bytes, bytes]) -> bytes:
    """The client's request ID. If it sent none, or one that no log line could carry, a new one."""
    given = headers.get(b"x-request-id", b"")
    return given if _REQUEST_ID.fullmatch(given) else uuid7().hex.encode()
