"""Whoever asks for what is slow waits; placing, orders by ID and `/health` do not. And a full disk is told."""

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from orders.finding.answers import TOTAL_HINT
from orders.postgres.database import Connection
from tests.conftest import Reply, Sandbox, ask, execute, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_contract import problem
from tests.made_up import make_up

_customers = itertools.count(int(time.time()) + 80_000_000)


@contextlib.contextmanager
def locked(dsn: str, table: str) -> Iterator[None]:
    """Nobody can read this table meanwhile."""
    with contextlib.closing(psycopg2.connect(dsn)) as lock:
        lock.cursor().execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


def test_health_answers_at_once_while_every_other_thread_waits(service: Service, sandbox: Sandbox, dsn: str) -> None:
    order = service.place(next(_customers), (sandbox.product(99), 1)).body["id"]
    calls: list[Callable[[], Reply]] = [
        lambda: service.get("/orders?limit=1"),
        lambda: service.get(f"/orders/{order}"),
        lambda: service.get(f"/orders/{order}/events"),
        lambda: service.move(order, "Paid"),
        lambda: service.place(next(_customers), (sandbox.product(1), 1)),
    ]
    with ThreadPoolExecutor(40) as clients:
        with locked(dsn, "orders"):
            asked = [clients.submit(call) for call in calls for _ in range(8)]
            wait_until(lambda: _waiting_for_locks(dsn) >= 8, "two threads of each lane wait")
            for _ in range(5):
                assert service.get("/health").status == 200
            assert not all(one.done() for one in asked)
        replies = [one.result() for one in asked]
    assert {reply.status for reply in replies} <= {200, 201, 503}


def _waiting_for_locks(dsn: str) -> int:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return int(execute(dsn, waiting)[0][0])


SLOW_COUNT = """
CREATE SCHEMA slow;
CREATE FUNCTION slow.step(bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
    PERFORM pg_sleep(0.05);
    RETURN $1 + 1;
END $$;
CREATE AGGREGATE slow.count(*) (sfunc = slow.step, stype = bigint, initcond = '0')
"""
"""Counting takes 50 ms an order, as if there were very many."""


@pytest.fixture
def slow_dsn(dsn: str) -> Iterator[str]:
    execute(dsn, SLOW_COUNT)
    yield psycopg2.extensions.make_dsn(dsn, options="-csearch_path=slow,pg_catalog,public")
    execute(dsn, "DROP SCHEMA slow CASCADE")


def test_those_who_count_everything_hold_up_nobody_else(
    start: Start, sandbox: Sandbox, dsn: str, slow_dsn: str
) -> None:
    make_up(dsn, 2_000)
    service = start(database_url=slow_dsn)
    product = sandbox.product(100)
    order = service.place(next(_customers), (product, 1)).body["id"]
    few = service.get(f"/orders?number={service.get(f'/orders/{order}').body['number']}&include_total=true").body
    assert (few["total_count"], "total_hint" in few) == (1, False)
    over = threading.Event()

    def count_again_and_again(_: int) -> list[Reply]:
        replies = []
        while not over.is_set():
            replies.append(service.get("/orders?metadata[channel]=web&include_total=true&limit=1"))
        return replies

    with ThreadPoolExecutor(16) as clients:
        attack = [clients.submit(count_again_and_again, n) for n in range(16)]
        took = []
        for _ in range(10):
            began = time.monotonic()
            assert service.place(next(_customers), (product, 1)).status == 201
            assert service.get(f"/orders/{order}").status == 200
            assert service.get("/health").status == 200
            took.append(time.monotonic() - began)
        over.set()
        replies = [reply for one in attack for reply in one.result()]
    assert sorted(took)[5] < 3, took  # all shared one queue once: 5 s
    assert {reply.status for reply in replies} == {200}
    for reply in replies:
        assert (reply.body["total_count"], reply.body["total_hint"]) == (None, TOTAL_HINT)
        assert len(reply.body["orders"]) == 1
        assert reply.body["next"]


