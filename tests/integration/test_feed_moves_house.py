"""The feed goes on where the database goes on: restored into another cluster, or on a standby that was promoted."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2.extensions
import pytest

from orders.events.assign_sql import assign
from orders.postgres import database
from orders.postgres.database import connect
from orders.startup import install_functions
from tests import servers
from tests.conftest import ask, debian_cluster, execute
from tests.integration.test_assigning import assign_all, check, feed, make_orders, touch

Start = Callable[[], servers.Cluster]


@pytest.fixture(params=["embedded", "debian"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """What starts another cluster of the same binaries."""
    started: list[servers.Cluster] = []

    def begin() -> servers.Cluster:
        if request.param == "embedded":
            cluster = servers.Cluster(servers.EMBEDDED)
            cluster.initialize()
        else:
            cluster = debian_cluster()
        started.append(cluster)
        cluster.start(fsync="off")
        return cluster

    yield begin
    for cluster in started:
        cluster.remove()


def burn(dsn: str, count: int) -> None:
    """Use up transaction numbers."""
    with contextlib.closing(connect(dsn)) as connection:
        ask(connection, f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")


def dump(cluster: servers.Cluster, dsn: str) -> bytes:
    program = cluster._binaries / "pg_dump"
    program = program if program.exists() else Path("/usr/lib/postgresql/15/bin/pg_dump")
    return subprocess.run([program, "-Fc", "-d", dsn], capture_output=True, check=True).stdout


@pytest.mark.parametrize(("old", "new"), [(3000, 0), (0, 3000)], ids=["to fewer", "to more"])
def test_a_restored_database_goes_on_with_the_transactions_of_its_new_server(start: Start, old: int, new: int) -> None:
    """Those numbers have nothing to do with the ones in the dump: smaller, or larger."""
    here, there = start(), start()
    database.migrate(here.dsn)
    install_functions(here.dsn)
    burn(here.dsn, old)
    burn(there.dsn, new)
    with contextlib.closing(connect(here.dsn)) as connection:
        orders = make_orders(connection, 30, events=3)
        assign_all(connection)
        known = feed(connection)
        for order in orders[:10]:
            touch(connection, order)  # these have no position when the dump is made
        text = dump(here, here.dsn)
    subprocess.run([here._binaries / "pg_restore", "--no-owner", "-d", there.dsn], input=text, check=True)
    with contextlib.closing(connect(there.dsn)) as connection:
        install_functions(there.dsn)
        touch(connection, orders[0])
        touch(connection, orders[20])
        assign_all(connection)
        assert feed(connection)[: len(known)] == known
        for order in orders:
            touch(connection, order)
        assign_all(connection)
        check(connection)


def test_a_promoted_standby_goes_on(start: Start, tmp_path: Path) -> None:
    here = start()
    there = servers.Cluster(here._binaries)
    try:
        database.migrate(here.dsn)
        install_functions(here.dsn)
        with contextlib.closing(connect(here.dsn)) as connection:
            orders = make_orders(connection, 20, events=2)
            assign_all(connection)
            there.copy(here.dsn)
            there.start(fsync="off")
            with contextlib.closing(psycopg2.connect(here.dsn)) as unfinished:
                touch(unfinished, orders[0])
                for order in orders[1:]:
                    touch(connection, order)
                assign_all(connection)
                touch(connection, orders[1])  # without a position
                known = feed(connection)
                ((written,),) = ask(connection, "SELECT pg_current_wal_flush_lsn()")
                _wait_for(there.dsn, written)
                assert feed_of(there.dsn) == known  # a standby has it, too
                here.kill()
        there.promote()
        with contextlib.closing(connect(there.dsn)) as connection:
            touch(connection, orders[0])
            done = assign(connection)
            assert done is not None
            assert not done.is_walking
            assert done.given == 2
            assert feed(connection)[: len(known)] == known
            check(connection)
    finally:
        there.remove()


def feed_of(dsn: str) -> list[object]:
    with contextlib.closing(connect(dsn)) as connection:
        return list(feed(connection))


def _wait_for(dsn: str, place: str) -> None:
    while not execute(dsn, "SELECT pg_last_wal_replay_lsn() >= %s", (place,))[0][0]:
        pass
