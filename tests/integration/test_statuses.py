"""The table of statuses in the database: it refuses what is not in it, whoever asks."""

import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
from hypothesis import HealthCheck, assume, given, settings

from orders.order.statuses import BUILT_IN, Workflow, load_workflow, parse_workflow
from orders.order.statuses_sql import install_workflow
from orders.postgres import database
from orders.postgres.database import connect
from orders.settings import SettingsError
from orders.startup import set_workflow
from tests.conftest import ORDERS, execute, free_port
from tests.workflows import tables

ROOT = Path(__file__).parents[2]
TABLE = load_workflow()
INSERT = """INSERT INTO orders (id, customer_id, status, held_from, total, batch_id, placed_at, failure)
            VALUES (%s, 1, %s, %s, 1, gen_random_uuid(), %s, %s)"""
MOVE = "UPDATE orders SET status = %s, held_from = %s, version = version + 1, failure = NULL WHERE id = %s"


def moves(connection: psycopg2.extensions.connection, table: Workflow, now: str, then: str) -> bool:
    """Whether the database lets an order go from here to there (as a hold, from `Ordered` or back to it)."""
    order_id, is_placed = str(uuid4()), now not in ("Pending", "Failed")
    held_from = "Ordered" if table.by_name[now].is_hold else None
    with connection.cursor() as cursor:
        cursor.execute(
            INSERT, (order_id, now, held_from, "now" if is_placed else None, None if now != "Failed" else "x")
        )
        try:
            cursor.execute(MOVE, (then, now if table.by_name[then].is_hold else None, order_id))
        except psycopg2.errors.CheckViolation as error:
            reason = error.diag.constraint_name
        else:
            return True
    assert reason == "status_may_follow", (now, then)
    return False


def test_every_pair_of_statuses_is_judged_by_the_database_as_in_the_table(dsn: str) -> None:
    connection = connect(dsn)
    for now in TABLE.by_name:
        for then in TABLE.by_name:
            if now == then or (now == "Pending" and then in ("Ordered", "Failed")):
                continue  # the first changes nothing, the second is placing
            held_from = "Ordered" if now == "On Hold" else None
            assert moves(connection, TABLE, now, then) == (then in TABLE.allowed(now, held_from)), (now, then)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tables())
def test_a_shops_own_table_is_the_databases(empty_dsn: str, text: str) -> None:
    try:
        table = parse_workflow(text)
    except ValueError:
        assume(False)
        raise
    database.migrate(empty_dsn)
    connection = connect(empty_dsn)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE orders CASCADE")
        assert install_workflow(connection, table, replace=True) == []
        for now in [*table.by_name, "Gone by"]:
            for held_from in ("Ordered", None):
                for adopted in (False, True):
                    cursor.execute("SELECT orders_allowed(%s, %s, %s)", (now, held_from, adopted))
                    assert [tuple(row[0]) for row in cursor] == [table.allowed(now, held_from, adopted=adopted)]
    for now in table.by_name:
        for then in table.by_name:
            if now not in (then, "Pending"):
                held_from = "Ordered" if table.by_name[now].is_hold else None
                assert moves(connection, table, now, then) == (then in table.allowed(now, held_from)), (now, then)
    connection.close()


def test_the_migration_brings_the_table_that_older_replicas_have_in_their_code(empty_dsn: str) -> None:
    database.migrate(empty_dsn)
    migrated = execute(
        empty_dsn, "SELECT status, allowed, is_hold, is_final, gives_stock_back FROM order_statuses ORDER BY position"
    )
    assert migrated == [
        (s.name, list(s.following), s.is_hold, s.is_final, s.gives_stock_back) for s in load_workflow(BUILT_IN).statuses
    ]


@pytest.mark.parametrize(
    "impossible",
    [
        "UPDATE orders SET status = 'Paid'",
        "UPDATE orders SET status = 'Paid', version = version + 2",
        "UPDATE orders SET status = 'Lost', version = version + 1",
        "UPDATE orders SET status = 'On Hold', version = version + 1",
        "UPDATE orders SET status = 'Paid', held_from = 'Ordered', version = version + 1",
        "UPDATE orders SET held_from = 'Ordered'",
        "UPDATE orders SET status = 'Pending', placed_at = NULL, version = version + 1",
        "UPDATE orders SET version = version + 2",
        "UPDATE orders SET version = version - 1",
        "UPDATE order_items SET quantity = 0",
        "UPDATE order_items SET returned = 3",
        "UPDATE order_items SET cancelled = -1",
        "INSERT INTO order_events (order_id, number, type, actor) SELECT id, 0, 'moved', 'x' FROM orders",
    ],
)
def test_an_impossible_change_is_refused(dsn: str, impossible: str) -> None:
    execute(dsn, INSERT, (str(uuid4()), "Ordered", None, "now", None))
    execute(dsn, "INSERT INTO order_items (order_id, product_id, quantity) SELECT id, 7, 2 FROM orders")
    with pytest.raises(psycopg2.IntegrityError):
        execute(dsn, impossible)


