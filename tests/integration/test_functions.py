"""The functions in the database: made where they are missing, planned once, never along a whole table."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from orders.order.document_sql import PAGE, read_orders
from orders.postgres import database
from orders.postgres.database import Connection, SchemaError
from orders.postgres.functions import ALWAYS, Function, Step, any_of, install, is_true
from orders.principal import SEES_EVERYTHING, Seer
from orders.startup import FUNCTIONS, install_functions, require_functions
from tests.conftest import ORDERS, ask, execute
from tests.made_up import make_up


@pytest.fixture
def connection(empty_dsn: str) -> Iterator[Connection]:
    database.migrate(empty_dsn)
    with contextlib.closing(database.connect(empty_dsn)) as connection:
        yield connection


def made(connection: Connection) -> list[str]:
    return [str(name) for (name,) in ask(connection, "SELECT proname FROM pg_proc WHERE proname ~ '_[0-9a-f]{12}$'")]


def test_a_function_takes_what_it_is_given_and_runs_what_is_needed(connection: Connection) -> None:
    steps = [
        Step(
            any_of("numbers", "bigint"),
            "RETURN QUERY SELECT n, %(word)s::text FROM unnest(%(numbers)s::bigint[]) n",
        ),
        Step(
            is_true("is_asked"),
            "RETURN QUERY SELECT 0::bigint, %(word)s",
        ),
        Step(
            ALWAYS,
            "RETURN QUERY SELECT -1::bigint, 'always'",
        ),
    ]
    function = Function("test", steps, rows="number bigint, word text")
    with connection.cursor() as cursor:
        function.call(cursor, {"numbers": [1, 2], "word": "a'b", "is_asked": False})
        assert cursor.fetchall() == [(1, "a'b"), (2, "a'b"), (-1, "always")]
        function.call(cursor, {"numbers": [], "word": "x", "is_asked": True})
        assert cursor.fetchall() == [(0, "x"), (-1, "always")]


def test_a_parameter_without_a_type_is_refused() -> None:
    with pytest.raises(ValueError, match="no type is named for word"):
        Function(
            "test",
            [
                Step(
                    ALWAYS,
                    "PERFORM %(word)s",
                )
            ],
        )


def test_another_text_is_another_function() -> None:
    assert (
        Function(
            "test",
            [
                Step(
                    ALWAYS,
                    "PERFORM 1",
                )
            ],
        ).name
        != Function(
            "test",
            [
                Step(
                    ALWAYS,
                    "PERFORM 2",
                )
            ],
        ).name
    )


def test_replicas_that_start_together_make_each_once(empty_dsn: str, connection: Connection) -> None:
    with pytest.raises(SchemaError, match="orders migrate"):
        require_functions(empty_dsn)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(install_functions, [empty_dsn] * 8))
    assert sorted(made(connection)) == sorted(function.name for function in FUNCTIONS)
    require_functions(empty_dsn)


def test_orders_migrate_makes_them(empty_dsn: str, connection: Connection) -> None:
    subprocess.run([*ORDERS, "migrate"], env={**os.environ, "DATABASE_URL": empty_dsn}, check=True)
    require_functions(empty_dsn)


def test_who_may_not_make_them_is_told_what_to_do(connection: Connection) -> None:
    ask(connection, "DO $$ BEGIN CREATE ROLE orders_plain; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    with database.undone(connection) as cursor:
        cursor.execute("SET LOCAL ROLE orders_plain")
        with pytest.raises(SchemaError, match=r"permission denied for schema public.*orders migrate"):
            install(connection, FUNCTIONS)


def test_one_that_is_missing_is_made_when_it_is_called(connection: Connection) -> None:
    assert made(connection) == []
    assert read_orders(connection, [(UUID(int=1), SEES_EVERYTHING)]) == {}
    assert len(made(connection)) == 1


def test_a_plan_that_was_made_of_a_small_table_scans_none(empty_dsn: str, connection: Connection) -> None:
    make_up(empty_dsn, 60)  # a page or two: PostgreSQL would scan it
    there = [UUID(text) for (text,) in ask(connection, "SELECT id FROM orders ORDER BY id LIMIT 50")]
    seers = [SEES_EVERYTHING, Seer(customer_id=7), Seer(channel="web"), Seer(sees_private=False)]
    wanted = [(order_id, seers[n % 4]) for n, order_id in enumerate(there)]
    ask(connection, "UPDATE orders SET channel = 'web', customer_id = 7")
    assert len(read_orders(connection, wanted)) == 50
    before = scans(connection)
    for _ in range(10):
        assert len(read_orders(connection, wanted)) == 50
    assert scans(connection) == before


def scans(connection: Connection) -> list[tuple[int]]:
    """How often the tables of orders were read from beginning to end."""
    ask(connection, "SELECT pg_stat_force_next_flush()")
    return ask(connection, "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname LIKE 'order%'")


def test_documents_are_of_the_same_moment_as_the_list(empty_dsn: str, connection: Connection) -> None:
    """A list that takes seconds to be found shows no order as it became meanwhile."""
    make_up(empty_dsn, 1)
    install_functions(empty_dsn)
    slow = f"""WITH page AS MATERIALIZED (SELECT id, pg_sleep(1) FROM orders)
               SELECT document FROM page JOIN {PAGE.of("1000000", "ARRAY(SELECT id FROM page)", "true")} USING (id)"""
    with ThreadPoolExecutor(1) as threads:
        listed = threads.submit(execute, empty_dsn, slow)
        time.sleep(0.5)
        ask(connection, "UPDATE orders SET public_note = 'late'")
        ((document,),) = listed.result()
    assert json.loads(document)["notes"]["public"] is None
