"""What there is (the API, the tables, their rules) is what was reviewed last: the files in docs/ that show it."""

from pathlib import Path

import psycopg2
import pytest
import yaml

from tests.conftest import execute, migrated
from tests.snapshots import differences, openapi, rules, schema


@pytest.fixture(scope="module")
def made_dsn(embedded_server: str) -> str:
    """A migrated database that nobody has served."""
    return migrated(embedded_server, "orders_snapshots")


def test_the_api_is_the_one_that_was_reviewed() -> None:
    changed = differences(openapi.PATH, openapi.snapshot(openapi.document()))
    assert not changed, changed


def test_the_tables_are_those_that_were_reviewed(made_dsn: str) -> None:
    changed = differences(schema.PATH, schema.snapshot(made_dsn))
    assert not changed, changed


def test_each_rule_of_the_database_has_its_sentence(made_dsn: str) -> None:
    page = rules.PATH.read_text()
    changed = differences(rules.PATH, rules.snapshot(made_dsn, page))
    assert not changed, changed
    assert rules.MISSING not in page


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("keep_quiet", "CREATE TRIGGER keep_quiet AFTER DELETE ON orders EXECUTE FUNCTION orders_keep_history()"),
        ("total_is_even", "ALTER TABLE orders ADD CONSTRAINT total_is_even CHECK (total % 2 = 0)"),
        ("one_per_day", "CREATE UNIQUE INDEX one_per_day ON orders (customer_id, order_created_at(id))"),
    ],
)
def test_a_new_rule_is_missed_on_the_page(embedded_server: str, made_dsn: str, name: str, statement: str) -> None:
    copy = str(psycopg2.extensions.make_dsn(embedded_server, dbname=f"orders_{name}"))
    execute(embedded_server, f"CREATE DATABASE orders_{name} TEMPLATE orders_snapshots")
    execute(copy, statement)
    expected = rules.snapshot(copy, rules.PATH.read_text())
    assert [line for line in expected.splitlines() if rules.MISSING in line and f"`{name}`" in line]
    assert name in schema.snapshot(copy)


def test_what_is_told_of_a_change_is_the_change_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("one\ntwo\n")
    said = differences(tmp_path / "page.md", "one\n2\n")
    assert "make snapshots" in said
    assert "-two\n+2" in said
    assert not differences(tmp_path / "page.md", "one\ntwo\n")


def test_of_the_api_every_code_of_an_error_is_shown_and_no_example() -> None:
    document = openapi.document()
    text = openapi.snapshot(document)
    assert "example:" not in text
    shown = yaml.safe_load(text)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items() if method != "parameters" else ():
                if problems := response.get("content", {}).get(openapi.PROBLEM):
                    kept = shown["paths"][path][method]["responses"][status]["content"][openapi.PROBLEM]
                    assert kept["x-codes"] == sorted(problems["examples"]), (path, method, status)


def test_a_member_that_is_named_like_noise_is_kept() -> None:
    assert "description: {type: string}" in openapi.snapshot(openapi.document())
