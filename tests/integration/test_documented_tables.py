"""docs/tables.md names every table and view that the migrations make, and every column of it."""

import re
from pathlib import Path

from tests.conftest import execute

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
COLUMNS = """
    SELECT table_name, array_agg(column_name::text) FROM information_schema.columns
    WHERE table_schema = current_schema() GROUP BY table_name
"""


def test_the_page_of_tables_has_each_table_with_its_columns(migrated_dsn: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    documented = {table: sorted(re.findall(r"`(\w+)`", columns)) for table, columns in rows}
    there = {table: sorted(columns) for table, columns in execute(migrated_dsn, COLUMNS)}
    assert documented.keys() == there.keys()
    assert documented == there
