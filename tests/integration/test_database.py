"""Connections that break, and a database that falls silent: nobody waits for ever, and what is broken is replaced.
Work of one lane does not wait for another's, and a full disk is called by its name.
"""

import asyncio
import threading
from collections.abc import Iterator

import psycopg2
import pytest

from orders.postgres import database
from orders.postgres.database import Connection, Database, DatabaseUnavailable
from orders.postgres.lanes import Lane
from orders.postgres.unavailable import DatabaseBusy, DatabaseFull
from tests.servers import Wire

LANES = (Lane.PLACING, Lane.LISTS, Lane.READS)
"""Those that three threads are dealt out to."""


@pytest.fixture
def wire(dsn: str) -> Iterator[Wire]:
    wire = Wire(dsn)
    yield wire
    wire.close()


@pytest.fixture
def remote(dsn: str, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database at the other end of the wire, asked by three threads that have little patience."""
    monkeypatch.setattr(database, "PATIENCE_S", 3.0)
    remote = Database(psycopg2.extensions.make_dsn(dsn, host="127.0.0.1", port=wire.port, connect_timeout=2), threads=3)
    yield remote
    remote.close()


def ask(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


async def ask_with_every_thread(remote: Database) -> None:
    """Fails unless each of the three has an answer."""
    all_three = threading.Barrier(3, timeout=2)

    def ask_and_wait(connection: Connection) -> None:
        ask(connection)
        all_three.wait()

    await asyncio.gather(*(remote.run(ask_and_wait, lane) for lane in LANES))


async def test_after_one_silence_every_connection_is_replaced(remote: Database, wire: Wire) -> None:
    await ask_with_every_thread(remote)
    wire.fall_silent()
    with pytest.raises(DatabaseUnavailable):
        await remote.run(ask)
    wire.mend()
    await ask_with_every_thread(remote)  # those that were idle would have waited for an answer, too


async def test_threads_that_wait_in_silence_come_back(remote: Database, wire: Wire) -> None:
    await ask_with_every_thread(remote)
    wire.fall_silent()
    asked = [asyncio.create_task(remote.run(ask, lane)) for lane in LANES]
    await asyncio.sleep(0.1)
    asked[0].cancel()
    assert {type(end) for end in await asyncio.gather(*asked, return_exceptions=True)} == {
        DatabaseUnavailable,
        asyncio.CancelledError,
    }
    wire.mend()
    await asyncio.sleep(0.5)
    await ask_with_every_thread(remote)


async def test_while_one_thread_tries_to_connect_the_others_answer(remote: Database, wire: Wire) -> None:
    wire.fall_silent()
    with pytest.raises(DatabaseUnavailable, match="timeout expired"):
        await remote.run(ask)
    await asyncio.sleep(2 * database.RECONNECT_AFTER_S)
    trying = asyncio.create_task(remote.run(ask))
    await asyncio.sleep(0.1)
    with pytest.raises(DatabaseUnavailable, match="timeout expired"):
        await remote.run(ask, Lane.LISTS)
    assert not trying.done()
    with pytest.raises(DatabaseUnavailable):
        await trying


# Lanes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def local(dsn: str) -> Iterator[Database]:
    local = Database(dsn, threads=8)
    yield local
    local.close()


class Occupied:
    """Keeps every thread of a lane busy, and so many more calls waiting, until it is left."""

    def __init__(self, busy: Database, lane: Lane, waiting: int = 10) -> None:
        self._over = threading.Event()
        self._busy, self._lane = busy, lane
        self._calls = busy.threads_of(lane) + waiting

    async def __aenter__(self) -> None:
        begun = threading.Barrier(self._busy.threads_of(self._lane) + 1, timeout=10)

        def wait(connection: Connection, is_first: bool) -> None:
            if is_first:
                begun.wait()
            self._over.wait(20)

        first = self._busy.threads_of(self._lane)
        self._tasks = [
            asyncio.create_task(self._busy.run(lambda c, n=n: wait(c, n < first), self._lane))  # type: ignore[misc]
            for n in range(self._calls)
        ]
        await asyncio.to_thread(begun.wait)

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("busy", [lane for lane in Lane if lane is not Lane.HEALTH])
async def test_work_does_not_wait_for_that_of_another_lane(local: Database, busy: Lane) -> None:
    async with Occupied(local, busy):
        for lane in set(Lane) - {busy}:
            async with asyncio.timeout(8):  # those that occupy the lane wait for 20
                await local.run(ask, lane)
        await local.require_health()


async def test_with_one_thread_only_health_has_its_own(dsn: str) -> None:
    single = Database(dsn, threads=1)
    try:
        assert {single.threads_of(lane) for lane in Lane if lane not in (Lane.EVENTS, Lane.WEBHOOKS)} == {1}
        for lane in Lane:
            await single.run(ask, lane)
        async with Occupied(single, Lane.LISTS, waiting=0):
            await single.require_health()
            waiting = asyncio.create_task(single.run(ask, Lane.PLACING))
            await single.require_health()
            assert not waiting.done()
        await waiting
    finally:
        single.close()


async def test_work_for_which_no_thread_is_free_in_time_is_not_begun(
    local: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Occupied(local, Lane.LISTS):
        monkeypatch.setattr(database, "PATIENCE_S", 0.2)
        with pytest.raises(DatabaseBusy):
            await local.run(lambda c: pytest.fail("nobody waits for this"), Lane.LISTS)
        monkeypatch.undo()
    await local.run(ask, Lane.LISTS)


# A full disk, and what else is no broken connection ---------------------------------------------------------------


def raising(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{sqlstate}'; END $$"


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("53100", DatabaseFull),
        ("53200", DatabaseFull),
        ("55P03", DatabaseUnavailable),  # a lock was not to be had in time
        ("57014", DatabaseUnavailable),  # a statement took too long
        ("40P01", DatabaseUnavailable),  # a deadlock, and another one when it was tried again
    ],
)
async def test_what_is_about_the_statement_breaks_no_connection(
    local: Database, sqlstate: str, expected: type[Exception]
) -> None:
    def fail(connection: Connection) -> None:
        with connection.cursor() as cursor:
            cursor.execute(raising(sqlstate))

    before = await local.run(lambda c: c, Lane.HEALTH)
    with pytest.raises(DatabaseUnavailable) as told:
        await local.run(fail, Lane.HEALTH)
    assert type(told.value) is expected
    assert await local.run(lambda c: c, Lane.HEALTH) is before


async def test_after_a_full_disk_health_says_so_for_a_while(local: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await local.require_health()

    def fail(connection: Connection) -> None:
        with connection.cursor() as cursor:
            cursor.execute(raising("53100"))

    with pytest.raises(DatabaseFull):
        await local.run(fail)
    with pytest.raises(DatabaseFull):
        await local.require_health()
    monkeypatch.setattr(database, "FULL_FOR_S", 0.0)
    await local.require_health()


async def test_a_connection_that_the_server_ends_is_replaced(local: Database, dsn: str) -> None:
    def end_oneself(connection: Connection) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    before = await local.run(lambda c: c, Lane.HEALTH)
    with pytest.raises(DatabaseUnavailable):
        await local.run(end_oneself, Lane.HEALTH)
    assert await local.run(lambda c: c, Lane.HEALTH) is not before
