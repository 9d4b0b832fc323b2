"""The storm: faults, drawn by the run's seed one after the other, often several at once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from tests.chaos.processes import Neighbour, Process, World

Fault = Callable[[], Coroutine[Any, Any, None]]

FRAGILE_FROM_THE_START = 0.4
"""Chance that the neighbours mix up overlapping calls when a storm begins, so that short storms test that, too."""

LONGEST_SLOW_S = 1.0
LONGEST_LATE_S = 1.0
"""Maximum time until a PUT lands after it arrived, or was answered: less than the service's horizon."""


@dataclass
class Storm:
    """Draws a fault every `pause_s` on average. `lease_s` is the service's lease: some replicas sleep through it.

    The same seed gives the same faults at the same times. Their targets and durations depend on which processes run.
    """

    world: World
    seed: float
    pause_s: float
    lease_s: float
    counts: Counter[str] = field(default_factory=Counter)
    """Number of faults of each kind."""

    def __post_init__(self) -> None:
        self._kinds = random.Random(self.seed)
        self._deck: list[Fault] = []
        self._weathers: list[str] = []
        self.chance = random.Random(self._kinds.random())
        if self.chance.random() < FRAGILE_FROM_THE_START:
            self.counts["neighbours one at a time"] += 1
            self.world.catalog.one_at_a_time = self.world.carts.one_at_a_time = True

    @property
    def kills(self) -> int:
        """Number of processes that were killed, or stopped at once."""
        return sum(count for kind, count in self.counts.items() if kind.endswith(("killed", "stopped")))

    async def run(self, seconds: float) -> None:
        """Rage for `seconds`, and return when every fault has ended and everything is mended."""
        now = asyncio.get_running_loop().time
        ends_at = now() + seconds
        async with asyncio.TaskGroup() as faults:
            while (left_s := ends_at - now()) > (pause_s := self._kinds.expovariate(1 / self.pause_s)):
                await asyncio.sleep(pause_s)
                faults.create_task(self._draw()())
            await asyncio.sleep(left_s)
        await self.world.mend()

    async def strike_last(self) -> None:
        """Kill all replicas but one while many PUTs are under way. When this returns, nothing else is wrong."""
        await self.world.catalog.suffer(slow_s=0.3)
        await asyncio.sleep(1)
        for replica in self.world.replicas[1:]:
            self.counts["replica killed"] += 1
            replica.kill()
        await self.world.catalog.heal()

    def _draw(self) -> Fault:
        """The next card of a shuffled deck, so that no kind is left out for long."""
        deck = {
            self._kill_replica: 9,
            self._kill_all_replicas: 1,
            self._freeze_replica: 4,
            self._stop_database: 2,
            self._cut_connections: 1,
            self._kill_catalog: 2,
            self._kill_carts: 2,
            self._spoil_catalog: 8,
            self._spoil_carts: 2,
            self._change_etags: 1,
            self._change_manners: 1,
        }
        if not self._deck:
            self._deck = [fault for fault, count in deck.items() for _ in range(count)]
            self._kinds.shuffle(self._deck)
        return self._deck.pop()

    # Processes --------------------------------------------------------------------------------------------------

    async def _kill_replica(self) -> None:
        if replica := self._some_replica():
            await self._kill(replica, "replica killed")

    async def _kill_all_replicas(self) -> None:
        if all(replica.is_well for replica in self.world.replicas):
            await asyncio.gather(*(self._kill(replica, "replica killed") for replica in self.world.replicas))

    async def _kill_catalog(self) -> None:
        await self._kill(self.world.catalog.process, "catalog killed")

    async def _kill_carts(self) -> None:
        await self._kill(self.world.carts.process, "carts killed")

    async def _kill(self, process: Process, kind: str) -> None:
        if process.is_running:
            self.counts[kind] += 1
            async with self._amid_puts():
                process.kill()
            await asyncio.sleep(self.chance.uniform(0, 1.5))
            await self.world.restart(process)

    async def _freeze_replica(self) -> None:
        """Freeze a replica for a moment, or for longer than its lease: then others take over what it had begun."""
        if replica := self._some_replica():
            is_long = self.chance.random() < 0.7
            self.counts["replica frozen past its lease" if is_long else "replica frozen"] += 1
            async with self._amid_puts():
                replica.freeze()
            shortest_s, longest_s = (self.lease_s + 0.2, self.lease_s + 3) if is_long else (0.1, 2.0)
            await asyncio.sleep(self.chance.uniform(shortest_s, longest_s))
            replica.thaw()

    def _some_replica(self) -> Process | None:
        """A replica that is well, or None if half of them are not: a storm in which nothing happens shows nothing."""
        well = [replica for replica in self.world.replicas if replica.is_well]
        return self.chance.choice(well) if 2 * len(well) > len(self.world.replicas) else None

    @asynccontextmanager
    async def _amid_puts(self) -> AsyncIterator[None]:
        """Half the time, wait until PUTs are under way and take a while, so that a blow meets batches half-done."""
        if self.chance.random() < 0.5:
            yield
            return
        await self.world.catalog.suffer(slow_s=0.3)
        await asyncio.sleep(0.25)
        yield
        await self.world.catalog.heal()

    # The database -----------------------------------------------------------------------------------------------

    async def _stop_database(self) -> None:
        """Stop the database by `pg_ctl stop -m immediate`, or kill -9 of all its processes. Then it has to recover."""
        async with self.world.database_is_ours:
            is_killed = self.chance.random() < 0.3
            self.counts["database killed" if is_killed else "database stopped"] += 1
            async with self._amid_puts():
                await asyncio.to_thread(self.world.database.kill if is_killed else self.world.database.stop)
            await asyncio.sleep(self.chance.uniform(0, 2))
            await self.world.start_database()

    async def _cut_connections(self) -> None:
        async with self.world.database_is_ours:
            self.counts["database connections cut"] += 1
            await asyncio.to_thread(_cut, self.world.database.dsn)

    # The neighbours ---------------------------------------------------------------------------------------------

    async def _spoil_catalog(self) -> None:
        rate = self.chance.uniform(0.05, 0.7)
        late = {"late_rate": rate, "late_s": self.chance.uniform(0.1, LONGEST_LATE_S)}
        weathers = {
            "slow": {"slow_s": self.chance.uniform(0.02, LONGEST_SLOW_S)},
            "answering 500": {"error_rate": rate},
            "losing answers": {"lost_rate": rate},
            "late": late,
            "answering rubbish": {"rubbish_rate": rate},
            "all of it": {"slow_s": 0.03, "error_rate": 0.1, "lost_rate": 0.1, "rubbish_rate": 0.1, **late},
        }
        if not self._weathers:
            self._weathers = self.chance.sample(list(weathers), len(weathers))
        kind = self._weathers.pop()
        await self._spoil(self.world.catalog, f"catalog {kind}", weathers[kind])

    async def _spoil_carts(self) -> None:
        rate = self.chance.uniform(0.05, 0.7)
        weathers = {
            "slow": {"slow_s": self.chance.uniform(0.02, LONGEST_SLOW_S)},
            "answering 500": {"error_rate": rate},
            "losing answers": {"lost_rate": rate},
            "answering rubbish": {"rubbish_rate": rate},
        }
        kind = self.chance.choice(list(weathers))
        await self._spoil(self.world.carts, f"carts {kind}", weathers[kind])

    async def _spoil(self, neighbour: Neighbour, kind: str, faults: dict[str, float]) -> None:
        self.counts[kind] += 1
        await neighbour.suffer(**faults)
        await asyncio.sleep(self.chance.uniform(0.5, 4))
        await neighbour.heal()

    async def _change_etags(self) -> None:
        """Switch ETags on or off. Before they are switched off, changes from outside may land."""
        self.counts["ETags switched"] += 1
        catalog = self.world.catalog
        if catalog.etags:
            catalog.etags_since = None
            await asyncio.sleep(LONGEST_SLOW_S + LONGEST_LATE_S + 3)
        catalog.etags = not catalog.etags
        await catalog.heal()

    async def _change_manners(self) -> None:
        """Let the neighbours mix up overlapping calls, or stop doing it.

        The service has to find out the former by itself. It would find out the latter within a day, so it is told.
        """
        catalog, carts = self.world.catalog, self.world.carts
        self.counts["neighbours one at a time" if not catalog.one_at_a_time else "neighbours mended"] += 1
        catalog.one_at_a_time = carts.one_at_a_time = not catalog.one_at_a_time
        await catalog.heal()
        await carts.heal()
        if not catalog.one_at_a_time:
            async with self.world.database_is_ours:
                await asyncio.to_thread(_forgive, self.world.database.dsn)


def _forgive(dsn: str) -> None:
    connection = psycopg2.connect(dsn)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("UPDATE neighbours SET is_proven = true, wrong_count = 0, concurrency = 16")
    finally:
        connection.close()


def _cut(dsn: str) -> None:
    """End every other connection, in the middle of whatever it does."""
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
    finally:
        connection.close()
