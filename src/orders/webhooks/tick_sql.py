"""A tick of one endpoint: new events get their deliveries, and what is due is taken for sending."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step
from orders.postgres.rows import named_rows
from orders.webhooks.model import Endpoint, Message, Ordering, Payload
from orders.webhooks.schedule import PROBE_AFTER

STRIDE = 1_000
"""Maximum number of positions of the feed that one tick passes."""

MAX_WAITING = 10_000
"""Maximum number of deliveries of one endpoint that wait. Other events wait in the feed, where they cost nothing."""

LEASE_S = 60.0
"""Time after which a delivery that is being sent counts as lost, and is due again. An attempt takes 15 s at most."""

# Of one endpoint, one tick runs at a time: the lock is its row. Each statement sees what was committed before it began.
# The lock is one that foreign keys do not wait for.
_LOCK = """
    DECLARE
        w webhooks;
        room integer;
    BEGIN
        SELECT * INTO w FROM webhooks WHERE id = %(webhook)s::uuid AND status = 'enabled' FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN;
        END IF"""

# The deliveries of events and the endpoint's position are written together: each event gets one, whatever dies.
# A wildcard for all of the orders' events leaves out orders that were never placed.
_FAN_OUT = """
        IF (SELECT count(*) FROM (SELECT FROM webhook_deliveries
                WHERE webhook_id = w.id AND state IN ('waiting', 'sending') LIMIT %(max_waiting)s::integer) d)
                < %(max_waiting)s THEN
            WITH passed AS MATERIALIZED (
                SELECT position, order_id, number, type FROM events
                WHERE position > w.position ORDER BY position LIMIT %(stride)s::integer),
            added AS (
                INSERT INTO webhook_deliveries (webhook_id, position, order_id, number, type)
                SELECT w.id, e.position, e.order_id, e.number, 'order.' || e.type FROM passed e
                WHERE (('order.' || e.type) = ANY (w.types) OR '*' = ANY (w.types)
                       OR ('order.*' = ANY (w.types) AND e.type <> 'failed'))
                  AND (w.channel IS NULL OR w.channel = (SELECT o.channel FROM orders o WHERE o.id = e.order_id))
                ORDER BY e.position
                ON CONFLICT DO NOTHING)
            UPDATE webhooks SET position = last.position
                FROM (SELECT max(position) AS position FROM passed) last
                WHERE id = w.id AND last.position IS NOT NULL;
        END IF"""

# An endpoint that fails gets one delivery at a time. The other deliveries keep their attempts.
_ROOM = """
        IF w.slow_until > now() THEN
            RETURN;
        END IF;
        room := CASE WHEN w.failed_in_row >= %(probe_after)s::integer THEN 1 ELSE w.concurrency END
            - (SELECT count(*) FROM webhook_deliveries d
               WHERE d.webhook_id = w.id AND d.state = 'sending' AND d.due_at > now());
        IF room <= 0 THEN
            RETURN;
        END IF"""

# A delivery waits for all earlier ones of its order. `due_at` is the lease of what is being sent. IS NOT DISTINCT FROM
# keeps PostgreSQL from looking through all deliveries of the endpoint: it plans a function without knowing how many.
_TAKE = """
        RETURN QUERY WITH due AS MATERIALIZED (
            SELECT d.id FROM webhook_deliveries d
            WHERE d.webhook_id = w.id AND d.state IN ('waiting', 'sending') AND d.due_at <= now()
              AND (w.ordering = 'none' OR d.position IS NULL OR NOT EXISTS (
                    SELECT FROM webhook_deliveries e
                    WHERE e.order_id = d.order_id AND e.position < d.position
                      AND e.webhook_id IS NOT DISTINCT FROM d.webhook_id AND e.state IN ('waiting', 'sending')))
            ORDER BY d.due_at, d.id LIMIT room)
        UPDATE webhook_deliveries d
            SET state = 'sending', attempts = d.attempts + 1, due_at = now() + %(lease_s)s::float * interval '1 second',
                first_at = coalesce(d.first_at, now())
            FROM due WHERE d.id = due.id
            RETURNING d.id, d.type, d.attempts::integer, d.created_at, d.position, d.order_id, d.number,
                      d.notice::text;
    END"""

TICK = Function(
    "tick_webhook",
    [Step(ALWAYS, ";\n".join((_LOCK, _FAN_OUT, _ROOM, _TAKE)))],
    rows="id bigint, type text, attempt integer, created_at timestamptz, "
    '"position" bigint, order_id uuid, number integer, notice text',
)
"""One tick. Its rows are the deliveries that it took."""


def tick(connection: Connection, webhook_id: UUID) -> list[Message]:
    """Write the deliveries of new events, and take those that are due and may be sent now. Whoever calls has to send
    these within LEASE_S, and to record the results.

    One transaction of one statement. Nothing is taken if the endpoint is disabled, is failing and not to be probed yet,
    or if another replica is at it.
    """
    parameters = {
        "webhook": str(webhook_id),
        "stride": STRIDE,
        "max_waiting": MAX_WAITING,
        "probe_after": PROBE_AFTER,
        "lease_s": LEASE_S,
    }
    with connection.cursor() as cursor:
        TICK.call(cursor, parameters)
        return [_message(webhook_id, row) for row in named_rows(cursor)]


def _message(webhook_id: UUID, row: dict[str, Any]) -> Message:
    order_id = row.pop("order_id")
    return Message(row.pop("id"), webhook_id, order_id=order_id and UUID(order_id), **row)


def endpoints_to_tick(connection: Connection) -> list[UUID]:
    """The endpoints for which there is something to do: events that they have not seen, or deliveries that are due."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT w.id FROM webhooks w
               WHERE w.status = 'enabled' AND (
                   w.position < (SELECT max(position) FROM events)
                   OR (coalesce(w.slow_until, '-infinity') <= now() AND EXISTS (
                       SELECT FROM webhook_deliveries d
                       WHERE d.webhook_id = w.id AND d.state IN ('waiting', 'sending') AND d.due_at <= now())))"""
        )
        return [UUID(webhook_id) for (webhook_id,) in cursor]


ENDPOINT_COLUMNS = "id, url, types, payload, ordering, concurrency, channel, schema_version"
"""The columns of `webhooks` that make an Endpoint."""


def endpoint(row: dict[str, Any]) -> Endpoint:
    """The endpoint in a row with ENDPOINT_COLUMNS."""
    return Endpoint(
        UUID(row["id"]),
        row["url"],
        tuple(row["types"]),
        Payload(row["payload"]),
        Ordering(row["ordering"]),
        row["concurrency"],
        row["channel"],
        row["schema_version"],
    )


@dataclass(frozen=True, slots=True)
class Present:
    """An endpoint that is enabled, as it is now. `is_behind`: there are events that have no deliveries to it yet."""

    endpoint: Endpoint
    position: int
    is_behind: bool


def read_enabled(connection: Connection, webhook_id: UUID) -> Present | None:
    """The endpoint, or None if it is disabled or was deleted."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT {ENDPOINT_COLUMNS}, position,
                       position < (SELECT coalesce(max(position), 0) FROM events) AS is_behind
                FROM webhooks WHERE id = %s::uuid AND status = 'enabled'""",
            (str(webhook_id),),
        )
        for row in named_rows(cursor):
            return Present(endpoint(row), row["position"], row["is_behind"])
        return None
