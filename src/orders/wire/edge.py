"""The edge: what happens to each request before its route, and to each answer after it, in one layer.

Some requests are refused here before anything is parsed: malformed or oversized ones, those for another host, and
writes that come from another site's page. Answers get the request's ID, the headers that keep private data out of
caches, and a line in the log. All this is one layer, because each wrapper around `send` costs CPU for each message.
"""

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from orders.errors import Code, OrderError, invalid
from orders.wire.failures import Refused, allowed_methods, problem_response
from orders.wire.parameters import REQUEST_ID
from orders.wire.request_log import RequestLog

MAX_QUERY_BYTES = 8 * 1024
"""Maximum length of a query string: the longest cursor and every filter fit several times."""

MAX_PARAMETERS = 50
"""Maximum number of parameters in a query: `status` may repeat, and there are fewer than thirty others."""

MAX_BODY_BYTES = 256 * 1024
"""Maximum size of a body. An order of the most lines that are allowed fits seven times."""

MAX_BULK_BYTES = 1024 * 1024
"""Maximum size of the body of a request for many orders."""

_REQUEST_ID = re.compile(REQUEST_ID.encode())
_READS = ("GET", "HEAD", "OPTIONS")
_PUBLIC = ("/docs", "/redoc", "/static-offline-docs", "/openapi.json", "/workflow", "/problems")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")


CORS: dict[str, Any] = {
    "allow_methods": ["GET", "POST", "PUT", "PATCH"],
    "allow_headers": ["Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-Actor", "X-Request-ID"],
    "expose_headers": ["ETag", "Location", "Idempotent-Replayed", "X-Request-ID", "Retry-After"],
    "max_age": 600,
}
"""What pages of the origins in ORDERS_CORS_ORIGINS may send, and which headers of an answer they may read."""


@dataclass(frozen=True, slots=True)
class Doors:
    """The names that requests may use: `hosts` (empty: any), and `origins` of pages that may write."""

    hosts: Collection[str] = ()
    origins: Collection[str] = ()


class Edge:
    """The layer around the whole application."""

    def __init__(self, app: ASGIApp, doors: Doors, log: RequestLog) -> None:
        self._app = app
        self._doors = doors
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = time.perf_counter()
        headers = dict(scope["headers"])  # the last one of each name; checks that need all of them read the scope
        method, scope = scope["method"], _plain(scope)
        error = self._refusal(method, scope, headers)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        sender = _Sender(send, request_id, is_private=not scope["path"].startswith(_PUBLIC))
        try:
            await self._answer(method, error, scope, receive, sender)
        except Exception as bug:
            self._log.note_bug(method, scope, bug)
            if sender.status:
                raise  # the answer has begun: the server breaks it off
            failed = OrderError(Code.INTERNAL_ERROR, "The service's log says more.")
            await problem_response(Request(scope), failed)(scope, receive, sender)
        finally:
            self._log.note(method, scope, sender.status, time.perf_counter() - began_at)

    async def _answer(self, method: str, error: OrderError | None, scope: Scope, receive: Receive, send: Send) -> None:
        if error:
            await problem_response(Request(scope), error)(scope, receive, send)
        elif method == "OPTIONS":
            await _options(scope)(scope, receive, send)
        else:
            await self._app(scope, _bounded(scope, receive), send)

    def _refusal(self, method: str, scope: Scope, headers: dict[bytes, bytes]) -> OrderError | None:
        """The reason to refuse the request before its route is looked up, or None."""
        names = [name for name, _ in scope["headers"]]
        given = headers.get(b"x-request-id")
        if given is not None and (names.count(b"x-request-id") > 1 or not _REQUEST_ID.fullmatch(given)):
            message = "X-Request-ID: 1 to 128 of A-Z a-z 0-9 -._~:/+="
            return invalid("header/X-Request-ID", "request_id_invalid", message)
        query = scope["query_string"]
        if query and (error := _oversized_query(query)):
            return error
        if error := self._wrong_host(scope, names, headers):
            return error
        if method not in _READS:
            return self._from_another_site(headers) or _oversized_body(scope, headers)
        return None

    def _wrong_host(self, scope: Scope, names: list[bytes], headers: dict[bytes, bytes]) -> OrderError | None:
        """The refusal of a request for another host, or None. HTTP/1.1 has exactly one Host (RFC 9112, 3.2). A page
        whose own name was made to point here (DNS rebinding) names another host than ours.
        """
        count = names.count(b"host")
        if count > 1 or (count == 0 and scope["http_version"] != "1.0"):
            detail = f"A request has one Host header; this one has {count or 'none'}."
            return OrderError(Code.HOST_INVALID, detail)
        host = _without_port(headers.get(b"host", b"").decode("latin-1").lower())
        if self._doors.hosts and host not in self._doors.hosts and scope["path"] != "/health":  # probes use the address
            return OrderError(Code.HOST_UNKNOWN, "The Host of this request is none of ORDERS_HOSTS.")
        return None

    def _from_another_site(self, headers: dict[bytes, bytes]) -> OrderError | None:
        """The refusal of a write that a page of another site sends, or None. Browsers name the site in a header;
        programs send none.

        `same-site` is let in: a shop's own pages at another name of its domain, like `admin.shop.example`.
        """
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if not _is_cross_site(headers, origin) or origin in self._doors.origins:
            return None
        detail = "A page of another site sent this. If it is yours, name its origin in ORDERS_CORS_ORIGINS."
        return OrderError(Code.CROSS_SITE, detail)


