"""Lists of orders. A page is an index range with a limit, or merged from several. docs/lists.md names the indexes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg2.errors

from orders.errors import Code, OrderError
from orders.finding.conditions_sql import (
    KEYS,
    Condition,
    all_of,
    before,
    behind,
    conditions,
    has_status,
    placed_ones,
    values_of,
)
from orders.finding.filters import NEWEST_FIRST, OLDEST_FIRST, Filters, Position, Sort, SortKey
from orders.order import attached_sql
from orders.order.document_sql import PAGE
from orders.order.seer_sql import seer_values
from orders.postgres.database import Connection
from orders.principal import Seer

PATIENCE_MS = 8_000
"""Timeout for a statement of a report or an export, in milliseconds: shorter than anybody waits for a
database thread.
"""

LIST_PATIENCE_MS = 4_000
"""Timeout for finding a page of a list, in milliseconds. It is half of the other, because any client may ask for many
pages at once, and each takes one of the few threads of the lists.
"""

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Maximum size of the orders of one page: it bounds the memory for a client that does not read them. A page of the
usual hundred orders has some 60 kB.
"""


@dataclass(frozen=True, slots=True)
class Page:
    """Some orders of a list as JSON, and the place where the next page begins (None: this is the last page)."""

    orders: list[str]
    end: Position | None


_RECORDED_KEYS = {SortKey.UPDATED_AT: "nullif(key, '-infinity')", SortKey.TOTAL: "nullif(key, -1)"}


def list_orders(
    connection: Connection,
    seer: Seer,
    filters: Filters,
    sort: Sort = NEWEST_FIRST,
    after: Position | None = None,
    *,
    limit: int,
    until: UUID | None = None,
) -> Page:
    """A page of this list: the orders that the seer sees, after the place `after`, with IDs below `until`.

    A page ends after `limit` orders or before MAX_PAGE_BYTES, but has at least one order. Raises OrderError if it takes
    too long.
    """
    keys, parameters = _page_keys(seer, filters, sort, after, limit + 1, until)
    ordered = _order_by("key", "id", sort)
    documents = PAGE.of(str(MAX_PAGE_BYTES), f"ARRAY(SELECT id FROM page {ordered} LIMIT {limit})", "%(sees_private)s")
    statement = f"""
        WITH page AS MATERIALIZED ({keys})
        SELECT id, {_RECORDED_KEYS.get(sort.by, "key")}, document
        FROM page LEFT JOIN {documents} USING (id) {ordered}"""
    parameters |= seer_values(seer)
    with connection.cursor() as cursor:
        rows = PAGE.run(cursor, lambda: fetch(connection, statement, parameters, LIST_PATIENCE_MS))
    shown = [row for row in rows if row[2] is not None]
    end = None
    if len(shown) < len(rows):
        order_id, key, _ = shown[-1]
        end = Position(None if sort.by is SortKey.CREATED_AT else key, UUID(order_id))
    return Page([document for _, _, document in shown], end)


def count_orders(connection: Connection, seer: Seer, filters: Filters, patience_ms: int = PATIENCE_MS) -> int:
    """Number of orders in this list that the seer sees. Raises OrderError if counting takes too long."""
    where = [*placed_ones(filters), *has_status(filters), *conditions(filters, seer)]
    counting = f"SELECT count(*) FROM orders o WHERE {all_of(where)}"
    ((count,),) = fetch(connection, counting, values_of(where), patience_ms)
    return int(count)


def statuses_there_are(connection: Connection) -> list[str]:
    """Every status that some order has, including those that are not in the table. Each costs one index probe.

    Needs no seer: which statuses a shop has is no secret, nor that some order is at one.
    """
    return [status for (status,) in fetch(connection, "SELECT status FROM order_statuses_there_are()", {})]


def page_json(page: Page, next_url: str | None, more: Mapping[str, object]) -> bytes:
    """The page as JSON of the wire. `more` are its other members."""
    members = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in more.items())
    return f'{{"orders":[{",".join(page.orders)}],"next":{json.dumps(next_url)}{members}}}'.encode()


