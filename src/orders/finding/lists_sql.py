"""Finding orders: filters, sorts and pages. A page is an index range with a limit. docs/lists.md names the indexes."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID

import psycopg2.errors

from orders.errors import Code, OrderError
from orders.order import attached_sql
from orders.order.document_sql import PAGE
from orders.order.statuses import FAILED, PENDING
from orders.postgres.database import Connection

T = TypeVar("T")

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
class Range(Generic[T]):
    """Values from `least` (included) to `end` (not included). None: open on that side."""

    least: T | None = None
    end: T | None = None

    def __bool__(self) -> bool:
        return self.least is not None or self.end is not None


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions for orders; all have to hold. Without `statuses`, only placed orders count.

    `created` is a range of IDs, which begin with the time. A value that an adopted order never recorded is in no range.
    """

    statuses: tuple[str, ...] = ()
    customer_id: int | None = None
    product_id: int | None = None
    number: int | None = None
    external_reference: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    created: Range[UUID] = Range()
    updated: Range[datetime] = Range()
    total: Range[int] = Range()


class SortKey(StrEnum):
    """The keys by which a list can be sorted. The ID breaks ties."""

    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    TOTAL = "total"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Sort:
    """A list's order. A value that was never recorded counts as the smallest."""

    by: SortKey = SortKey.CREATED_AT
    descending: bool = True


