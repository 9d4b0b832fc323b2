"""Requests from this machine itself, which need no credential until there is a key. Pure.

Each condition stops something: a reverse proxy or a sidecar on the same machine passes on requests of others, and a
page in a browser on this machine may call a name of its own that points here (DNS rebinding).
"""

from orders.wire.gate import Asked

_LOOPBACK = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
"""Addresses of the peer, as the server writes them. Sidecars of meshes use others of 127.0.0.0/8, like 127.0.0.6."""

_HOSTS = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
_OF_PROXIES = frozenset({b"forwarded", b"x-real-ip", b"via"})
_OF_PROXIES_BEGIN = b"x-forwarded-"
_CLOSE_OF_NGINX = ("1.0", b"close")
"""Version of HTTP and `Connection` header of nginx, if its configuration says no more than `proxy_pass`: then it sends
the address in there as the host, and none of the headers of proxies.
"""
_OWN_SITE = (None, b"same-origin", b"none")


def is_from_this_machine(asked: Asked) -> bool:
    """Whether somebody on this machine sends the request, and no proxy and no page of another site."""
    headers = asked.headers
    client = asked.scope.get("client")  # a proxy that talks to a Unix socket has no address
    return (
        client is not None
        and client[0] in _LOOPBACK
        and _without_port(headers.get(b"host", b"")).lower() in _HOSTS
        and _OF_PROXIES.isdisjoint(headers)
        and not any(name.startswith(_OF_PROXIES_BEGIN) for name in headers)
        and headers.get(b"sec-fetch-site") in _OWN_SITE
        and (asked.scope["http_version"], headers.get(b"connection")) != _CLOSE_OF_NGINX
    )


def _without_port(host: bytes) -> bytes:
    """The name or the address in a Host header, without its port."""
    return host.partition(b"]")[0] + b"]" if host.startswith(b"[") else host.partition(b":")[0]
