"""Requests from this machine itself, which need no credential until there is a key. Pure.

Each condition stops something: a reverse proxy or a sidecar on the same machine passes on requests of others, and a
page in a browser on this machine may call a name of its own that points here (DNS rebinding).
"""

from ipaddress import ip_address

from orders.wire.gate import Asked

_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_OF_PROXIES = (b"forwarded", b"x-real-ip", b"via")
_OF_PROXIES_BEGIN = b"x-forwarded-"
_CLOSE_OF_NGINX = ("1.0", b"close")
"""Version of HTTP and `Connection` header of nginx, if its configuration says no more than `proxy_pass`: then it sends
the address in there as the host, and none of the headers of proxies.
"""
_OWN_SITE = (None, b"same-origin", b"none")


def is_from_this_machine(asked: Asked) -> bool:
    """Whether somebody on this machine sends the request, and no proxy and no page of another site."""
    return (
        _is_loopback(asked.scope.get("client"))
        and _host_of(asked) in _HOSTS
        and not any(name in _OF_PROXIES or name.startswith(_OF_PROXIES_BEGIN) for name in asked.headers)
        and asked.headers.get(b"sec-fetch-site") in _OWN_SITE
        and (asked.scope["http_version"], asked.headers.get(b"connection")) != _CLOSE_OF_NGINX
    )


def _is_loopback(client: tuple[str, int] | None) -> bool:
    """Whether the peer is 127.0.0.1 or ::1. Sidecars of meshes use others of 127.0.0.0/8, like 127.0.0.6. A proxy that
    talks to a Unix socket has no address.
    """
    if client is None:
        return False
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address) in ("127.0.0.1", "::1")


def _host_of(asked: Asked) -> str:
    """The host's name without its port."""
    host = asked.headers.get(b"host", b"").decode("latin-1").lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