def test_who_writes_no_event_has_one_written_for_them(dsn: str) -> None:
    """An older replica, or a person in psql."""
    execute(dsn, INSERT, (str(uuid4()), "Ordered", None, "now", None))
    execute(dsn, "UPDATE orders SET status = 'Paid', version = version + 1, updated_at = now()")
    execute(dsn, "UPDATE orders SET total = 5, version = version + 1, updated_at = now()")
    events = execute(
        dsn, "SELECT number, type, before->>'status', after->>'status', actor FROM order_events ORDER BY 1"
    )
    assert events == [(2, "moved", "Ordered", "Paid", "database"), (3, "changed", "Paid", "Paid", "database")]


SHOP = """
line = ["Ordered", "Packed", "Gone"]
[statuses.Ordered]
next = ["Parked", "Cancelled"]
[statuses.Packed]
[statuses.Gone]
final = true
[statuses.Parked]
label = "Geparkt"
hold = true
[statuses.Cancelled]
final = true
gives_stock_back = true
"""


def test_a_replica_with_another_table_does_not_start_until_it_is_put_in_place(empty_dsn: str, tmp_path: Path) -> None:
    shop = tmp_path / "shop.toml"
    shop.write_text(SHOP)

    def orders(*arguments: str, workflow: Path | None = None) -> subprocess.CompletedProcess[str]:
        return run([*ORDERS, *arguments], workflow)

    def run(command: list[str], workflow: Path | None) -> subprocess.CompletedProcess[str]:
        environment = {"DATABASE_URL": empty_dsn, "CATALOG_URL": "http://c", "CART_URL": "http://c", "PATH": ""}
        environment |= {"ORDERS_WORKFLOW": str(workflow)} if workflow else {}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
        )

    assert orders("show", "1").returncode == 1  # the built-in table is put in place, and there is no order
    assert orders("serve", "--port", str(free_port()), workflow=shop).returncode == 2
    assert orders("show", "1", workflow=shop).returncode == 2
    assert "another than " + str(shop) in orders("show", "1", workflow=shop).stderr
    uvicorn = run([sys.executable, "-m", "uvicorn", "main:app", "--port", str(free_port())], shop)
    assert f"The service can't start. ORDERS_WORKFLOW: the database's table of statuses is another than {shop}" in (
        uvicorn.stderr
    )
    assert "Traceback" not in uvicorn.stderr
    assert orders("migrate", workflow=shop).returncode == 0
    assert "There is no order" in orders("show", "1", workflow=shop).stderr
    assert "another than the built-in one" in orders("show", "1").stderr
    assert "BAD  ORDERS_WORKFLOW: the database's table of statuses is another" in orders("doctor").stdout
    shop.write_text(SHOP.replace("[statuses.Gone]", "[statuses.Gon]"))
    broken = orders("show", "1", workflow=shop)
    assert broken.returncode == 2
    assert "there is no status 'Gone'; did you mean 'Gon'?" in broken.stderr


def test_a_table_that_leaves_orders_behind_is_not_put_in_place_and_the_final_stay_final(empty_dsn: str) -> None:
    database.migrate(empty_dsn)
    set_workflow(empty_dsn, TABLE, replace=False)
    for status, held_from in (("Paid", None), ("On Hold", "Confirmed"), ("Ordered", None), ("Completed", None)):
        execute(empty_dsn, INSERT, (str(uuid4()), status, held_from, "now", None))
    with pytest.raises(SettingsError, match="Confirmed or On Hold or Paid"):
        set_workflow(empty_dsn, parse_workflow(SHOP), replace=True)
    assert execute(empty_dsn, "SELECT count(*) FROM order_statuses") == [(13,)]
    cancel = "UPDATE orders SET status = 'Cancelled', held_from = NULL, version = 2 WHERE status = ANY(%s)"
    execute(empty_dsn, cancel, (["Paid", "On Hold"],))
    set_workflow(empty_dsn, parse_workflow(SHOP), replace=True)
    assert execute(empty_dsn, "SELECT count(*) FROM order_statuses") == [(7,)]
    with pytest.raises(psycopg2.errors.CheckViolation):
        execute(empty_dsn, cancel, (["Completed"],))
    execute(empty_dsn, "UPDATE orders SET total = 9, status = status, version = 2 WHERE status = 'Completed'")


def test_replicas_that_start_together_put_the_table_in_place_once(empty_dsn: str) -> None:
    database.migrate(empty_dsn)
    starts = [
        threading.Thread(target=set_workflow, args=(empty_dsn, TABLE), kwargs={"replace": False}) for _ in range(6)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join(20)
    assert execute(empty_dsn, "SELECT document FROM order_workflow") == [(TABLE.text,)]
    assert execute(empty_dsn, "SELECT count(*) FROM order_statuses") == [(13,)]