NEWEST_FIRST = Sort()
OLDEST_FIRST = Sort(descending=False)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list: after the order with this key and ID. The key is None if it was never recorded."""

    key: datetime | int | None
    id: UUID


@dataclass(frozen=True, slots=True)
class Page:
    """Some orders of a list as JSON, and the place where the next page begins (None: this is the last page)."""

    orders: list[str]
    end: Position | None


# The same expressions as in the indexes of migration 0004. An order's ID begins with the time of its creation.
_KEYS = {
    SortKey.CREATED_AT: "o.id",
    SortKey.UPDATED_AT: "coalesce(o.updated_at, '-infinity')",
    SortKey.TOTAL: "coalesce(o.total, -1)",
    SortKey.NUMBER: "o.number",
}
_RECORDED = {SortKey.CREATED_AT: "o.id", SortKey.UPDATED_AT: "o.updated_at", SortKey.TOTAL: "o.total"}
_RECORDED_KEYS = {SortKey.UPDATED_AT: "nullif(key, '-infinity')", SortKey.TOTAL: "nullif(key, -1)"}
_TYPES = {SortKey.UPDATED_AT: "timestamptz", SortKey.TOTAL: "bigint", SortKey.NUMBER: "bigint"}
_NEVER = {SortKey.UPDATED_AT: "-infinity", SortKey.TOTAL: -1}

SMALLEST_ID = UUID(int=1 << 80)  # the first ID of the first millisecond; adopted orders have smaller ones
_FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)

IS_PLACED = "(o.status NOT IN ('Pending', 'Failed') OR o.adopted)"
"""SQL for "the order is placed", word for word as in the partial indexes."""

_EITHER_REFERENCE = "IN (%(normal_reference)s, %(external_reference)s)"
_HAS_STATUS = "o.status = ANY(%(statuses)s::text[])"


def list_orders(
    connection: Connection,
    filters: Filters,
    sort: Sort = NEWEST_FIRST,
    after: Position | None = None,
    *,
    limit: int,
    until: UUID | None = None,
) -> Page:
    """A page of this list: the orders after the place `after`, with IDs below `until`.

    A page ends after `limit` orders or before MAX_PAGE_BYTES, but has at least one order. Raises OrderError if it takes
    too long.
    """
    keys, parameters = _page_keys(filters, sort, after, limit + 1, until)
    ordered = _order_by("key", "id", sort)
    documents = PAGE.of(str(MAX_PAGE_BYTES), f"ARRAY(SELECT id FROM page {ordered} LIMIT {limit})")
    statement = f"""
        WITH page AS MATERIALIZED ({keys})
        SELECT id, {_RECORDED_KEYS.get(sort.by, "key")}, document
        FROM page LEFT JOIN {documents} USING (id) {ordered}"""
    with connection.cursor() as cursor:
        rows = PAGE.run(cursor, lambda: fetch(connection, statement, parameters, LIST_PATIENCE_MS))
    shown = [row for row in rows if row[2] is not None]
    end = None
    if len(shown) < len(rows):
        order_id, key, _ = shown[-1]
        end = Position(None if sort.by is SortKey.CREATED_AT else key, UUID(order_id))
    return Page([document for _, _, document in shown], end)


def count_orders(connection: Connection, filters: Filters, patience_ms: int = PATIENCE_MS) -> int:
    """Number of orders in this list. Raises OrderError if counting takes too long."""
    where, parameters = _conditions(filters)
    counting = f"SELECT count(*) FROM orders o WHERE {' AND '.join(where)}"
    ((count,),) = fetch(connection, counting, parameters, patience_ms)
    return int(count)


def statuses_there_are(connection: Connection) -> list[str]:
    """Every status that some order has, including those that are not in the table. Each costs one index probe."""
    return [status for (status,) in fetch(connection, "SELECT status FROM order_statuses_there_are()", {})]


def page_json(page: Page, next_url: str | None, more: Mapping[str, object]) -> bytes:
    """The page as JSON of the wire. `more` are its other members."""
    members = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in more.items())
    return f'{{"orders":[{",".join(page.orders)}],"next":{json.dumps(next_url)}{members}}}'.encode()


def list_lines(
    connection: Connection, columns: Sequence[str], filters: Filters, after: UUID | None, until: UUID, limit: int
) -> tuple[list[Any], int, UUID | None]:
    """The lines of the next `limit` orders of this list, oldest first; the number of these orders; and the ID after
    which the next page begins (None: this is the last).

    A line has the `columns` (SQL of an order `o` and its item `i`). An order without items has one line. As with
    `list_orders`, large orders end a page earlier, because each line repeats its order's fields.
    """
    place = None if after is None else Position(None, after)
    keys, parameters = _page_keys(filters, OLDEST_FIRST, place, limit, until)
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
        parameters,
    )
    count = len({row[0] for row in rows})
    return [row[2:] for row in rows], count, UUID(rows[-1][0]) if rows and rows[-1][1] else None


_LINES_BYTES = f"""(SELECT greatest(count(*), 1) * (300 + {attached_sql.BYTES})
        + coalesce(sum(octet_length(i.name)), 0) FROM order_items i WHERE i.order_id = o.id)"""
"""SQL for the approximate size of order `o` in an export: the texts that each line has, and 300 bytes
for the numbers.
"""


def _page_keys(
    filters: Filters, sort: Sort, after: Position | None, limit: int, until: UUID | None = None
) -> tuple[str, dict[str, Any]]:
    """The statement that finds a page's orders (ID and sort key), and its parameters.

    If an index begins with the status, the page is merged from one range per status. Each range gives at most a page of
    rows, already sorted. There is no such index by number (docs/lists.md). The statuses are separate parts and not one
    array parameter: of that, PostgreSQL can't tell how rare it is, and would look for three open orders among a million
    finished ones.
    """
    of_ids = [*(_behind_id(sort) if after else ()), *(["{} < %(until)s::uuid"] if until else ())]
    where, parameters = _conditions(filters, of_ids)
    parameters["until"] = until and str(until)
    if after is not None:
        where += [] if _behind_id(sort) else [_behind_key(sort)]
        parameters |= {"after_id": str(after.id), "after_key": _NEVER.get(sort.by) if after.key is None else after.key}
    key, order_by = _KEYS[sort.by], _order_by("key", "id", sort)

    def found(*status: str) -> str:
        conditions = " AND ".join([*where, *status])
        return f"SELECT o.id, {key} AS key FROM orders o WHERE {conditions} {order_by} LIMIT {limit}"

    if filters.statuses:
        where.remove(_HAS_STATUS)
        if sort.by is SortKey.NUMBER and IS_PLACED in where:
            where.remove(IS_PLACED)  # the status implies it, and the index of numbers has no `adopted`
        parameters |= {f"status_{n}": str(status) for n, status in enumerate(filters.statuses)}
        parts = [f"({found(f'o.status = %(status_{n})s')})" for n in range(len(filters.statuses))]
        return f"SELECT * FROM ({' UNION ALL '.join(parts)}) f {order_by} LIMIT {limit}", parameters
    if filters.updated or filters.total or sort.by in (SortKey.UPDATED_AT, SortKey.TOTAL):
        lateral = f"order_statuses_there_are() s CROSS JOIN LATERAL ({found('o.status = s.status')}) f"
        return f"SELECT f.* FROM {lateral} {order_by} LIMIT {limit}", parameters
    return found(), parameters


def _behind_id(sort: Sort) -> Sequence[str]:
    """Conditions for IDs after a place, with {} for the ID. Empty unless the ID is the sort key."""
    return [f"{{}} {_sign(sort)} %(after_id)s::uuid"] if sort.by is SortKey.CREATED_AT else []


def _behind_key(sort: Sort) -> str:
    return f"({_KEYS[sort.by]}, o.id) {_sign(sort)} (%(after_key)s::{_TYPES[sort.by]}, %(after_id)s::uuid)"


def _sign(sort: Sort) -> str:
    return "<" if sort.descending else ">"


def _order_by(key: str, order_id: str, sort: Sort) -> str:
    direction = "DESC" if sort.descending else "ASC"
    return f"ORDER BY {key} {direction}, {order_id} {direction}"


def _conditions(filters: Filters, of_ids: Sequence[str] = ()) -> tuple[list[str], dict[str, Any]]:
    """Conditions for the order `o`, and their parameters.

    `of_ids`: conditions for the order's ID, with {} for the column; the range of creation is one, too. They are
    repeated for the joined tables, because PostgreSQL does not infer them.
    """
    parameters: dict[str, Any] = {
        "statuses": [str(status) for status in filters.statuses],
        "customer_id": filters.customer_id,
        "product_id": filters.product_id,
        "number": filters.number,
        "external_reference": filters.external_reference,
    }
    where = [] if {PENDING, FAILED} & set(filters.statuses) else [IS_PLACED]
    where += [_HAS_STATUS] if filters.statuses else []
    where += [f"o.{name} = %({name})s" for name in ("customer_id", "number") if getattr(filters, name) is not None]
    if filters.external_reference is not None:
        parameters["normal_reference"] = normal = unicodedata.normalize("NFC", filters.external_reference)
        # References from before normalisation are found by their exact text.
        is_normal = normal == filters.external_reference
        where.append("o.external_reference " + ("= %(normal_reference)s" if is_normal else _EITHER_REFERENCE))
    created, bounds = _bounds("created", filters.created, "{}", SMALLEST_ID)
    of_ids = [*of_ids, *created]
    where += [condition.format("o.id") for condition in of_ids]
    parameters |= bounds
    if filters.product_id is not None:
        where.append(_exists("order_items", "i.product_id = %(product_id)s", of_ids))
    for n, (key, value) in enumerate(filters.metadata):
        parameters |= {f"metadata_key_{n}": key, f"metadata_value_{n}": value}
        where.append(
            _exists("order_metadata", f"i.key = %(metadata_key_{n})s AND i.value = %(metadata_value_{n})s", of_ids)
        )
    for name, wanted, sort_key, smallest in (
        ("updated", filters.updated, SortKey.UPDATED_AT, _FIRST_MOMENT),
        ("total", filters.total, SortKey.TOTAL, 0),
    ):
        # one condition for the index, one for the statistics
        for key in (_KEYS[sort_key], _RECORDED[sort_key]) if wanted else ():
            conditions, bounds = _bounds(name, wanted, key, smallest)
            where += conditions
            parameters |= bounds
    return where, parameters


def _exists(table: str, condition: str, of_ids: Sequence[str]) -> str:
    also = "".join(f" AND {of_id.format('i.order_id')}" for of_id in of_ids)
    return f"EXISTS (SELECT FROM {table} i WHERE i.order_id = o.id AND {condition}{also})"


def _bounds(name: str, wanted: Range[Any], key: str, smallest: Any) -> tuple[list[str], dict[str, Any]]:
    """The range as conditions. Its lower end is at least `smallest`, so that values that were never recorded are left
    out.
    """
    conditions: list[str] = []
    least = smallest if wanted.least is None else max(wanted.least, smallest)
    if wanted:
        conditions.append(f"{key} >= %({name}_least)s")
    if wanted.end is not None:
        conditions.append(f"{key} < %({name}_end)s")
    sent = {f"{name}_least": least, f"{name}_end": wanted.end}
    return conditions, {name: str(bound) if isinstance(bound, UUID) else bound for name, bound in sent.items()}


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
