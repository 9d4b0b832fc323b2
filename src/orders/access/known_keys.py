"""API keys as requests meet them: verified ones are held in memory, so that most requests wait for nothing.

A key is held for 5 s after it was read, and read again in the background while it is in use. So a revocation holds in
every replica within 5 s, and a database that is away stops even known keys after that time.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from orders.access.granting import understood
from orders.access.keys import LENGTH, PREFIX, has_digest, id_of, is_key
from orders.access.keys_sql import UsableKey, any_exist, find_usable, touch_used
from orders.access.uses import Uses
from orders.coalescing import Coalescer
from orders.postgres.database import Database, DatabaseUnavailable
from orders.postgres.lanes import Lane
from orders.principal import Principal, PrincipalKind, Scope, Seer

HOLD_S = 5.0
"""How long a key, and that there is none, is believed after it was read. A revocation holds within this time."""

READ_AGAIN_S = 60.0
"""How long after its last use a key is read again in the background. Later, the next use reads it."""

LOOK_UP_PAUSE_S = 0.02
"""Pause between two queries for unknown keys, each of up to 200. It bounds what a flood of wrong keys costs."""

MAX_REFUSED = 10_000
"""Maximum number of wrong keys that are remembered, so that they are not looked up again. Some two megabytes."""


@dataclass(slots=True)
class _Held:
    """A key that was read, and until when (monotonic) it may be used without another look."""

    digest: bytes
    principal: Principal
    until: float


class KnownKeys:
    """The credentials of API keys. Before `open` every key is answered with DatabaseUnavailable.

    A key that another replica has just made is found at its first use, because a look-up asks the database.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._database: Database | None = None
        self._held: dict[str, _Held] = {}
        self._refused: dict[str, float] = {}
        self._uses = Uses()
        self._any_exist, self._none_until = False, -math.inf
        self._next_look_up = -math.inf
        # One query at a time: however many ask, keys occupy one thread of the database.
        self._by_id: Coalescer[str, _Held] = Coalescer(self._look_up_all, parallel=1)
        self._whether_any: Coalescer[str, bool] = Coalescer(self._read_whether_any, parallel=1)

    async def open(self, database: Database) -> None:
        """Begin to look into this database."""
        self._database = database
        with contextlib.suppress(DatabaseUnavailable):  # the rounds try again
            await self._read_whether_any()

    @property
    def database(self) -> Database:
        """The database that was opened. Raises DatabaseUnavailable before."""
        if self._database is None:
            raise DatabaseUnavailable("the service has not started yet")
        return self._database

    def is_one(self, text: str) -> bool:
        """Whether the text begins like a key."""
        return text.startswith(PREFIX)

    def find(self, text: str) -> Principal | Awaitable[Principal | None] | None:
        """The principal of a key, or None if it is wrong, expired or revoked. Awaitable if the key is not known."""
        if len(text) != LENGTH:
            return None
        key_id, now = id_of(text), self._clock()
        held = self._held.get(key_id)
        if held is not None and now < held.until:
            return self._use(key_id, held, text)
        if self._refused.get(key_id, now) > now or not is_key(text):
            return None
        return self._look_up(text)

    def exist(self) -> bool | Awaitable[bool]:
        """Whether a key was ever made. Awaitable if nobody has looked for 5 s."""
        if self._any_exist or self._clock() < self._none_until:
            return self._any_exist
        return self._ask_whether_any()

    def note_made(self) -> None:
        """A key was made through this process: from now on there is one."""
        self._any_exist = True

    def note_ended(self, key_id: str) -> None:
        """A key was revoked or replaced through this process: look again at its next use."""
        self._held.pop(key_id, None)

    async def look_once(self) -> None:
        """Read the keys in use again, and whether there is any; write which were used. Raises DatabaseUnavailable."""
        now = self._clock()
        self._uses.forget_old(now)
        if not self._any_exist:
            await self._read_whether_any()
        if in_use := self._uses.since(now - READ_AGAIN_S):
            await self._read(in_use)
        self._held = {key_id: held for key_id, held in self._held.items() if held.until > now}
        if used := self._uses.to_write(now):
            await self.database.run(lambda c: touch_used(c, used), Lane.CHANGES)
            self._uses.written(used, now)

    def _use(self, key_id: str, held: _Held, text: str) -> Principal | None:
        if not has_digest(text, held.digest):
            return None
        self._uses.used_at[key_id] = self._clock()
        return held.principal

    async def _look_up(self, text: str) -> Principal | None:
        held = await self._by_id.get(id_of(text))
        return None if held is None else self._use(id_of(text), held, text)

    async def _look_up_all(self, key_ids: Sequence[str]) -> dict[str, _Held]:
        await asyncio.sleep(max(0.0, self._next_look_up - self._clock()))
        try:
            return await self._read(key_ids)
        finally:
            self._next_look_up = self._clock() + LOOK_UP_PAUSE_S

    async def _read(self, key_ids: Sequence[str]) -> dict[str, _Held]:
        """Read these keys, and hold those that can be used."""
        began_at = self._clock()
        usable = await self.database.run(lambda c: find_usable(c, key_ids), Lane.READS)
        found = {key.id: _held(key, began_at) for key in usable}
        for key_id in key_ids:
            if key_id in found:
                self._held[key_id] = found[key_id]
            else:
                self._held.pop(key_id, None)
                self._refuse(key_id, began_at + HOLD_S)
        return found

    def _refuse(self, key_id: str, until: float) -> None:
        self._refused.pop(key_id, None)  # so that the newest are the last
        while len(self._refused) >= MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[key_id] = until

    async def _ask_whether_any(self) -> bool:
        return bool(await self._whether_any.get("any"))

    async def _read_whether_any(self, _: Sequence[str] = ()) -> dict[str, bool]:
        began_at = self._clock()
        if await self.database.run(any_exist, Lane.READS):
            self._any_exist = True  # for good: revoked keys count, too
        self._none_until = began_at + HOLD_S
        return {"any": self._any_exist}


def _held(key: UsableKey, began_at: float) -> _Held:
    """The key as it is held: never beyond its expiry. `began_at`: a moment before it was read."""
    until = began_at + min(HOLD_S, math.inf if key.expires_in_s is None else key.expires_in_s)
    return _Held(key.digest, principal_of_key(key), until)


def principal_of_key(key: UsableKey) -> Principal:
    """The principal that a key stands for. Scopes of newer versions are left out."""
    scopes = understood(key.scopes)
    return Principal(
        kind=PrincipalKind.KEY,
        name=f"key:{key.name}",
        owner=f"key:{key.family}",
        scopes=scopes,
        seer=Seer(channel=key.channel, sees_private=Scope.CUSTOMERS_READ in scopes),
        rate=key.rate,
    )
