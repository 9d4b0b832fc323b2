"""How uvicorn serves the service, with the same bounds and messages from our commands and from `uvicorn main:app`."""

import socket
import sys
from typing import Any

import uvicorn

from orders.settings import Settings
from orders.wire.bounded_http import BoundedHttp
from orders.wire.connections import IDLE_S, connections_allowed


class PortTaken(Exception):
    """The server can't listen on this port. The message is for the person who starts the service."""


def require_free(host: str, port: int, how_else: str) -> None:
    """Raise PortTaken unless a server can listen on this port; `how_else` says how to choose another."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"Nothing can listen on {host}:{port} ({error.strerror}); choose another with {how_else}."
            ) from None


def options(settings: Settings) -> dict[str, Any]:
    """The options that `orders serve` and `orders dev` give to uvicorn."""
    return {
        "http": BoundedHttp,
        # Connections that wait in the kernel until we accept them need files too, all at once.
        "backlog": min(2048, connections_allowed(settings.orders_connections)),
        "timeout_keep_alive": int(IDLE_S),
        # Requests under way are answered by their deadline. After that there is nothing to wait for.
        "timeout_graceful_shutdown": int(settings.orders_request_deadline_s) + 2,
        "log_config": None,
        "access_log": False,
    }


def bound_connections(settings: Settings) -> None:
    """Set the maximum number of connections of a server in this process. Raises SettingsError if it is too high."""
    BoundedHttp.most = connections_allowed(settings.orders_connections)


def bound_uvicorn() -> None:
    """Make every server of this process use our protocol, and say in a sentence that its port is taken.

    This is for `uvicorn main:app`, whose command line chooses another protocol. A worker makes that choice before it
    imports us, so setting the class would be too late. But uvicorn asks its Config anew for each connection. `--http
    h11` is served by httptools as well.
    """
    uvicorn.Config.http_protocol_class = property(_protocol, _choose_protocol)  # type: ignore[assignment]
    if uvicorn.Server.startup is not _startup:
        uvicorn.Server.startup = _startup  # type: ignore[assignment,method-assign]


def _protocol(config: uvicorn.Config) -> type:
    chosen: type = vars(config)["http_protocol_class"]
    return chosen if issubclass(chosen, BoundedHttp) else BoundedHttp


def _choose_protocol(config: uvicorn.Config, chosen: type) -> None:
    vars(config)["http_protocol_class"] = chosen


_startup_of_uvicorn = uvicorn.Server.startup


async def _startup(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
    config = server.config
    if sockets is None and config.uds is None and config.fd is None and config.port:
        try:
            require_free(config.host, config.port, "--port")
        except PortTaken as taken:
            sys.exit(str(taken))
    await _startup_of_uvicorn(server, sockets)
