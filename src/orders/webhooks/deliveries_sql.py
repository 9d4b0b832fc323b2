"""The table `webhook_deliveries`, as people read it; and what is delivered again on demand."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg2.errors

from orders.errors import Code, OrderError, invalid
from orders.order.model import Author
from orders.postgres.database import Connection, Cursor, transaction
from orders.postgres.rows import named_rows
from orders.principal import Seer
from orders.webhooks.endpoint_views_sql import IN_CHANNEL, IN_ITS_OWN, refuse_disabled, require_endpoint
from orders.webhooks.endpoints_sql import lock, note
from orders.webhooks.model import DeliveryState

MAX_REPLAYED = 10_000
"""Maximum number of events that are delivered again by one request."""

PASSED = 10_000
"""Maximum number of deliveries that are looked at for one page: filters may leave few of them."""

REPLAY_S = 4
"""Timeout for finding what to deliver again, in seconds; and once more for writing it down."""


@dataclass(frozen=True, slots=True)
class DeliveryFilters:
    """Which deliveries are wanted. None: all. `before`: only those with a smaller ID."""

    state: DeliveryState | None = None
    type: str | None = None
    order_id: UUID | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """A delivery as people see it. `round` 0 is the first; it is delivered again on demand in the next."""

    id: int
    webhook_id: UUID
    message_id: str
    type: str
    position: int | None
    order_id: UUID | None
    number: int | None
    round: int
    state: str
    attempt_count: int
    due_at: datetime | None
    created_at: datetime
    first_at: datetime | None
    last_at: datetime | None
    last_status: int | None
    last_ms: int | None
    last_error: str | None
    last_reply: str | None


@dataclass(frozen=True, slots=True)
class AttemptView:
    """An attempt that has ended. `status` is None if no answer came."""

    number: int
    at: datetime
    ms: int | None
    status: int | None
    error: str | None
    reply: str | None


@dataclass(frozen=True, slots=True)
class Replay:
    """Which events to deliver again: after a position, up to another one, of these types. None: as the endpoint has it.

    `state`: only those whose last delivery is in it. None: also those that were never delivered.
    """

    after: int = 0
    until: int | None = None
    types: tuple[str, ...] | None = None
    state: DeliveryState | None = None


_COLUMNS = """d.id, d.webhook_id,
    coalesce(d.order_id || '-' || d.number, 'notice-' || d.id) AS message_id, d.type, d.position, d.order_id, d.number,
    d.round, d.state, d.attempts AS attempt_count, CASE WHEN d.state = 'waiting' THEN d.due_at END AS due_at,
    d.created_at, d.first_at, d.last_at, d.last_status, d.last_ms, d.last_error, d.last_reply"""

# By the events of an order its deliveries are found without looking at any other.
_LIST = f"""
    SELECT {_COLUMNS} FROM (
        SELECT d.* FROM webhook_deliveries d, (SELECT %(webhook)s::uuid AS id) w
        WHERE {IN_ITS_OWN} AND (%(before)s::bigint IS NULL OR d.id < %(before)s)
        ORDER BY d.webhook_id DESC, d.id DESC LIMIT {PASSED}) d
    WHERE (%(state)s::text IS NULL OR d.state = %(state)s) AND (%(type)s::text IS NULL OR d.type = %(type)s)
    ORDER BY d.id DESC LIMIT %(limit)s
"""
_LIST_OF_ORDER = f"""
    SELECT {_COLUMNS} FROM webhook_deliveries d
    WHERE d.webhook_id = %(webhook)s::uuid
      AND d.position = ANY (ARRAY(SELECT position FROM events WHERE order_id = %(order_id)s::uuid))
      AND (%(before)s::bigint IS NULL OR d.id < %(before)s)
      AND (%(state)s::text IS NULL OR d.state = %(state)s) AND (%(type)s::text IS NULL OR d.type = %(type)s)
    ORDER BY d.id DESC LIMIT %(limit)s
"""
_LAST_PASSED = f"""
    SELECT min(id), count(*) FROM (
        SELECT d.id FROM webhook_deliveries d, (SELECT %(webhook)s::uuid AS id) w
        WHERE {IN_ITS_OWN} AND (%(before)s::bigint IS NULL OR d.id < %(before)s)
        ORDER BY d.webhook_id DESC, d.id DESC LIMIT {PASSED}) d
