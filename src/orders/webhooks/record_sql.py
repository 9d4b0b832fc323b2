"""Records how attempts ended: in the deliveries, in the log of attempts, and in the health of the endpoint."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from orders.postgres.database import Connection, Cursor, transaction
from orders.webhooks.model import DisabledReason, Result
from orders.webhooks.outcome import EndpointOutcome, of_delivery, of_endpoint
from orders.webhooks.schedule import Health


def record(connection: Connection, webhook_id: UUID, results: Sequence[Result], retries: Sequence[float]) -> None:
    """Record the results of one endpoint, in one transaction. Safe to repeat.

    A result of an attempt that counted as lost meanwhile is left out, unless it is a success: then it has arrived.
    """
    with transaction(connection) as cursor:
        cursor.execute(
            "SELECT failed_in_row, failing_since, status, now() FROM webhooks WHERE id = %s FOR UPDATE",
            (str(webhook_id),),
        )
        row = cursor.fetchone()
        if row is None:
            return  # it was deleted, and its deliveries with it
        failed_in_row, failing_since, status, now = row
        _record_deliveries(cursor, results, retries, now)
        before = Health(failed_in_row, failing_since)
        after = of_endpoint(before, results, now)
        _record_health(cursor, webhook_id, after, is_enabled=status == "enabled")
        _write_notices(cursor, webhook_id, before, after, now)


def _record_deliveries(cursor: Cursor, results: Sequence[Result], retries: Sequence[float], now: datetime) -> None:
    outcomes = [of_delivery(result, retries, now) for result in results]
    cursor.execute(
        """
        WITH ended AS (
            SELECT * FROM unnest(%(id)s::bigint[], %(attempt)s::integer[], %(state)s::text[], %(due_at)s::timestamptz[],
                %(at)s::timestamptz[], %(status)s::integer[], %(ms)s::integer[], %(error)s::text[], %(reply)s::text[])
                AS e(id, attempt, state, due_at, at, status, ms, error, reply)),
        noted AS (
            INSERT INTO webhook_attempts (delivery_id, number, at, ms, status, error, reply)
            SELECT e.id, e.attempt, e.at, e.ms, e.status, e.error, e.reply FROM ended e JOIN webhook_deliveries d USING (id)
            WHERE e.state <> 'delivered' ON CONFLICT DO NOTHING)
        UPDATE webhook_deliveries d
            SET state = e.state, due_at = coalesce(e.due_at, d.due_at), last_at = e.at, last_status = e.status,
                last_ms = e.ms, last_error = e.error, last_reply = e.reply
            FROM ended e
            WHERE d.id = e.id AND d.state IN ('waiting', 'sending')
              AND (e.state = 'delivered' OR (d.attempts = e.attempt AND d.state = 'sending'))
        """,
        {
            "id": [o.result.message.delivery_id for o in outcomes],
            "attempt": [o.result.message.attempt for o in outcomes],
            "state": [str(o.state) for o in outcomes],
            "due_at": [o.due_at for o in outcomes],
            "at": [o.result.at for o in outcomes],
            "status": [o.result.status for o in outcomes],
            "ms": [o.result.ms for o in outcomes],
            "error": [o.result.error for o in outcomes],
            "reply": [o.result.reply for o in outcomes],
        },
    )


def _record_health(cursor: Cursor, webhook_id: UUID, after: EndpointOutcome, *, is_enabled: bool) -> None:
    disabled = after.disabled if is_enabled else None
    cursor.execute(
        """
        UPDATE webhooks SET failed_in_row = %(failed_in_row)s, failing_since = %(failing_since)s,
            succeeded_at = coalesce(%(succeeded_at)s::timestamptz, succeeded_at), slow_until = %(slow_until)s,
            told_until = CASE WHEN %(failing_since)s::timestamptz IS NULL THEN NULL ELSE now() END,
            status = CASE WHEN %(disabled)s::text IS NULL THEN status ELSE 'disabled' END,
            disabled_reason = coalesce(%(disabled)s, disabled_reason),
            version = version + (%(disabled)s::text IS NOT NULL)::integer
            WHERE id = %(webhook)s::uuid
        """,
        {
            "webhook": str(webhook_id),
            "failed_in_row": after.health.failed_in_row,
            "failing_since": after.health.failing_since,
            "succeeded_at": after.succeeded_at,
            "slow_until": after.slow_until,
            "disabled": disabled and str(disabled),
        },
    )


def _write_notices(cursor: Cursor, webhook_id: UUID, before: Health, after: EndpointOutcome, now: datetime) -> None: ...
