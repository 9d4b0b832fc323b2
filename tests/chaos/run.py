"""One run: everything is started, the load and the storm meet, then it is quiet, then there is a verdict."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import evidence as gather
from tests.chaos import witness
from tests.chaos.credentials import Credentials, settings_of_access
from tests.chaos.evidence import Evidence, Quiet
from tests.chaos.http import Http
from tests.chaos.load import Load
from tests.chaos.outside import Outside
from tests.chaos.processes import World, running_world
from tests.chaos.reader import Reader
from tests.chaos.report import Report, machine
from tests.chaos.shelf import Shelf, fill_shelf
from tests.chaos.storm import LONGEST_LATE_S, LONGEST_SLOW_S, Storm
from tests.chaos.verdict import judge

DEADLINE_S, LEASE_S, TIMEOUT_S, RECOVERY_S = 2.5, 4.0, 0.8, 0.4
HORIZON_S = LONGEST_SLOW_S + LONGEST_LATE_S + 0.5
"""The service's horizon: longer than a PUT can take here, from when its sender gives up on it."""

SETTINGS = {
    "ORDERS_REQUEST_DEADLINE_S": str(DEADLINE_S),
    "ORDERS_LEASE_S": str(LEASE_S),
    "ORDERS_WRITE_HORIZON_S": str(HORIZON_S),
    "ORDERS_NEIGHBOUR_TIMEOUT_S": str(TIMEOUT_S),
    "ORDERS_RECOVERY_INTERVAL_S": str(RECOVERY_S),
    "ORDERS_BREAKER_REST_S": "0.5",
}
WAIT_S = 120.0
_LEFT = """
    SELECT (SELECT count(*) FROM orders WHERE status = 'Pending') + (SELECT count(*) FROM stock_claims)
         + (SELECT count(*) FROM order_events) - (SELECT count(*) FROM events)
         + (SELECT count(*) FROM stock_returns WHERE returned_at IS NULL) + (SELECT count(*) FROM cart_closings)
"""


@dataclass(frozen=True)
class Wish:
    """The options of the command line."""

    minutes: float
    seed: int
    rate: float
    replicas: int
    pause_s: float
    slack_s: float


async def run(wish: Wish, folder: Path, say: Callable[[str], None]) -> Report:
    """Run everything. `say` gets a line about the progress now and then. Logs and data are in `folder`."""
    began_at = time.monotonic()
    chance = random.Random(wish.seed)
    with settings_of_access() as access:
        async with running_world(folder, wish.replicas, {**SETTINGS, **access}) as world:
            return await _run_in(world, wish, chance, folder, say, began_at)


async def _run_in(
    world: World, wish: Wish, chance: random.Random, folder: Path, say: Callable[[str], None], began_at: float
) -> Report:
    witness.install(world.database.dsn)
    credentials = Credentials(world.database.dsn)
    shelf = await fill_shelf(world.catalog.http, world.catalog.process.url, chance)
    storm = Storm(world, chance.random(), wish.pause_s, LEASE_S)
    load = Load(
        world.replicas,
        world.carts.process.url,
        credentials,
        shelf,
        chance.random(),
        wish.rate,
        patience_s=DEADLINE_S + 1.5,
    )
    reader = Reader(world.replicas, credentials, random.Random(wish.seed))
    rotating = asyncio.create_task(credentials.rotate_forever())
    quiet = await _rage(world, shelf, storm, load, reader, wish, say)
    rotating.cancel()
    for replica in world.replicas:
        await asyncio.to_thread(replica.stop)
    evidence = await _gather(world, shelf, load, reader, quiet)
    gather.save(evidence, folder)
    took_s = time.monotonic() - began_at
    return _report(wish, took_s, evidence, world, shelf, storm, load, folder)


