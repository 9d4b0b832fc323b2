"""The issuer's keys as they are known now: fetched in the background, kept while the issuer is away.

A request waits for a fetch only if no key is known, or if its token names an unknown one, and then at most for one
fetch, which all such requests share.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from math import inf

from pyreqwest.client import Client

from orders.access.issuer import Issuer, IssuerAway
from orders.access.jwks import KeySet

log = logging.getLogger(__name__)

REFRESH_S = 480.0
"""How old keys are when they are fetched anew in the background. They are older than ten minutes only while the issuer
is away.
"""

KEEP_S = 24 * 3600.0
"""How long keys are used while the issuer is away."""

UNKNOWN_KEY_S = 30.0
"""Minimum time between two fetches while keys are known. Tokens that name unknown keys can't cause more."""

NO_KEYS_S = 5.0
"""Minimum time between two fetches while no key is known."""


class IssuerKeys:
    """The keys of one issuer. `now` is a clock that only goes forward, in seconds."""

    def __init__(self, issuer: Issuer, now: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._now = now
        self._client: Client | None = None
        self._keys = KeySet(())
        self._fetched_at = -inf
        self._began_at = -inf
        self._fetching: asyncio.Task[None] | None = None
        self._told = ""

    def connect(self, client: Client) -> None:
        """Use this client from now on. Nothing is fetched without one."""
        self._client = client

    def current(self) -> KeySet | None:
        """The keys, or None if there are none that can be believed."""
        return self._keys if self._keys.keys and self._now() - self._fetched_at < KEEP_S else None

    async def look_again(self) -> None:
        """Fetch the keys, or wait for a fetch that is under way. Returns at once if the last one began not long ago."""
        if self._client and self._fetching is None and self._may_fetch():
            self._fetching = asyncio.create_task(self._fetch_once(self._client))
        if self._fetching is not None:
            await asyncio.shield(self._fetching)  # a request that is given up leaves the fetch to the others

    async def refresh_once(self) -> None:
        """Fetch the keys if they are old or missing. For the background."""
        if self.current() is None or self._now() - self._fetched_at >= REFRESH_S:
            await self.look_again()

    def _may_fetch(self) -> bool:
        pause_s = UNKNOWN_KEY_S if self.current() else NO_KEYS_S
        return self._now() - self._began_at >= pause_s

    async def _fetch_once(self, client: Client) -> None:
        self._began_at = self._now()
        try:
            self._keep(await self._issuer.key_set(client))
        except IssuerAway as why:
            self._tell(f"The keys of {self._issuer.name} can't be fetched: {why}.")
        finally:
            self._fetching = None

    def _keep(self, keys: KeySet) -> None:
        """Believe the issuer, even if it has no key any more: a key that it took back must not go on."""
        self._keys, self._fetched_at = keys, self._now()
        ignored = f" Ignored: {keys.ignored}." if keys.ignored else ""
        if keys.keys:
            self._tell(f"{self._issuer.name} has usable keys: {len(keys.keys)}.{ignored}", logging.INFO)
        else:
            self._tell(f"{self._issuer.name} has no usable key.{ignored}")

    def _tell(self, news: str, level: int = logging.WARNING) -> None:
        """One line in the log for each change, however often the fetch is repeated."""
        if news != self._told:
            self._told = news
            log.log(level, "%s", news)