def list_lines(
    connection: Connection,
    seer: Seer,
    columns: Sequence[str],
    filters: Filters,
    after: UUID | None,
    until: UUID,
    limit: int,
) -> tuple[list[Any], int, UUID | None]:
    """The lines of the next `limit` orders of this list that the seer sees, oldest first; the number of these orders;
    and the ID after which the next page begins (None: this is the last).

    A line has the `columns` (SQL of an order `o` and its item `i`). An order without items has one line. As with
    `list_orders`, large orders end a page earlier, because each line repeats its order's fields.
    """
    place = None if after is None else Position(None, after)
    keys, parameters = _page_keys(seer, filters, OLDEST_FIRST, place, limit, until)
    rows = fetch(
        connection,
        f"""WITH page AS MATERIALIZED ({keys}),
            sized AS MATERIALIZED (
                SELECT o.id, {_LINES_BYTES} AS bytes, count(*) OVER () = {limit} AS is_full
                FROM page JOIN orders o USING (id)),
            taken AS (
                SELECT id, is_full OR sum(bytes) OVER () > {MAX_PAGE_BYTES} AS has_more,
                    sum(bytes) OVER (ORDER BY id) - bytes AS before FROM sized)
            SELECT o.id, t.has_more, {", ".join(columns)} FROM taken t JOIN orders o USING (id)
            LEFT JOIN order_items i ON i.order_id = o.id
            WHERE t.before < {MAX_PAGE_BYTES} ORDER BY o.id, i.id""",
        {**parameters, **seer_values(seer)},
    )
    count = len({row[0] for row in rows})
    return [row[2:] for row in rows], count, UUID(rows[-1][0]) if rows and rows[-1][1] else None


_LINES_BYTES = f"""(SELECT greatest(count(*), 1) * (300 + {attached_sql.BYTES})
        + coalesce(sum(octet_length(i.name)), 0) FROM order_items i WHERE i.order_id = o.id)"""
"""SQL for the approximate size of order `o` in an export: the texts that each line has, and 300 bytes
for the numbers.
"""


def _page_keys(
    seer: Seer, filters: Filters, sort: Sort, after: Position | None, limit: int, until: UUID | None = None
) -> tuple[str, dict[str, Any]]:
    """The statement that finds a page's orders (ID and sort key), and its parameters.

    If an index begins with the status, the page is merged from one range per status. Each range gives at most a page of
    orders, already sorted.
    """
    of_ids, of_keys = behind(after, sort) if after else ([], [])
    where = [*conditions(filters, seer, [*of_ids, *before(until)]), *of_keys]
    if filters.statuses:
        return _from_these_statuses(filters, where, sort, limit)
    where = [*placed_ones(filters), *where]
    if filters.updated or filters.total or sort.by in (SortKey.UPDATED_AT, SortKey.TOTAL):
        return _from_every_status(where, sort, limit), values_of(where)
    return _from_one_range(where, sort, limit), values_of(where)


def _from_these_statuses(
    filters: Filters, where: Sequence[Condition], sort: Sort, limit: int
) -> tuple[str, dict[str, Any]]:
    """The page, merged from one range per status in the filters. By number, no index begins with the status
    (docs/lists.md).

    The statuses are separate parts and not one array parameter: of that, PostgreSQL can't tell how rare it is, and
    would look for three open orders among a million finished ones.
    """
    if sort.by is not SortKey.NUMBER:  # the status implies it, and the index of numbers has no `adopted`
        where = [*placed_ones(filters), *where]
    each = [
        [*where, Condition(f"o.status = %(status_{n})s", {f"status_{n}": str(status)})]
        for n, status in enumerate(filters.statuses)
    ]
    ranges = " UNION ALL ".join(f"({_from_one_range(one, sort, limit)})" for one in each)
    statement = f"SELECT * FROM ({ranges}) f {_order_by('key', 'id', sort)} LIMIT {limit}"
    return statement, {name: value for one in each for name, value in values_of(one).items()}


def _from_every_status(where: Sequence[Condition], sort: Sort, limit: int) -> str:
    """The page, merged from one range per status that any order has."""
    one = _from_one_range([*where, Condition("o.status = s.status")], sort, limit)
    lateral = f"order_statuses_there_are() s CROSS JOIN LATERAL ({one}) f"
    return f"SELECT f.* FROM {lateral} {_order_by('key', 'id', sort)} LIMIT {limit}"


def _from_one_range(where: Sequence[Condition], sort: Sort, limit: int) -> str:
    """The page from one range of an index."""
    key = KEYS[sort.by]
    order_by = _order_by("key", "id", sort)
    return f"SELECT o.id, {key} AS key FROM orders o WHERE {all_of(where)} {order_by} LIMIT {limit}"


def _order_by(key: str, order_id: str, sort: Sort) -> str:
    direction = "DESC" if sort.descending else "ASC"
    return f"ORDER BY {key} {direction}, {order_id} {direction}"


def fetch(
    connection: Connection, statement: str, parameters: dict[str, Any], patience_ms: int = PATIENCE_MS
) -> list[Any]:
    """The rows of `statement`. One string is one transaction, so the timeout applies to this statement only.

    Raises OrderError if it takes longer than `patience_ms`.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {patience_ms}; {statement}", parameters)
            return cursor.fetchall()
    except psycopg2.errors.QueryCanceled:
        raise OrderError(Code.TOO_SLOW, f"It takes longer than {patience_ms / 1000:g} s.", retry_after_s=60) from None
