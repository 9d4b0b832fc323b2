"""docs/schema.sql: the tables and functions of a migrated database, so that a review sees what a migration changes.

`pg_dump` says what there is. Here it is put in an order that depends on names only. Owners, versions and settings of
the session are left out.
"""

import re
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from tests.servers import EMBEDDED
from tests.snapshots import DOCS

PATH = DOCS / "schema.sql"
TITLE = """\
-- The tables as all migrations leave them, each with its constraints, indexes and triggers; then the functions, with
-- those that the service makes when it starts (their names end with a digest of their text). `make snapshots` writes
-- this file, to be read; to make a database, run `orders migrate`.
"""

_OPTIONS = ("--schema-only", "--no-owner", "--no-privileges", "--no-comments")
_HEADER = re.compile(r"^--\n-- Name: (.+); Type: (.+); Schema: .+\n--\n", re.MULTILINE)
_NOT_OURS = re.compile(r"^SET default_\w+ = .*;\n", re.MULTILINE)
_ENDS = re.compile(r"^--\n-- PostgreSQL database dump complete\n.*", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"(?:TABLE(?: ONLY)?|VIEW|\bON|OWNED BY) public\.(\w+)")
_KINDS = (
    "TABLE", "VIEW", "SEQUENCE", "SEQUENCE OWNED BY", "DEFAULT",
    "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "INDEX", "TRIGGER", "FUNCTION",
)  # fmt: skip


class Statement(NamedTuple):
    """What makes one thing. Statements are sorted as they are compared: the functions last, all else by its table."""

    is_function: bool
    table: str
    kind: int
    name: str
    text: str


def snapshot(dsn: str) -> str:
    """What there is in a database, as text."""
    text, table = TITLE, ""
    for statement in sorted(_statements(_dump(dsn))):
        if statement.table != table:
            table = statement.table
            text += f"\n\n-- {table} {'-' * (116 - len(table))}\n"
        text += f"\n{statement.text}\n"
    return text


def _dump(dsn: str) -> str:
    words = [str(EMBEDDED / "pg_dump"), *_OPTIONS, dsn]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def _statements(dump: str) -> Iterator[Statement]:
    _, *parts = _HEADER.split(_NOT_OURS.sub("", _ENDS.sub("", dump)))
    for name, kind, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        is_function = kind == "FUNCTION"
        found = _TABLE.search(text)
        table = "Functions" if is_function else found[1] if found else name
        yield Statement(is_function, table, _KINDS.index(kind), name, text.strip())
