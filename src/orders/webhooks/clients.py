"""HTTP clients for endpoints. Each connects to one address only, which was checked."""

import asyncio
from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder

from orders.webhooks.addresses import Address

MAX_CLIENTS = 200
"""Maximum number of clients that are kept. Making one costs 17 ms of CPU: it reads the certificates it trusts."""

IDLE_S = 4.0
"""Time for which an idle connection is kept. Many servers close it after 5 s."""

_Key = tuple[str, str, int]


class Clients:
    """The clients, by host, address and port. The one that was not used for longest is dropped first."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout = timedelta(seconds=timeout_s)
        self._clients: dict[_Key, asyncio.Task[Client]] = {}

    async def get(self, host: str, address: Address, port: int) -> Client:
        """The client that sends requests for the host to this address."""
        key = (host, str(address), port)
        if (made := self._clients.pop(key, None)) is None:
            made = asyncio.create_task(asyncio.to_thread(self._build, *key))
        self._clients[key] = made  # the last one now
        if len(self._clients) > MAX_CLIENTS:
            del self._clients[next(iter(self._clients))]  # requests that are under way keep it alive
        return await asyncio.shield(made)

    async def close(self) -> None:
        """Close all clients. Requests that are under way end with an error."""
        made, self._clients = list(self._clients.values()), {}
        for task in made:
            await (await task).close()

    def _build(self, host: str, address: str, port: int) -> Client:
        builder = ClientBuilder().timeout(self._timeout).pool_idle_timeout(timedelta(seconds=IDLE_S))
        builder = builder.no_proxy().follow_redirects(False).referer(False)
        # A small compressed reply could unpack to any size.
        builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)
        return builder.resolve(host, address, port).build()
