"""A migration that has to wait for a table says for whom, and those who work on the table go on meanwhile."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg2
import pytest

from orders.postgres import database, upgrading
from tests.conftest import ask, execute, wait_until
from tests.integration.test_migrations import OLD_TABLES

NEW_ORDER = """
BEGIN;
SET LOCAL statement_timeout = '15s';  -- far more than the migration ever waits
INSERT INTO orders (customer_id, status) VALUES (8, 'ordered');
INSERT INTO order_items (product_id, quantity, order_id) VALUES (1, 1, 1);
COMMIT
"""


@pytest.fixture
def old_service(empty_dsn: str) -> Iterator[psycopg2.extensions.connection]:
    """The simpler service's own connection, which leaves its transactions open, as one without autocommit does."""
    execute(empty_dsn, OLD_TABLES + "INSERT INTO orders (customer_id, status) VALUES (7, 'ordered')")
    dsn = psycopg2.extensions.make_dsn(empty_dsn, application_name="old shop")
    with contextlib.closing(psycopg2.connect(dsn)) as connection:
        yield connection


@contextlib.contextmanager
def migrating(dsn: str, old_service: psycopg2.extensions.connection) -> Iterator["Future[str | None]"]:
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(database.migrate, dsn)
        finally:
            old_service.close()  # a test that fails must not wait for it for ever


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        r.getMessage() for r in caplog.records if r.name == "orders.postgres.upgrading" and r.levelno == logging.WARNING
    ]


def test_the_holder_of_a_table_is_told_at_once_and_again_and_the_migration_goes_on_when_it_lets_go(
    empty_dsn: str,
    old_service: psycopg2.extensions.connection,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upgrading, "_TELL_EVERY_S", 0.5)
    ask(old_service, "SELECT * FROM orders WHERE customer_id = %s", (7,))  # and no commit
    with migrating(empty_dsn, old_service) as migration:
        wait_until(lambda: len(said(caplog)) >= 2, "it is told who holds the table, and told again")
        assert not migration.done()
        old_service.rollback()
        assert migration.result(timeout=60) is None
    told = said(caplog)[0]
    assert "old shop" in told
    assert "idle in transaction, in a transaction since 2" in told
    assert told.endswith("SELECT")
    assert "customer_id" not in told
    assert execute(empty_dsn, "SELECT count(*) FROM orders WHERE adopted") == [(1,)]


def test_while_a_migration_waits_the_old_service_goes_on(
    empty_dsn: str, old_service: psycopg2.extensions.connection, caplog: pytest.LogCaptureFixture
) -> None:
    ask(old_service, "SELECT * FROM order_items")
    with migrating(empty_dsn, old_service) as migration:
        wait_until(lambda: said(caplog), "the migration waits")
        for _ in range(20):  # each would wait behind the migration for as long as that waits
            execute(empty_dsn, NEW_ORDER)
            time.sleep(0.1)
        assert not migration.done()
        old_service.rollback()
        migration.result(timeout=60)
    assert execute(empty_dsn, "SELECT count(*) FROM orders WHERE adopted") == [(21,)]


def test_holders_that_never_stop_one_by_one_do_not_starve_the_migration(
    empty_dsn: str, old_service: psycopg2.extensions.connection
) -> None:
    """Short transactions one after the other: its request is in the queue for a moment, and theirs come behind it."""
    stop = threading.Event()
    dsn = psycopg2.extensions.make_dsn(empty_dsn, application_name="busy")

    def be_busy() -> None:
        with contextlib.closing(psycopg2.connect(dsn)) as connection, contextlib.suppress(psycopg2.Error):
            while not stop.is_set():
                ask(connection, "SELECT count(*), pg_sleep(0.05) FROM orders")
                connection.commit()

    with ThreadPoolExecutor(3) as busy, migrating(empty_dsn, old_service) as migration:
        for _ in range(3):
            busy.submit(be_busy)
        try:
            assert migration.result(timeout=60) is None
        finally:
            stop.set()


def test_a_database_that_goes_away_while_a_migration_waits_is_told_as_that(
    empty_dsn: str, old_service: psycopg2.extensions.connection, postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask(old_service, "SELECT * FROM orders")
    name = psycopg2.extensions.parse_dsn(empty_dsn)["dbname"]
    with migrating(empty_dsn, old_service) as migration:
        wait_until(lambda: said(caplog), "the migration waits")
        others = "FROM pg_stat_activity WHERE datname = %s AND application_name <> 'old shop'"
        execute(postgres, f"SELECT pg_terminate_backend(pid) {others}", (name,))
        with pytest.raises(database.DatabaseUnavailable):
            migration.result(timeout=60)
