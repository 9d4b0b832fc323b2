"""The tables: made where they are missing, adopted from the simpler service, and refusing impossible rows."""

import itertools
import os
import socket
import subprocess
import time

import psycopg2
import pytest
from alembic import command

from orders.finding.filters import Filters
from orders.finding.lists_sql import list_orders
from orders.finding.reports_sql import count_standings, read_standings
from orders.order.document_sql import find_order, read_orders
from orders.postgres import database
from orders.postgres.database import Database, SchemaError
from orders.principal import SEES_EVERYTHING
from orders.settings import Settings
from orders.startup import open_database
from tests.conftest import ORDERS, execute

OLD_TABLES = """
CREATE TABLE orders (id SERIAL PRIMARY KEY, customer_id INT NOT NULL, status VARCHAR NOT NULL);
CREATE TABLE order_items (id SERIAL PRIMARY KEY, product_id INT NOT NULL, quantity INT NOT NULL,
                          order_id INT REFERENCES orders(id));
"""


def test_replicas_that_start_together_on_an_empty_database_all_come_up(empty_dsn: str) -> None:
    environment = {**os.environ, "DATABASE_URL": empty_dsn}
    replicas = [subprocess.Popen([*ORDERS, "migrate"], env=environment) for _ in range(4)]
    assert [replica.wait(timeout=180) for replica in replicas] == [0, 0, 0, 0]
    assert execute(empty_dsn, "SELECT version_num FROM orders_schema_version") == [(database.newest_version(),)]


def test_migrating_again_changes_nothing(empty_dsn: str) -> None:
    assert database.migrate(empty_dsn) is None
    assert database.migrate(empty_dsn) == database.newest_version()