async def _rage(
    world: World, shelf: Shelf, storm: Storm, load: Load, reader: Reader, wish: Wish, say: Callable[[str], None]
) -> Quiet:
    """Run the load and the storm. Returns how long it took afterwards until nothing was left to do."""
    seconds = wish.minutes * 60
    outside = Outside(shelf, world.catalog, world.database.dsn, random.Random(wish.seed))
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        reading = group.create_task(reader.run())
        watching = group.create_task(world.watch())
        telling = group.create_task(_tell(seconds, storm, load, say))
        filling = group.create_task(outside.run())
        await storm.run(seconds)
        outside.finish()
        async with asyncio.timeout(WAIT_S):
            await filling
        await storm.strike_last()
        load.close_doors()
        telling.cancel()
        quieting = group.create_task(_quieten(world.database.dsn, wish.slack_s))
        await world.mend()
        await quieting
        reader.finish()
        async with asyncio.timeout(WAIT_S):
            await reading
        watching.cancel()
    return quieting.result()


async def _tell(seconds: float, storm: Storm, load: Load, say: Callable[[str], None]) -> None:
    began_at = time.monotonic()
    while True:
        passed_s = time.monotonic() - began_at
        say(
            f"{_clock(passed_s)} of {_clock(seconds)}: {len(load.shoppers):,} customers, {load.placed_count:,} orders, "
            f"{storm.kills} kills, {sum(storm.counts.values())} faults"
        )
        await asyncio.sleep(1)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


async def _quieten(dsn: str, slack_s: float) -> Quiet:
    """Wait until the service has nothing left to do."""
    began_at = time.time()
    pending = [order_id for (order_id,) in gather.ask(dsn, "SELECT id::text FROM orders WHERE status = 'Pending'")]
    while (passed_s := time.time() - began_at) < WAIT_S:
        left = await asyncio.to_thread(gather.ask, dsn, _LEFT)
        if left == [(0,)]:
            return Quiet(began_at, pending, passed_s, LEASE_S + HORIZON_S + slack_s)
        await asyncio.sleep(0.1)
    return Quiet(began_at, pending, None, LEASE_S + HORIZON_S + slack_s)


async def _gather(world: World, shelf: Shelf, load: Load, reader: Reader, quiet: Quiet) -> Evidence:
    dsn, catalog_url, http = world.database.dsn, world.catalog.process.url, Http("the verdict")
    try:
        return Evidence(
            initial=shelf.initial,
            put_in=shelf.put_in,
            contested=frozenset(shelf.contested),
            final=await gather.read_stock(http, catalog_url),
            shoppers=load.shoppers,
            orders=gather.read_orders(dsn),
            returns=gather.read_returns(dsn),
            drifted=gather.read_drifted(dsn),
            keys=gather.read_keys(dsn),
            open_carts=await gather.read_open_carts(http, world.carts.process.url),
            claims=gather.read_claims(dsn),
            carried=gather.read_carried(dsn),
            puts=await gather.read_journal(http, catalog_url),
            catalog_killed_at=world.catalog.process.killed_at,
            sleeps=[sleep for replica in world.replicas for sleep in replica.slept],
            quiet=quiet,
            events=gather.read_events(dsn),
            feed=reader.events,
            feed_refusals=reader.refusals,
        )
    finally:
        await http.close()


def _report(
    wish: Wish, took_s: float, evidence: Evidence, world: World, shelf: Shelf, storm: Storm, load: Load, folder: Path
) -> Report:
    placed = [order for order in evidence.orders if order.is_placed]
    return Report(
        seed=wish.seed,
        minutes=wish.minutes,
        took_s=round(took_s),
        replicas=wish.replicas,
        rate=wish.rate,
        machine=f"{machine()}, PostgreSQL {gather.ask(world.database.dsn, 'SHOW server_version')[0][0]}",
        shoppers=len(evidence.shoppers),
        placed=len(placed),
        answers=dict(load.answers),
        cancelled=sum(order.status == "Cancelled" for order in placed),
        restocks=shelf.restock_count,
        edits=shelf.edit_count,
        kills=storm.kills,
        faults=dict(storm.counts),
        deaths=world.deaths,
        drifts=len(evidence.drifted),
        log_errors=_errors_in(folder),
        rows=judge(evidence),
    )


def _errors_in(folder: Path) -> list[str]:
    """The last line of every stack trace in the processes' logs, without duplicates."""
    found: set[str] = set()
    for path in folder.glob("*.log"):
        is_inside = False
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("Traceback"):
                is_inside = True
            elif is_inside and line and not line.startswith(" "):
                found.add(f"{path.stem}: {line[:200]}")
                is_inside = False
    return sorted(found)
