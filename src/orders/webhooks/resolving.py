"""The addresses of an endpoint's host, checked: nobody can have us send requests into the operator's own network.

A name is looked up by ourselves and the connection is made to an address that was checked. If the HTTP client looked it
up again, another answer could come (DNS rebinding).
"""

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from orders.webhooks.addresses import Address, Allowed, may_be_sent_to
from orders.webhooks.urls import Target

FRESH_S = 60.0
"""Time for which the addresses of a name are remembered."""

MAX_NAMES = 1_000
"""Maximum number of names whose addresses are remembered."""

LOOKUPS = 16
"""Maximum number of lookups at once. They have threads of their own: a name server may take half a minute."""


class NotSent(Exception):
    """Nothing was sent. `error` is why, as a short word."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class Resolver:
    """Looks up hosts. Several requests to a host share a lookup."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._found: dict[str, tuple[float, tuple[Address, ...]]] = {}
        self._looking: dict[str, asyncio.Future[tuple[Address, ...]]] = {}
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="webhook-names")

    def close(self) -> None:
        """Wait for no lookup."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def addresses(self, target: Target) -> tuple[Address, ...]:
        """The addresses of the target, each of which may be sent to. Raises NotSent."""
        addresses = (target.address,) if target.address else await self._look_up(target.host)
        if not may_be_sent_to(target.host, addresses, self._allowed):
            raise NotSent("address_not_allowed")
        if not target.is_https and not self._allowed.has(target.host, addresses):
            raise NotSent("https_required")
        return addresses

    async def _look_up(self, host: str) -> tuple[Address, ...]:
        at, addresses = self._found.get(host, (0.0, ()))
        if addresses and time.monotonic() < at + FRESH_S:
            return addresses
        if (looking := self._looking.get(host)) is None:
            looking = asyncio.ensure_future(self._ask(host))
            self._looking[host] = looking
            looking.add_done_callback(lambda done: self._note(host, done))
        return await asyncio.shield(looking)

    async def _ask(self, host: str) -> tuple[Address, ...]:
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._threads, _get_addresses, host)
        except (OSError, UnicodeError):
            raise NotSent("not_resolved") from None
        return tuple(dict.fromkeys(ip_address(row) for row in rows))

    def _note(self, host: str, done: asyncio.Future[tuple[Address, ...]]) -> None:
        del self._looking[host]
        if done.cancelled() or done.exception():
            return
        if len(self._found) >= MAX_NAMES:
            self._found.clear()
        self._found[host] = time.monotonic(), done.result()


def _get_addresses(host: str) -> list[str]:
    return [str(row[4][0]) for row in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