# A full disk ----------------------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_called_by_its_name(
    start: Start, sandbox: Sandbox, dsn: str, capfd: pytest.CaptureFixture[str]
) -> None:
    service, product = start(), sandbox.product(9)
    order = service.place(next(_customers), (product, 1)).body["id"]
    execute(
        dsn,
        """CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
           CREATE TRIGGER no_room BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION no_room();
           CREATE TRIGGER no_room BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION no_room()""",
    )
    try:
        reply = service.place(next(_customers), (product, 1))
        told = problem(reply, 503, "database_full")
        assert reply.headers["retry-after"]
        assert "device" not in told["detail"]
        problem(service.move(order, "Paid"), 503, "database_full")
        problem(service.get("/health"), 503, "database_full")
        entry = {"customer_id": 1, "items": [{"product_id": product, "quantity": 1}]}
        result = service.http.post(f"{service.url}/orders:batch", {"orders": [entry]}).body["results"][0]
        assert (result["status"], result["problem"]["code"]) == (503, "database_full")
        assert service.get(f"/orders/{order}").status == 200  # what is there can be read
    finally:
        execute(dsn, "DROP FUNCTION no_room CASCADE")
    assert service.place(next(_customers), (product, 1)).status == 201
    wait_until(lambda: sandbox.stock(product) == 7, "stock of what was refused is back")
    said = capfd.readouterr().err
    assert "database_full: could not extend file: No space left on device" in said
    assert "Traceback" not in said


@pytest.fixture
def small_disk(postgres: str) -> Iterator[str]:
    """A database on a file system of 48 MB that is in memory."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small file system")
    folder = Path(tempfile.mkdtemp(prefix="orders-disk-"))
    folder.chmod(0o755)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], check=False)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("no file system can be mounted here")
    place, name = folder / "space", f"small_{next(_customers)}"
    try:
        place.mkdir(mode=0o700)
        owner = Path(execute(postgres, "SHOW data_directory")[0][0]).stat()
        os.chown(place, owner.st_uid, owner.st_gid)
        execute(postgres, f"CREATE TABLESPACE {name} LOCATION '{place}'")
        execute(postgres, f"CREATE DATABASE {name} TABLESPACE {name}")
        yield psycopg2.extensions.make_dsn(postgres, dbname=name)
        execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")
        execute(postgres, f"DROP TABLESPACE {name}")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def fill_up(connection: Connection, rows: int) -> None:
    while True:
        ask(connection, "INSERT INTO filler SELECT repeat(md5(n::text), 60) FROM generate_series(1, %s) n", [rows])


def test_a_disk_that_is_really_full(start: Start, sandbox: Sandbox, small_disk: str) -> None:
    service, product = start(database_url=small_disk), sandbox.product(10_000)
    with contextlib.closing(psycopg2.connect(small_disk)) as filling:  # for a new connection there is no room then
        filling.autocommit = True
        ask(filling, "CREATE TABLE filler (text text)")
        for rows in (2000, 100, 1):
            with pytest.raises(psycopg2.errors.DiskFull):
                fill_up(filling, rows)
        require_refusals(service, product)
        ask(filling, "DROP TABLE filler")
    wait_until(lambda: service.place(next(_customers), (product, 1)).status == 201, "there is room again")
    count: Any = execute(small_disk, "SELECT count(*) FROM orders WHERE placed_at IS NOT NULL")[0][0]
    wait_until(lambda: sandbox.stock(product) == 10_000 - count, "all stock that is not ordered is back")


def require_refusals(service: Service, product: int) -> None:
    """Pages that are there already have room for a few orders; after them it is said why there are no more."""

    def refused() -> Reply | None:
        reply = service.place(next(_customers), (product, 1))
        return reply if reply.status != 201 else None

    problem(wait_until(refused, "an order has no room"), 503, "database_full")
    problem(service.get("/health"), 503, "database_full")
    assert service.get("/orders?limit=1").status == 200
