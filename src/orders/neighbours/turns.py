"""Turns of the replicas at a neighbour that can't take two calls at once: a lease in the database.

The lease costs one statement now and then while calls go on, and one when they stop. Neighbours that can take more are
called without it.
"""

import asyncio
import logging
import random

from uuid_utils.compat import uuid7

from orders.neighbours.learnt_sql import Key, pass_turn, take_turn
from orders.postgres.database import Database, DatabaseUnavailable

log = logging.getLogger(__name__)

TURN_S = 0.2
"""How long a replica keeps calling before another one that waits gets the turn."""

POLL_S = 0.015
"""Pause between two polls of a replica that waits: about as long as one call."""

LINGER_S = 0.02
"""How long an idle replica keeps its turn: an order's next call follows a commit of ours."""

MARGIN_S = 1.0
"""How much longer than one call a lease lasts, so that many calls need one statement."""


class Turns:
    """One replica's turns at one neighbour. `call_s`: maximum duration of one call."""

    def __init__(self, database: Database, key: Key, call_s: float) -> None:
        self._database = database
        self._key = key
        self._me = uuid7()
        self._call_s = call_s
        self._lease_until = -float("inf")
        self._began_at = 0.0
        self._under_way = 0
        self._asking = asyncio.Lock()
        self._passing: asyncio.Task[None] | None = None

    async def enter(self) -> None:
        """Wait until a call may be made. Each `enter` needs its `leave`. Raises DatabaseUnavailable."""
        async with self._asking:
            while not await self._is_ours():  # noqa: ASYNC110 (no event can tell: another process has it)
                await asyncio.sleep(POLL_S * random.uniform(0.5, 1.5))  # noqa: S311 (a pause is no secret)
            self._under_way += 1

    def leave(self) -> None:
        """Note that a call has ended. The turn is passed on if no other call follows."""
        self._under_way -= 1
        if not self._under_way and (self._passing is None or self._passing.done()):
            self._passing = asyncio.create_task(self._pass_when_idle())

    async def close(self) -> None:
        """Pass the turn on at once."""
        if self._passing:
            self._passing.cancel()
        await self._pass(only_if_wanted=False)

    async def _is_ours(self) -> bool:
        now = asyncio.get_running_loop().time()
        if not self._under_way and self._lease_until > now and now > self._began_at + TURN_S:
            await self._pass(only_if_wanted=True)
            self._began_at = now
        if self._lease_until >= now + self._call_s:
            return True
        is_new = self._lease_until < now
        lease_s = self._call_s + MARGIN_S
        is_ours = await self._database.run(lambda c: take_turn(c, self._key, self._me, lease_s, 4 * POLL_S))
        # Measured before the statement is sent: our copy of the lease ends earlier than PostgreSQL's.
        self._lease_until = now + lease_s if is_ours else -float("inf")
        self._began_at = now if is_new else self._began_at
        return is_ours

    async def _pass(self, *, only_if_wanted: bool) -> None:
        lease_until, self._lease_until = self._lease_until, -float("inf")  # unknown until the answer is there
        if lease_until < asyncio.get_running_loop().time():
            return
        if not await self._database.run(lambda c: pass_turn(c, self._key, self._me, only_if_wanted=only_if_wanted)):
            self._lease_until = lease_until if only_if_wanted else -float("inf")
        else:
            await asyncio.sleep(2 * POLL_S if only_if_wanted else 0)  # the replica that waits polls meanwhile

    async def _pass_when_idle(self) -> None:
        try:
            await asyncio.sleep(LINGER_S)
            async with self._asking:
                if not self._under_way:
                    await self._pass(only_if_wanted=False)
        except DatabaseUnavailable as error:
            log.info("the turn at the %s could not be passed on, and ends with its lease: %s", self._key.name, error)