"""


def list_deliveries(
    connection: Connection, webhook_id: UUID, filters: DeliveryFilters, limit: int, seer: Seer
) -> tuple[list[DeliveryView], int | None]:
    """The newest deliveries that are wanted, and the ID before which the next page begins (None: there are no more).

    The page may be short although there are more: it looks at PASSED deliveries at most. Raises OrderError (404).
    """
    parameters = {
        "webhook": str(webhook_id),
        "before": filters.before,
        "state": filters.state and str(filters.state),
        "type": filters.type,
        "order_id": filters.order_id and str(filters.order_id),
        "limit": limit + 1,
    }
    with connection.cursor() as cursor:
        require_endpoint(cursor, webhook_id, seer)
        cursor.execute(_LIST_OF_ORDER if filters.order_id else _LIST, parameters)
        found = list(_views(cursor))
        if len(found) > limit:
            return found[:limit], found[limit - 1].id
        if filters.order_id:
            return found, None
        cursor.execute(_LAST_PASSED, parameters)
        ((last, count),) = cursor.fetchall()
    return found, last if count == PASSED else None


def find_delivery(connection: Connection, delivery_id: int, seer: Seer) -> tuple[DeliveryView, list[AttemptView]]:
    """The delivery with its attempts that have ended. Raises OrderError (404)."""
    with connection.cursor() as cursor:
        view = _find(cursor, delivery_id, seer)
        cursor.execute(
            """SELECT number, at, ms, status, error, reply FROM webhook_attempts WHERE delivery_id = %s
               ORDER BY number""",
            (delivery_id,),
        )
        attempts = [AttemptView(**row) for row in named_rows(cursor)]
    if view.state == DeliveryState.DELIVERED and view.last_at:  # a success is told by its delivery only
        attempts.append(AttemptView(view.attempt_count, view.last_at, view.last_ms, view.last_status, None, None))
    return view, attempts


def redeliver(connection: Connection, delivery_id: int, author: Author, seer: Seer) -> DeliveryView:
    """Deliver it again, in a new round. If it is still waiting, it is due now instead.

    Raises OrderError: it is unknown (404), or its endpoint is disabled (409).
    """
    with transaction(connection) as cursor:
        asked = _find(cursor, delivery_id, seer)
        refuse_disabled(lock(cursor, asked.webhook_id, seer)["status"])
        cursor.execute(_HASTEN, {"id": delivery_id})
        again = cursor.fetchone()
        if again is None:
            cursor.execute(_AGAIN, {"id": delivery_id})
            again = cursor.fetchone()
            assert again is not None
        (again_id,) = again
        note(cursor, author, "webhook_redelivered", asked.webhook_id, None, {"delivery": again_id, "of": delivery_id})
        return _find(cursor, again_id, seer)


# A round of the same event that has not ended.
_HASTEN = """
    UPDATE webhook_deliveries d SET due_at = CASE WHEN d.state = 'waiting' THEN now() ELSE d.due_at END
    FROM webhook_deliveries asked
    WHERE asked.id = %(id)s AND d.webhook_id = asked.webhook_id AND d.state IN ('waiting', 'sending')
      AND (d.id = asked.id OR d.position = asked.position)
    RETURNING d.id
"""
_AGAIN = """
    INSERT INTO webhook_deliveries (webhook_id, position, order_id, number, type, notice, round)
    SELECT webhook_id, position, order_id, number, type, notice, 1 + coalesce(
        (SELECT max(e.round) FROM webhook_deliveries e WHERE e.webhook_id = d.webhook_id AND e.position = d.position),
        d.round)
    FROM webhook_deliveries d WHERE d.id = %(id)s
    RETURNING id