@pytest.mark.parametrize("number", [1, 2, 3])  # the first only asks whether it is up
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "old"])
def test_a_database_that_goes_away_while_its_tables_are_looked_at_is_waited_for(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch, number: int, is_new: bool
) -> None:
    settings = Settings(_env_file=None, database_url=empty_dsn)  # type: ignore[call-arg]
    if not is_new:
        open_database(settings)
    opened, connect = itertools.count(), database.connect

    def connect_to_be_cut(dsn: str) -> database.Connection:
        connection = connect(dsn)
        if next(opened) == number:
            with socket.socket(fileno=os.dup(connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
        return connection

    monkeypatch.setattr(database, "connect", connect_to_be_cut)
    assert open_database(settings) == empty_dsn
    assert next(opened) > 4  # all were opened again
    assert execute(empty_dsn, "SELECT version_num FROM orders_schema_version") == [(database.newest_version(),)]
    assert execute(empty_dsn, "SELECT count(*) FROM order_workflow") == [(1,)]


def test_a_database_of_a_newer_version_is_left_alone(empty_dsn: str) -> None:
    database.migrate(empty_dsn)
    execute(empty_dsn, "UPDATE orders_schema_version SET version_num = '9999'")
    assert database.migrate(empty_dsn) == "9999"
    database.require_schema(empty_dsn)


def test_without_tables_and_without_leave_to_make_them_it_says_so(empty_dsn: str) -> None:
    with pytest.raises(SchemaError, match="orders migrate"):
        database.require_schema(empty_dsn)


def test_strange_tables_of_the_same_name_are_not_touched(empty_dsn: str) -> None:
    execute(empty_dsn, "CREATE TABLE orders (id text, total float)")
    with pytest.raises(SchemaError, match="not of the known shape"):
        database.migrate(empty_dsn)
    assert execute(empty_dsn, "SELECT to_regclass('orders')::text, to_regclass('stock_claims')") == [("orders", None)]


def test_a_hundred_thousand_orders_of_the_simpler_service_are_adopted(empty_dsn: str) -> None:
    execute(empty_dsn, OLD_TABLES)
    execute(
        empty_dsn,
        """INSERT INTO orders (customer_id, status)
           SELECT 1 + n % 1000, (ARRAY['ordered', 'Shipped', 'PENDING'])[1 + n % 3] FROM generate_series(0, 99999) n""",
    )
    execute(empty_dsn, "INSERT INTO order_items (product_id, quantity, order_id) SELECT id % 50 + 1, 2, id FROM orders")
    execute(empty_dsn, "INSERT INTO order_items (product_id, quantity, order_id) VALUES (1, 1, NULL), (1, -1, 5)")
    database.migrate(empty_dsn)
    assert execute(empty_dsn, "SELECT count(*), min(number), max(number) FROM orders") == [(100_000, 1, 100_000)]
    assert execute(empty_dsn, "SELECT count(*) FROM order_items") == [(100_000,)]
    assert execute(empty_dsn, "SELECT count(*) FROM orders_before_adoption.order_items") == [(100_002,)]
    reader = Database(empty_dsn, threads=1)
    page = reader.run_sync(lambda c: list_orders(c, SEES_EVERYTHING, Filters(), limit=1000))
    second = reader.run_sync(lambda c: find_order(c, None, 2, SEES_EVERYTHING))
    assert second is not None
    version, body, _ = reader.run_sync(lambda c: read_orders(c, [(second, SEES_EVERYTHING)]))[second, SEES_EVERYTHING]
    reader.close()
    newest = range(100_000, 99_000, -1)
    assert all(f'"number" : {n},' in order for n, order in zip(newest, page.orders, strict=True))
    assert version == 1
    assert '"status" : "Shipped"' in body
    assert '"name" : null, "quantity" : 2, "unit_price" : null, "total" : null' in body
    assert '"total" : null, "version" : 1, "allowed_statuses" : ["Delivered",' in body
    assert '"created_at" : null, "updated_at" : null' in body


def test_adopted_orders_keep_the_letters_of_a_status_that_is_none_of_ours(empty_dsn: str) -> None:
    statuses = ["on  hold", "ON_HOLD", "shipped", "Payment pending", "payment_pending", "", " ", "ÜBERGEBEN", "Pending"]
    execute(empty_dsn, OLD_TABLES)
    execute(empty_dsn, "INSERT INTO orders (customer_id, status) SELECT -3, unnest(%s)", (statuses,))
    database.migrate(empty_dsn)
    kept = [status for (status,) in execute(empty_dsn, "SELECT status FROM orders ORDER BY number")]
    assert kept == ["On Hold", "On Hold", "Shipped", *statuses[3:]]


def test_orders_that_were_adopted_with_other_letters_get_theirs_back(empty_dsn: str) -> None:
    execute(empty_dsn, OLD_TABLES)
    statuses = ["Payment pending", "payment_pending", "shipped", "Payment pending", "lost"]
    execute(empty_dsn, "INSERT INTO orders (customer_id, status) SELECT 7, unnest(%s)", (statuses,))
    with pytest.MonkeyPatch.context() as patch:  # as far as the version went that lost the letters
        patch.setattr(command, "upgrade", lambda config, _, upgrade=command.upgrade: upgrade(config, "0006"))
        database.migrate(empty_dsn)
    as_it_was = """
        SET session_replication_role = replica;
        UPDATE orders SET status = 'Payment Pending' WHERE number IN (1, 2, 4);
        UPDATE orders SET status = 'Paid', version = 2 WHERE number = 4;
        UPDATE orders SET status = 'Lost' WHERE number = 5;
        RESET session_replication_role"""
    execute(empty_dsn, as_it_was)
    database.migrate(empty_dsn)
    kept = [status for (status,) in execute(empty_dsn, "SELECT status FROM orders ORDER BY number")]
    assert kept == ["Payment pending", "payment_pending", "Shipped", "Paid", "lost"]
    with pytest.raises(psycopg2.errors.CheckViolation):  # moves are looked up in the table again
        execute(empty_dsn, "UPDATE orders SET status = 'Teleported', version = 2 WHERE number = 1")


def test_an_empty_status_is_counted_like_any_other(empty_dsn: str) -> None:
    execute(empty_dsn, OLD_TABLES)
    execute(empty_dsn, "INSERT INTO orders (customer_id, status) VALUES (7, ''), (8, ''), (9, 'paid')")
    database.migrate(empty_dsn)
    reader = Database(empty_dsn, threads=1)
    try:
        days = [reader.run_sync(count_standings) for _ in range(2)]
        assert [day and day.isoformat() for day in days] == ["1970-01-01", None]
        standings = reader.run_sync(lambda c: read_standings(c, SEES_EVERYTHING, None))
        assert {s.status: s.orders for s in standings} == {"": 2, "Paid": 1}
        execute(empty_dsn, "UPDATE orders SET status = 'Paid', version = 2, updated_at = now() WHERE number = 1")
        assert reader.run_sync(count_standings) is None  # it adds up what came and went
        assert {s.status: s.orders for s in reader.run_sync(lambda c: read_standings(c, SEES_EVERYTHING, None))} == {
            "": 1,
            "Paid": 2,
        }
    finally:
        reader.close()


def test_metadata_that_are_large_once_they_are_stored_are_refused_by_the_database_too(dsn: str) -> None:
    insert = f"{ORDER} ({ID}, 1, 'Ordered', 1, NULL, now(), NULL, NULL)"
    execute(dsn, insert)
    numbers = (
        "UPDATE orders SET metadata = jsonb_build_object('a', (SELECT jsonb_agg(1e308) FROM generate_series(1, %s)))"
    )
    execute(dsn, numbers, (50,))
    with pytest.raises(psycopg2.errors.CheckViolation, match="16 KiB"):
        execute(dsn, numbers, (60,))
    execute(dsn, f"SET session_replication_role = replica; {numbers}; RESET session_replication_role", (60,))
    execute(dsn, "UPDATE orders SET status = 'Paid', version = 2")  # what is there from earlier on is in nobody's way


def test_an_adopted_order_comes_before_every_order_that_is_placed_here(empty_dsn: str) -> None:
    execute(empty_dsn, OLD_TABLES + "INSERT INTO orders (customer_id, status) VALUES (7, 'ordered')")
    database.migrate(empty_dsn)
    number, version = execute(empty_dsn, "SELECT number, substr(id::text, 15, 1) FROM orders")[0]
    assert (number, version) == (1, "7")
    assert execute(empty_dsn, "SELECT nextval('order_numbers')") == [(2,)]


ORDER = "INSERT INTO orders (id, customer_id, status, total, batch_id, placed_at, failure, held_from) VALUES "
ITEM = "INSERT INTO order_items (order_id, product_id, quantity, unit_price) VALUES "
ID = "'019ab1e2-7c3d-7a41-9b52-0d6c3f1e8a77'"
CLAIM = "INSERT INTO stock_claims (product_id, batch_id, lease_until, before, after, lands_until) VALUES "


@pytest.mark.parametrize(
    "impossible",
    [
        ORDER + f"({ID}, 0, 'Ordered', 1, NULL, now(), NULL, NULL)",
        ORDER + f"({ID}, 1, 'Lost', 1, NULL, now(), NULL, NULL)",
        ORDER + f"({ID}, 1, 'Ordered', -1, NULL, now(), NULL, NULL)",
        ORDER + f"({ID}, 1, 'Ordered', NULL, NULL, now(), NULL, NULL)",
        ORDER + f"({ID}, 1, 'Ordered', 1, NULL, NULL, NULL, NULL)",
        ORDER + f"({ID}, 1, 'Pending', 1, NULL, NULL, NULL, NULL)",
        ORDER + f"({ID}, 1, 'Pending', 1, {ID}, now(), NULL, NULL)",
        ORDER + f"({ID}, 1, 'Failed', 1, {ID}, NULL, NULL, NULL)",
        ORDER + f"({ID}, 1, 'Ordered', 1, {ID}, now(), 'order_failed', NULL)",
        ORDER + f"({ID}, 1, 'On Hold', 1, {ID}, now(), NULL, NULL)",
        ORDER + f"({ID}, 1, 'Paid', 1, {ID}, now(), NULL, 'Ordered')",
        ITEM + f"({ID}, 1, 1, 1)",
        ITEM + "(NULL, 1, 1, 1)",
        ITEM + "((SELECT id FROM orders), 0, 1, 1)",
        ITEM + "((SELECT id FROM orders), 1, 0, 1)",
        ITEM + "((SELECT id FROM orders), 1, 1, -1)",
        CLAIM + "(1, NULL, now(), NULL, NULL, now())",
        CLAIM + f"(1, {ID}, now(), 5, NULL, now())",
        CLAIM + f"(1, {ID}, now(), 5, -1, now())",
        CLAIM + f"(1, {ID}, now(), 5, 4, NULL)",
        CLAIM + "(1, NULL, NULL, 5, 4, now())",
        CLAIM + "(1, NULL, NULL, NULL, NULL, NULL)",
        f"INSERT INTO idempotency_keys (key, fingerprint, batch_id, status) VALUES ('k', '', {ID}, 201)",
        f"INSERT INTO idempotency_keys (key, fingerprint, batch_id, status, body) VALUES ('k', '', {ID}, 201, '')",
        "INSERT INTO stock_returns (order_id, product_id, quantity) VALUES ((SELECT id FROM orders), 1, 0)",
    ],
)
def test_an_impossible_row_is_refused(dsn: str, impossible: str) -> None:
    execute(dsn, ORDER + "('019ab1e2-0000-7000-8000-000000000000', 1, 'Ordered', 1, NULL, now(), NULL, NULL)")
    with pytest.raises(psycopg2.IntegrityError):
        execute(dsn, impossible)


def test_a_cart_becomes_one_order_and_one_that_failed_does_not_count(dsn: str) -> None:
    insert = "INSERT INTO orders (id, customer_id, cart_id, status, total, batch_id, failure) VALUES "
    row = "(gen_random_uuid(), 1, 5, %s, 1, gen_random_uuid(), %s)"
    execute(dsn, insert + row, ("Failed", "order_failed"))
    execute(dsn, insert + row, ("Pending", None))
    with pytest.raises(psycopg2.errors.UniqueViolation):
        execute(dsn, insert + row, ("Pending", None))


def test_the_service_waits_for_a_database_that_is_not_there_yet(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with pytest.raises(database.DatabaseUnavailable):
        database.wait_until_up("host=127.0.0.1 port=1 dbname=x", patience_s=0.5)
    assert time.monotonic() - began < 3
    assert "waiting for the database" in caplog.text


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("host=db.abc.eu-west-1.rds.amazonaws.com dbname=x", {"sslmode": "verify-full", "keepalives_idle": "10"}),
        ("postgresql://u@h1,h2/x?target_session_attrs=read-write", {"host": "h1,h2", "connect_timeout": "5"}),
        ("host=db.rds.amazonaws.com dbname=x sslmode=disable", {"sslmode": "disable"}),
        ("dbname=x keepalives_idle=99", {"keepalives_idle": "99", "application_name": "orders"}),
    ],
)
def test_connections_have_our_defaults_where_the_dsn_is_silent(dsn: str, expected: dict[str, str]) -> None:
    assert expected.items() <= psycopg2.extensions.parse_dsn(database.with_defaults(dsn)).items()


def test_a_replica_of_the_version_before_still_writes_its_drifts(empty_dsn: str) -> None:
    database.migrate(empty_dsn)
    execute(
        empty_dsn,
        """INSERT INTO stock_drifts (product_id, batch_id, before, after, found)
           SELECT 7, gen_random_uuid(), 5, 3, d.found FROM (VALUES (9)) d(found)""",
    )
    assert execute(empty_dsn, "SELECT kind, before, after, found, figure FROM stock_record") == [
        ("in doubt", 5, 3, 9, 9)
    ]
