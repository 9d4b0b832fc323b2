"""The checks that the gate asks of every request: its ID, the size of its query, its host, the site that it comes from,
and the size of its body. Nothing is parsed here.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from orders.errors import Code, OrderError, invalid
from orders.wire.gate import Asked, Check, body_too_large
from orders.wire.parameters import REQUEST_ID

MAX_QUERY_BYTES = 8 * 1024
"""Maximum length of a query string: the longest cursor and every filter fit several times."""

MAX_PARAMETERS = 50
"""Maximum number of parameters in a query: `status` may repeat, and there are fewer than thirty others."""

_REQUEST_ID = re.compile(REQUEST_ID.encode())
_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Doors:
    """The names that requests may use: `hosts` (empty: any), and `origins` of pages that may write."""

    hosts: Collection[str] = ()
    origins: Collection[str] = ()

    def wrong_host(self, asked: Asked) -> OrderError | None:
        """The refusal of a request for another host, or None. HTTP/1.1 has exactly one Host (RFC 9112, 3.2). A page
        whose own name was made to point here (DNS rebinding) names another host than ours.
        """
        count = _count(asked, b"host")
        if count > 1 or (count == 0 and asked.scope["http_version"] != "1.0"):
            detail = f"A request has one Host header; this one has {count or 'none'}."
            return OrderError(Code.HOST_INVALID, detail)
        host = _without_port(asked.headers.get(b"host", b"").decode("latin-1").lower())
        if self.hosts and host not in self.hosts and asked.scope["path"] != "/health":  # probes use the address
            return OrderError(Code.HOST_UNKNOWN, "The Host of this request is none of ORDERS_HOSTS.")
        return None

    def from_another_site(self, asked: Asked) -> OrderError | None:
        """The refusal of a write that a page of another site sends, or None. Browsers name the site in a header;
        programs send none.

        `same-site` is let in: a shop's own pages at another name of its domain, like `admin.shop.example`.
        """
        if asked.method in _SAFE:
            return None
        origin = asked.headers.get(b"origin", b"").decode("latin-1").lower()
        if not _is_cross_site(asked.headers, origin) or origin in self.origins:
            return None
        detail = "A page of another site sent this. If it is yours, name its origin in ORDERS_CORS_ORIGINS."
        return OrderError(Code.CROSS_SITE, detail)


def own_checks(doors: Doors) -> tuple[Check, ...]:
    """The checks of every request, in their order."""
    return malformed_request_id, oversized_query, doors.wrong_host, doors.from_another_site, oversized_body


def malformed_request_id(asked: Asked) -> OrderError | None:
    """The refusal of an ID that no log line could carry, and of two IDs, or None."""
    given = asked.headers.get(b"x-request-id")
    if given is None or (_REQUEST_ID.fullmatch(given) and _count(asked, b"x-request-id") == 1):
        return None
    return invalid("header/X-Request-ID", "request_id_invalid", "X-Request-ID: 1 to 128 of A-Z a-z 0-9 -._~:/+=")


def oversized_query(asked: Asked) -> OrderError | None:
    """The refusal of a query that is too long, or None. It is counted and not parsed, as it may be as long as a
    request's head.
    """
    query: bytes = asked.scope["query_string"]
    if len(query) > MAX_QUERY_BYTES:
        message = f"The query has {len(query)} bytes; at most {MAX_QUERY_BYTES} are allowed."
        return invalid("query", "too_long", message)
    if query and (count := query.count(b"&") + 1) > MAX_PARAMETERS:
        return invalid("query", "too_many", f"There are {count} parameters; at most {MAX_PARAMETERS} are allowed.")
    return None


def oversized_body(asked: Asked) -> OrderError | None:
    """The refusal of a body that announces too large a size, or None. It stays unread, and the connection is closed
    after the answer.
    """
    if asked.method in _SAFE:
        return None
    announced, most = asked.headers.get(b"content-length", b"0"), asked.operation.max_body_bytes
    return body_too_large(most) if announced.isdigit() and int(announced[:20]) > most else None


def _count(asked: Asked, name: bytes) -> int:
    """How many headers have this name."""
    return [each for each, _ in asked.scope["headers"]].count(name)


def _is_cross_site(headers: dict[bytes, bytes], origin: str) -> bool:
    """Whether a page of another site sends this. Browsers send no `Sec-Fetch-Site` to a plain http address other than
    localhost. There, the page's origin has to be this host.
    """
    site = headers.get(b"sec-fetch-site")
    if site is None and origin:
        return origin.partition("://")[2] != headers.get(b"host", b"").decode("latin-1").lower()
    return site == b"cross-site"


def _without_port(host: str) -> str:
    """The name or the address in a Host header, without the port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
