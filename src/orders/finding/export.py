"""Exports of whole lists, page by page in constant memory: CSV (a line per item) or NDJSON (a line per order).

An export is not a snapshot. It goes from the oldest order to the newest that existed when it began. Each page is read
at its turn, so nothing is held open in between.
"""

import asyncio
import csv
import io
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from orders.finding.filters import OLDEST_FIRST, Filters, Position
from orders.finding.lists_sql import list_lines, list_orders
from orders.finding.query import first_id
from orders.order import attached_sql
from orders.order.texts import is_formula
from orders.postgres.database import Connection, Database, DatabaseUnavailable
from orders.postgres.lanes import Lane
from orders.principal import Seer

log = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 1_000
"""Maximum number of orders that are read at once: other lists wait no longer than that for a database thread."""

PATIENCE_S = 20.0
"""How long an export waits for an unreachable database before it breaks off."""

COLUMNS = {
    "order_id": "o.id",
    "number": "o.number",
    "customer_id": "o.customer_id",
    "channel": "o.channel",
    "status": "o.status",
    "created_at": "o.created_at AT TIME ZONE 'UTC'",
    "updated_at": "o.updated_at AT TIME ZONE 'UTC'",
    "currency": "o.currency",
    "total": "o.total",
    **attached_sql.SEEN_COLUMNS,
    "version": "o.version",
    "item_id": "i.id",
    "product_id": "i.product_id",
    "name": "i.name",
    "quantity": "i.quantity",
    "unit_price": "i.unit_price",
    "item_total": "i.quantity * i.unit_price",
    "cancelled": "i.cancelled",
    "returned": "i.returned",
}
"""The columns of a line, each with its source in SQL."""

Chunk = tuple[T, int, UUID | None]
"""Some lines, the number of orders in them, and the ID after which the next chunk begins (None: this was the last)."""


def csv_chunk(connection: Connection, seer: Seer, filters: Filters, after: UUID | None, until: UUID) -> Chunk[bytes]:
    """The next lines as CSV (RFC 4180, UTF-8). The first chunk begins with the names of the columns."""
    rows, count, end = rows_chunk(connection, seer, filters, after, until)
    text = io.StringIO()
    writer = csv.writer(text)
    if after is None:
        writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode(), count, end


def ndjson_chunk(connection: Connection, seer: Seer, filters: Filters, after: UUID | None, until: UUID) -> Chunk[bytes]:
    """The next orders, each as a line of the API's JSON."""
    place = None if after is None else Position(None, after)
    page = list_orders(connection, seer, filters, OLDEST_FIRST, place, limit=PAGE, until=until)
    # PostgreSQL breaks no line inside a JSON document: a line end in a text is written as \n.
    return "".join(f"{order}\n" for order in page.orders).encode(), len(page.orders), page.end.id if page.end else None


def rows_chunk(
    connection: Connection, seer: Seer, filters: Filters, after: UUID | None, until: UUID
) -> Chunk[list[Any]]:
    """The next lines as rows of COLUMNS."""
    return list_lines(connection, seer, list(COLUMNS.values()), filters, after, until, PAGE)


async def chunks(
    database: Database,
    read: Callable[[Connection, Seer, Filters, UUID | None, UUID], Chunk[T]],
    seer: Seer,
    filters: Filters,
    turn: asyncio.Semaphore,
) -> AsyncIterator[tuple[T, int]]:
    """All chunks of the orders that the seer sees, each with the number of orders in it.

    Raises DatabaseUnavailable if the database is unreachable for PATIENCE_S in the middle.
    """
    until, after = first_id(datetime.now(UTC)), None
    give_up_at = 0.0
    now = asyncio.get_running_loop().time
    while True:
        try:
            async with turn:
                chunk, count, end = await database.run(
                    lambda c, a=after: read(c, seer, filters, a, until),  # type: ignore[misc]  # as elsewhere
                    Lane.LISTS,
                )
        except DatabaseUnavailable as error:
            give_up_at = give_up_at or now() + PATIENCE_S
            if after is None or now() > give_up_at:
                raise
            log.warning("an export waits for the database: %s", error)
            await asyncio.sleep(0.5)
            continue
        give_up_at = 0.0
        yield chunk, count
        if end is None:
            return
        after = end


def _cell(value: Any) -> Any:
    """The value of a CSV cell. A text gets a ' in front if a spreadsheet would read it as a formula, or if it begins
    with a tab or a line end.
    """
    if isinstance(value, datetime):
        return f"{value.isoformat(timespec='microseconds')}Z"
    if isinstance(value, str) and (is_formula(value) or value.startswith(("\t", "\r", "\n"))):
        return f"'{value}"
    return value