def _plain(scope: Scope) -> Scope:
    """The scope with HEAD replaced by GET (the server leaves out the body), and without a slash at the path's end."""
    path, changes = scope["path"], {}
    if scope["method"] == "HEAD":
        changes["method"] = "GET"
    if len(path) > 1 and path.endswith("/"):
        changes["path"] = path.rstrip("/") or "/"
    return {**scope, **changes} if changes else scope


def _is_cross_site(headers: dict[bytes, bytes], origin: str) -> bool:
    """Whether a page of another site sends this. Browsers send no `Sec-Fetch-Site` to a plain http address other than
    localhost. There, the page's origin has to be this host.
    """
    site = headers.get(b"sec-fetch-site")
    if site is None and origin:
        return origin.partition("://")[2] != headers.get(b"host", b"").decode("latin-1").lower()
    return site == b"cross-site"


class _Sender:
    """Sends an answer and adds the headers that every answer has. `status` is 0 until the answer has begun."""

    __slots__ = ("_extra", "_send", "status")

    def __init__(self, send: Send, request_id: bytes, *, is_private: bool) -> None:
        self.status = 0
        self._send = send
        self._extra = [(b"x-request-id", request_id), _NOSNIFF, *([_NO_STORE] if is_private else ())]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._extra]
        await self._send(message)


def _request_id(headers: dict[bytes, bytes]) -> bytes:
    """The client's request ID. If it sent none, or one that no log line could carry, a new one."""
    given = headers.get(b"x-request-id", b"")
    return given if _REQUEST_ID.fullmatch(given) else uuid7().hex.encode()


def _without_port(host: str) -> str:
    """The name or the address in a Host header, without the port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _oversized_query(query: bytes) -> OrderError | None:
    """The refusal of a query that is too long, or None. It is counted and not parsed, as it may be as long as a
    request's head.
    """
    if len(query) > MAX_QUERY_BYTES:
        message = f"The query has {len(query)} bytes; at most {MAX_QUERY_BYTES} are allowed."
        return invalid("query", "too_long", message)
    if (count := query.count(b"&") + 1) > MAX_PARAMETERS:
        return invalid("query", "too_many", f"There are {count} parameters; at most {MAX_PARAMETERS} are allowed.")
    return None


def most_bytes(path: str) -> int:
    """Maximum size of a body for this path."""
    return MAX_BULK_BYTES if path.endswith(":batch") else MAX_BODY_BYTES


def _oversized_body(scope: Scope, headers: dict[bytes, bytes]) -> OrderError | None:
    """The refusal of a body that announces too large a size, or None. It stays unread, and the connection is closed
    after the answer.
    """
    announced, most = headers.get(b"content-length", b"0"), most_bytes(scope["path"])
    if announced.isdigit() and int(announced[:20]) > most:
        return body_too_large(most)
    return None


def body_too_large(most: int) -> OrderError:
    """The error (413) for a body that is too large."""
    return OrderError(Code.BODY_TOO_LARGE, f"A body here is at most {most} bytes.")


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """A `receive` that passes on no more of the body than is allowed. Raises Refused."""
    if scope["method"] == "GET":
        return receive
    received, most = 0, most_bytes(scope["path"])

    async def receive_some() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise Refused(body_too_large(most))
        return message

    return receive_some


def _options(scope: Scope) -> Response:
    """The answer to OPTIONS: the methods at this address."""
    methods = allowed_methods(scope)
    if not methods:
        return problem_response(Request(scope), OrderError(Code.NOT_FOUND, f"There is nothing at {scope['path']}."))
    return Response(status_code=204, headers={"Allow": methods})
