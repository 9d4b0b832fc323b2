"""Connections that break, and a database that falls silent: nobody waits for ever, and what is broken is replaced."""

import asyncio
import threading
from collections.abc import Iterator

import psycopg2
import pytest

from orders import database
from orders.database import Connection, Database, DatabaseUnavailable
from tests.servers import Wire


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

    await asyncio.gather(*(remote.run(ask_and_wait) for _ in range(3)))


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
    asked = [asyncio.create_task(remote.run(ask)) for _ in range(3)]
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
        await remote.run(ask)
    assert not trying.done()
    with pytest.raises(DatabaseUnavailable):
        await trying