"""

# The events to deliver again: those that have passed the endpoint, and of which nothing is under way. Those behind its
# position come by themselves. The types are matched as in a tick.
_CHOSEN = f"""
    SELECT e.position, e.order_id, e.number, 'order.' || e.type AS type, last.round
    FROM webhooks w
    JOIN events e ON e.position > %(after)s::bigint AND e.position <= least(w.position, %(until)s::bigint)
    LEFT JOIN LATERAL (
        SELECT d.state, d.round FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.position = e.position
        ORDER BY d.round DESC LIMIT 1) last ON true
    WHERE w.id = %(webhook)s::uuid
      AND (('order.' || e.type) = ANY (coalesce(%(types)s::text[], w.types))
           OR '*' = ANY (coalesce(%(types)s::text[], w.types))
           OR ('order.*' = ANY (coalesce(%(types)s::text[], w.types)) AND e.type <> 'failed'))
      AND (w.channel IS NULL OR w.channel = (SELECT o.channel FROM orders o WHERE o.id = e.order_id))
      AND coalesce(last.state, 'never') NOT IN ('waiting', 'sending')
      AND (%(state)s::text IS NULL OR last.state = %(state)s)
    ORDER BY e.position LIMIT {MAX_REPLAYED + 1}
"""
_COUNT = f"SELECT count(*), (array_agg(position ORDER BY position))[{MAX_REPLAYED}] FROM ({_CHOSEN}) chosen"
_ADD = f"""
    INSERT INTO webhook_deliveries (webhook_id, position, order_id, number, type, round)
    SELECT %(webhook)s::uuid, position, order_id, number, type, coalesce(round + 1, 0) FROM ({_CHOSEN}) chosen
    ORDER BY position
"""


def replay(
    connection: Connection, webhook_id: UUID, asked: Replay, author: Author, seer: Seer, *, dry_run: bool = False
) -> int:
    """Deliver events again, each in a new round. Returns how many. With `dry_run`: only count them.

    Raises OrderError: it is unknown (404) or disabled (409), or there are more than MAX_REPLAYED (422).
    """
    parameters = {
        "webhook": str(webhook_id),
        "after": asked.after,
        "until": asked.until,
        "types": asked.types and list(asked.types),
        "state": asked.state and str(asked.state),
    }
    with _in_time(), transaction(connection) as cursor:
        refuse_disabled(lock(cursor, webhook_id, seer)["status"])
        cursor.execute(f"SET LOCAL statement_timeout = '{REPLAY_S}s'")
        count = _count(cursor, parameters)
        if dry_run or not count:
            return count
        cursor.execute(_ADD, parameters)
        count = cursor.rowcount
        note(cursor, author, "webhook_replayed", webhook_id, None, {**_told(asked), "count": count})
        return count


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except psycopg2.errors.QueryCanceled:
        detail = f"Finding the events takes longer than {REPLAY_S} s. Replay fewer positions at once."
        raise OrderError(Code.TOO_SLOW, detail, retry_after_s=60) from None


def _count(cursor: Cursor, parameters: dict[str, Any]) -> int:
    """How many events are chosen. Raises OrderError (422) for too many, which says where the first part ends."""
    cursor.execute(_COUNT, parameters)
    ((count, until),) = cursor.fetchall()
    if count > MAX_REPLAYED:
        message = f"More than {MAX_REPLAYED} events. Replay them in parts: these, up to position {until}, first."
        raise invalid("#/until", "too_many", message)
    return int(count)


def _told(asked: Replay) -> dict[str, Any]:
    types: Sequence[str] | None = asked.types
    return {"after": asked.after, "until": asked.until, "types": types and list(types), "state": asked.state}


def _find(cursor: Cursor, delivery_id: int, seer: Seer) -> DeliveryView:
    cursor.execute(
        f"""SELECT {_COLUMNS} FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id
            WHERE d.id = %(id)s AND {IN_CHANNEL}""",
        {"id": delivery_id, "channel": seer.channel},
    )
    view = next(_views(cursor), None)
    if view is None:
        raise no_delivery(str(delivery_id))
    return view


def no_delivery(text: str) -> OrderError:
    """The error (404) for a delivery that there is not, or that whoever asks may not know of."""
    return OrderError(Code.DELIVERY_NOT_FOUND, f"There is no delivery {text[:60]!r}.")


def _views(cursor: Cursor) -> Iterator[DeliveryView]:
    for row in named_rows(cursor):
        ids = {name: row[name] and UUID(row[name]) for name in ("webhook_id", "order_id")}
        yield DeliveryView(**{**row, **ids})
