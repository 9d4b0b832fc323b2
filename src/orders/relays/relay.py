"""A relay: events go from the feed to a broker. It moves on only when the broker has acknowledged them.

Each event arrives at least once. Of one order, no event arrives before an earlier one has: what is sent at once has one
event of each order, and what may have been sent is sent again before anything later.
"""

import asyncio
import contextlib
import logging
from uuid import uuid4

from orders.events.feed import Positions
from orders.order.statuses import Workflow
from orders.postgres.database import Database, DatabaseUnavailable
from orders.postgres.lanes import Lane
from orders.relays.event import runs
from orders.relays.outage import Outage
from orders.relays.relays_sql import LEASE_S, Batch, Taker, is_well, let_go, record, set_position, take
from orders.relays.sink import PUBLISH_S, BrokerAway, Sink
from orders.settings.relays import Target

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""Maximum pause between two looks for new events. News of the feed in this process ends it."""

OTHERS_S = 2.0
"""Pause between two looks whether the replica that relays still does."""


class Relay:
    """The relay to one broker in this process. One process relays at a time; the others look whether it still does.

    `source`: what CloudEvents name as their source.
    """

    def __init__(
        self, database: Database, positions: Positions, workflow: Workflow, target: Target, sink: Sink, source: str
    ) -> None:
        self.target = target
        self._taker = Taker(target.name, target.digest, uuid4(), workflow, source)
        self._database = database
        self._positions = positions
        self._sink = sink
        self._outage = Outage()
        self._is_connected = False

    async def relay_once(self) -> bool:
        """Relay the next events. Returns whether there may be more.

        If there are none, it waits for news, but not for long; if the broker is away, until it is time to try again.
        Raises DatabaseUnavailable.
        """
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._outage.due_at - clock()))
        news, lease_ends_at = self._positions.news, clock() + LEASE_S
        batch = await self._database.run(lambda c: take(c, self._taker), Lane.RELAYS)
        if batch is None:
            await self._look_on()
            return False
        if batch.moved_from is not None:
            log.warning("relay %s goes on at another address, from position %d", self.target.name, batch.begin)
        if batch.end == batch.begin:
            await _wait(news)
            return False
        return await self._publish(batch, lease_ends_at)

    async def go_on_after(self, position: int) -> None:
        """Relay what comes after this position, whoever relays. Raises DatabaseUnavailable."""
        await self._database.run(lambda c: set_position(c, self._taker, position), Lane.RELAYS)

    async def close(self) -> None:
        """Let another replica relay, and close the connection to the broker."""
        with contextlib.suppress(DatabaseUnavailable):
            await self._database.run(lambda c: let_go(c, self._taker), Lane.RELAYS)
        await self._disconnect()

    async def _look_on(self) -> None:
        """Wait while another replica relays."""
        await self._disconnect()
        if self._outage.count and await self._database.run(lambda c: is_well(c, self.target.name), Lane.RELAYS):
            self._tell_of_the_end()
        await asyncio.sleep(OTHERS_S)

    async def _publish(self, batch: Batch, lease_ends_at: float) -> bool:
        """Publish the events run by run, while the lease lasts. Raises DatabaseUnavailable."""
        clock = asyncio.get_running_loop().time
        reached = batch.begin
        try:
            for run in runs(batch.events):
                if clock() + PUBLISH_S > lease_ends_at:
                    break
                self._is_connected = True
                await self._sink.publish(run)
                reached = run[-1].position
            else:
                reached = batch.end
        except BrokerAway as error:
            await self._rest(str(error), reached)
            return True
        self._tell_of_the_end()
        await self._database.run(lambda c: record(c, self._taker, reached), Lane.RELAYS)
        return True

    def _tell_of_the_end(self) -> None:
        if (away_s := self._outage.end(asyncio.get_running_loop().time())) is not None:
            log.warning("relay %s: the broker is back after %.0f s", self.target.name, away_s)

    async def _rest(self, why: str, reached: int) -> None:
        """Note that the broker is away. Any replica may try next."""
        if self._outage.fail(asyncio.get_running_loop().time()):
            log.warning(
                "relay %s: the broker %s is away, %d times in a row by now; nothing is lost: %s",
                self.target.name,
                self.target.shown,
                self._outage.count,
                why,
            )
        await self._disconnect()
        await self._database.run(lambda c: record(c, self._taker, reached), Lane.RELAYS)
        await self._database.run(lambda c: let_go(c, self._taker, why), Lane.RELAYS)

    async def _disconnect(self) -> None:
        if self._is_connected:
            self._is_connected = False
            await self._sink.close()


async def _wait(news: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_S):
            await news.wait()
