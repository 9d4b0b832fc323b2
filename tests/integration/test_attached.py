"""What is attached to an order is said in one table, `ATTACHED`. CONTRIBUTING.md says which files a new field needs."""

import dataclasses
from pathlib import Path

import orders
from orders.order.details import as_details, as_members, to_document
from orders.order.model import ATTACHED, NO_DETAILS, Details
from tests.conftest import execute

PACKAGE = Path(orders.__file__).parent
ALL = Details(**{field.name: '{"a":1}' if field.type == "jsonb" else f"its {field.name}" for field in ATTACHED})


def test_the_table_the_class_and_the_columns_are_the_same(dsn: str) -> None:
    columns = dict(
        execute(
            dsn,
            """SELECT column_name, data_type FROM information_schema.columns
               WHERE table_schema = 'public' AND table_name = 'orders'""",
        )
    )
    named = {field.name: field.type for field in ATTACHED}
    assert [field.name for field in dataclasses.fields(Details)] == list(named)
    assert named == {name: columns[name] for name in named}


def test_what_is_attached_reads_the_same_from_the_wire_and_back() -> None:
    assert as_details(to_document(ALL)) == as_details(as_members(ALL)) == ALL
    assert as_details(to_document(NO_DETAILS)) == as_details(as_members(NO_DETAILS)) == NO_DETAILS
    assert to_document(NO_DETAILS) == {}
    nothing = as_members(NO_DETAILS)
    assert (nothing["external_reference"], nothing["metadata"]) == (None, {})
    assert nothing["notes"] == {"public": None, "private": None}


def test_only_the_table_and_migrations_name_the_column_of_an_attached_field() -> None:
    files = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "private_note" in path.read_text()}
    assert {str(path) for path in files if "migrations" not in path.parts} == {"order/model.py"}
