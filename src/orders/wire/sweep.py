"""The open connections of each server of this process, and the clock that ends those whose time is over."""

import asyncio
import logging
from typing import Protocol
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.server import ServerState

from orders.wire.connections import IDLE_S, Connections

log = logging.getLogger(__name__)

SWEEP_S = 0.5
"""Pause between two searches for connections whose time is over."""

REPORT_S = 10.0
"""Minimum pause between two log lines about closed connections. A line has the reasons and their counts."""

_UVICORNS_KEEP_ALIVE_S = 5
"""Default of uvicorn for `timeout_keep_alive`: any other value was asked for."""

_servers: "WeakKeyDictionary[ServerState, Connections]" = WeakKeyDictionary()


class OfServer(Protocol):
    """What a connection knows of its server."""

    most: int
    config: Config
    server_state: ServerState
    loop: asyncio.AbstractEventLoop


def connections_of(one: OfServer) -> Connections:
    """The connections of the server that `one` belongs to. The first call starts their sweeps."""
    connections = _servers.get(one.server_state)
    if connections is None:
        given_s = one.config.timeout_keep_alive
        idle_s = IDLE_S if given_s == _UVICORNS_KEEP_ALIVE_S else given_s
        connections = _servers[one.server_state] = Connections(one.most, idle_s)
        _sweep(connections, one.loop, one.loop.time())
    return connections


def _sweep(connections: Connections, loop: asyncio.AbstractEventLoop, reported_at: float) -> None:
    now = loop.time()
    connections.sweep(now)
    if connections.closed and now >= reported_at + REPORT_S:
        counts = ", ".join(f"{count} {reason.value}" for reason, count in connections.closed.items())
        log.warning("connections were closed: %s; %d are open", counts, connections.count)
        connections.closed.clear()
        reported_at = now
    loop.call_later(SWEEP_S, _sweep, connections, loop, reported_at)
