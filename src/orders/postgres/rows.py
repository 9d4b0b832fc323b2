"""Rows by the names of their columns: a column that is missing, or has another's name, is an error and no mix-up."""

from collections.abc import Iterator
from typing import Any

from orders.postgres.database import Cursor


def named_rows(cursor: Cursor) -> Iterator[dict[str, Any]]:
    """The rows of what was run last, each as a dictionary."""
    names = [column.name for column in cursor.description or ()]
    for row in cursor:
        yield dict(zip(names, row, strict=True))
