"""Requests from this machine itself, which need no credential until there is a key. Pure.

Each condition stops something: a reverse proxy or a sidecar on the same machine passes on requests of others, and a
page in a browser on this machine may call a name of its own that points here (DNS rebinding). A proxy that changes
nothing but the host can't be told from a program here: behind one, ORDERS_ACCESS has to be `closed`.
"""

import re

from orders.wire.gate import Asked

_LOOPBACK = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
"""Addresses of the peer, as the server writes them. Sidecars of meshes use others of 127.0.0.0/8, like 127.0.0.6."""

_HERE = rb"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?"
_HOST = re.compile(_HERE, re.IGNORECASE)
_PAGE = re.compile(rb"https?://" + _HERE + rb"(/.*)?", re.IGNORECASE | re.DOTALL)
_OF_PROXIES = frozenset({b"forwarded", b"x-real-ip", b"via"})
_OF_PROXIES_BEGIN = b"x-forwarded-"
_OWN_SITE = (None, b"same-origin", b"none")
_ONCE = (b"host", b"sec-fetch-site", b"origin", b"referer")
"""Headers that say where a request comes from. A second one could hide the first."""


def is_from_this_machine(asked: Asked) -> bool:
    """Whether somebody on this machine sends the request, and no proxy and no page of another site."""
    headers = asked.headers
    client = asked.scope.get("client")  # a proxy that talks to a Unix socket has no address
    return (
        client is not None
        and client[0] in _LOOPBACK
        and _HOST.fullmatch(headers.get(b"host", b"")) is not None
        and _OF_PROXIES.isdisjoint(headers)
        and not any(name.startswith(_OF_PROXIES_BEGIN) for name in headers)
        and headers.get(b"sec-fetch-site") in _OWN_SITE
        and all(_PAGE.fullmatch(headers[name]) for name in (b"origin", b"referer") if name in headers)
        and not _is_of_nginx(asked)
        and not _has_one_twice(asked)
    )


def _is_of_nginx(asked: Asked) -> bool:
    """Whether it looks like nginx up to 1.28 that is told no more than `proxy_pass`: it sends the address in
    there as the host, and none of the headers of proxies. Newer ones can't be recognised.
    """
    return asked.scope["http_version"] == "1.0" and b"close" in asked.headers.get(b"connection", b"").lower()


def _has_one_twice(asked: Asked) -> bool:
    sent = asked.scope["headers"]
    if len(sent) == len(asked.headers):
        return False
    names = [name for name, _ in sent]
    return any(names.count(name) > 1 for name in _ONCE)
