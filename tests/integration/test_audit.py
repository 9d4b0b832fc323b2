"""The audit on real servers: how it is read, and what the command line's decisions write into it."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders.access.audit_reading_sql import AuditFilters, AuditRow, read_audit
from orders.cli.common import cli_actor
from orders.machinery import machinery
from orders.order.audit_sql import AuditEntry, add_audit
from orders.order.model import Author, Line
from orders.order.statuses import BUILT_IN, load_workflow, parse_workflow
from orders.placing.checkout import Checkout, CheckoutRequest
from orders.postgres import database
from orders.postgres.database import Connection, connect, transaction, with_defaults
from orders.principal import SEES_EVERYTHING
from orders.settings import Settings
from orders.startup import install_functions, set_workflow
from orders.stock.reconcile import Reconciliation, Undecided
from tests.conftest import ORDERS, Sandbox, ask, execute


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(with_defaults(dsn))) as connection:
        yield connection


def add(connection: Connection, *entries: AuditEntry) -> None:
    with transaction(connection) as cursor:
        for entry in entries:
            add_audit(cursor, entry)


def read_all(connection: Connection, filters: AuditFilters, limit: int) -> list[AuditRow]:
    """Page by page."""
    rows, end = read_audit(connection, filters, limit)
    assert len(rows) <= limit
    while end is not None:
        more, end = read_audit(connection, AuditFilters(filters.action, filters.actor, end), limit)
        assert more
        rows += more
    return rows


def test_an_entry_is_read_as_it_was_written(connection: Connection) -> None:
    actor = f"key:{uuid4()}"
    add(connection, AuditEntry(actor, "key_made", "abc", {"a": None}, {"b": [1, "é"]}, "2001:db8::7", "request-1"))
    (row,), end = read_audit(connection, AuditFilters(actor=actor), 10)
    assert (row.actor, row.address, row.action, row.subject) == (actor, "2001:db8::7", "key_made", "abc")
    assert (row.before, row.after, row.request_id, end) == ({"a": None}, {"b": [1, "é"]}, "request-1", None)


@pytest.mark.parametrize(("given", "kept"), [(None, None), ("", None), ("unix:", None), ("fe80::1%eth0", "fe80::1")])
def test_what_is_no_address_is_left_out(connection: Connection, given: str | None, kept: str | None) -> None:
    actor = f"key:{uuid4()}"
    add(connection, AuditEntry(actor, "key_made", None, None, None, given))
    assert [row.address for row in read_audit(connection, AuditFilters(actor=actor), 1)[0]] == [kept]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=12), st.integers(1, 5))
def test_pages_are_the_whole_newest_first_whatever_the_filters(
    connection: Connection, entries: list[tuple[str, str]], limit: int
) -> None:
    run = uuid4().hex
    written = [(f"{run}-{action}", f"{run}-{actor}") for action, actor in entries]
    add(connection, *(AuditEntry(actor, action, str(n), None, None) for n, (action, actor) in enumerate(written)))
    for action in (None, f"{run}-a"):
        for actor in (f"{run}-x", f"{run}-z"):
            found = read_all(connection, AuditFilters(action, actor), limit)
            wanted = [str(n) for n, one in enumerate(written) if action in (None, one[0]) and actor == one[1]]
            assert [row.subject for row in found] == wanted[::-1]


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"])
def test_nobody_changes_what_is_in_the_audit(connection: Connection, statement: str) -> None:
    add(connection, AuditEntry("anna", "key_made", None, None, None))
    with pytest.raises(psycopg2.errors.CheckViolation) as refused:
        ask(connection, statement)
    assert refused.value.diag.constraint_name == "audit_is_kept"


@pytest.mark.parametrize("filters", [AuditFilters(action="a"), AuditFilters(actor="b"), AuditFilters(after=7)])
def test_the_audit_is_read_by_an_index(connection: Connection, filters: AuditFilters) -> None:
    conditions = {"action": "action = 'a'", "actor": "actor = 'b'", "after": "id < 7"}
    (where,) = [condition for name, condition in conditions.items() if getattr(filters, name) is not None]
    with transaction(connection) as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN (FORMAT json) SELECT * FROM audit WHERE {where} ORDER BY id DESC LIMIT 10")
        row = cursor.fetchone()
    assert row is not None
    scan = row[0][0]["Plan"]["Plans"][0]
    assert (scan["Node Type"], scan["Scan Direction"]) == ("Index Scan", "Backward")
    assert "Filter" not in scan


# What writes it ------------------------------------------------------------------------------------------------------


async def test_decisions_about_the_stock_are_in_the_audit_and_looks_are_not(
    settings: Settings, sandbox: Sandbox
) -> None:
    author = Author(f"cli:{uuid4().hex}")
    product = sandbox.product(10)
    async with machinery(settings) as built:
        reconciliation = Reconciliation(built.database, built.catalog, settings, author)
        checkout = Checkout(built.database, built.carts, built.placement, settings)
        await checkout.check_out(CheckoutRequest(SEES_EVERYTHING, 1, [Line(product, 3)], None), "/orders/1")
        sandbox.restock(product, 57)
        assert [found.is_well async for found in reconciliation.compare([product])] == [False]
        await reconciliation.accept(product)
        await reconciliation.accept(product)  # it is so already
        sandbox.restock(product, 60)
        await reconciliation.restore(product)
        await reconciliation.set(product, 57, 50)
        with pytest.raises(Undecided):
            await reconciliation.set(product, 57, 40)  # it is 50 by now
    found = execute(
        settings.database_url or "",
        "SELECT action, subject, before, after FROM audit WHERE actor = %s ORDER BY id",
        (author.actor,),
    )
    assert found == [
        ("stock_accepted", f"product:{product}", {"stock": 7}, {"stock": 57}),
        ("stock_restored", f"product:{product}", {"stock": 60}, {"stock": 57}),
        ("stock_set", f"product:{product}", {"stock": 57}, {"stock": 50}),
    ]


def test_another_table_of_statuses_is_in_the_audit(empty_dsn: str) -> None:
    database.migrate(empty_dsn)
    install_functions(empty_dsn)
    built_in = load_workflow()
    other = parse_workflow(f"{BUILT_IN.read_text()}\n# another comment\n")

    def audited() -> list[tuple[Any, ...]]:
        return execute(empty_dsn, "SELECT actor, action, before, after FROM audit ORDER BY id")

    set_workflow(empty_dsn, built_in, replace=False)
    set_workflow(empty_dsn, built_in, replace=True, actor="cli:anna")
    set_workflow(empty_dsn, other, replace=False, actor="cli:anna")
    assert audited() == []  # the first table, the same one, and one that was not taken
    set_workflow(empty_dsn, other, replace=True, actor="cli:anna")
    assert audited() == [
        ("cli:anna", "workflow_replaced", {"document": built_in.text}, {"document": other.text}),
    ]


def test_the_command_line_prints_the_audit(dsn: str, connection: Connection) -> None:
    actor = f"cli:{uuid4().hex}"
    add(connection, *(AuditEntry(actor, action, "abc", None, {"n": 1}) for action in ("first", "second", "first")))

    def audit(*options: str) -> list[str]:
        command = [*ORDERS, "audit", "--actor", actor, *options]
        environment = {"DATABASE_URL": dsn}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return ran.stdout.splitlines()

    lines = audit()
    assert [line.split()[4] for line in lines] == ["first", "second", "first"]
    assert lines[0].split()[2:] == [actor, "-", "first", "abc", '{"n":', "1}"]
    newest, oldest = (json.loads(line) for line in audit("--json", "--action", "first"))
    assert newest["id"] > oldest["id"]
    assert (newest["actor"], newest["after"], newest["address"]) == (actor, {"n": 1}, None)
    assert newest["at"].endswith("Z")
    assert [json.loads(line)["id"] for line in audit("--json", "--after", str(newest["id"]), "--limit", "2")] == [
        oldest["id"] + 1,
        oldest["id"],
    ]


def test_the_command_line_names_the_account_of_the_operating_system() -> None:
    assert cli_actor().startswith("cli:")
    assert len(cli_actor()) > len("cli:")
