"""The types of events in Python are those that are written: by functions and triggers in the database, by statements in
Python, and by what is decided there.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import orders
from orders.order.events import EventType
from orders.stock.abandon_sql import FAIL
from orders.stock.settle_sql import SETTLE
from tests.conftest import execute

PYTHON = [path for path in Path(orders.__file__).parent.rglob("*.py") if "migrations" not in path.parts]
INSERT = re.compile(
    r"INSERT INTO order_events\s*\((.*?)\)\s*(?:VALUES\s*\(|SELECT)(.*?)(?:\bFROM\b|\)\s*ON CONFLICT)", re.S
)


def written_types(sql: str) -> Iterator[str]:
    """Each literal that a statement writes as an event's type: of `CASE … THEN 'a' ELSE 'b' END` both."""
    for columns, values in INSERT.findall(sql):
        place = [column.strip() for column in columns.split(",")].index("type")
        value = split(values)[place]
        yield from re.findall(r"(?:THEN|ELSE)\s+'(\w+)'", value) or re.findall(r"^'(\w+)'$", value)


def split(values: str) -> list[str]:
    """The expressions of a list, which may have commas in brackets and texts."""
    parts = re.findall(r"(?:[^,('\"]|'[^']*'|\((?:[^()]|\([^()]*\))*\))+", values)
    return [part.strip() for part in parts]


def functions_that_write(dsn: str) -> dict[str, str]:
    """The functions in the database that write events, each with its text."""
    return dict(execute(dsn, "SELECT proname, prosrc FROM pg_proc WHERE prosrc ~* 'insert into order_events'"))


def decided_types() -> set[str]:
    """The types that functions in Python give to what they decide; mypy sees to it that there are no others."""
    texts = [
        path.read_text() for path in PYTHON if path.parent.name == "changing" and not path.name.endswith("_sql.py")
    ]
    return {EventType[name].value for text in texts for name in re.findall(r"\bEventType\.(\w+)", text)}


def test_every_type_of_event_is_written_and_no_other(dsn: str) -> None:
    functions = functions_that_write(dsn)
    assert functions.keys() == {"orders_keep_history", SETTLE.name}
    by_functions = {kind for text in functions.values() for kind in written_types(text)}
    assert by_functions == {"placed", "failed", "moved", "changed"}
    assert set(written_types(FAIL)) == {"failed"}
    assert by_functions | decided_types() == set(EventType)


def test_no_other_statement_writes_events() -> None:
    writers = {path.name for path in PYTHON if re.search("insert into order_events", path.read_text(), re.I)}
    assert writers == {"settle_sql.py", "abandon_sql.py", "change_sql.py"}
