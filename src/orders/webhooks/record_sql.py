"""Records how attempts ended: in the deliveries, in the log of attempts, and in the health of the endpoint.

The endpoint's row is locked first, as in a tick.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from orders.order.document_sql import TIME
from orders.postgres.database import Connection, Cursor, transaction
from orders.postgres.functions import ALWAYS, Function, Step
from orders.webhooks.model import ALL_TYPES, OF_WEBHOOKS, DisabledReason, Result
from orders.webhooks.outcome import DeliveryOutcome, EndpointOutcome, of_delivery, of_endpoint
from orders.webhooks.schedule import Health

FAILING = "webhook.failing"
DISABLED = "webhook.disabled"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What has changed for the endpoint: the notices about it that were written, and why it is disabled now."""

    notices: tuple[str, ...] = ()
    disabled: DisabledReason | None = None


NOTHING_NEW = Recorded()


def record(connection: Connection, webhook_id: UUID, results: Sequence[Result], retries: Sequence[float]) -> Recorded:
    """Record the results of one endpoint, in one transaction. Safe to repeat.

    A result of an attempt that counted as lost meanwhile is left out, unless it is a success: then it has arrived.
    """
    if all(result.is_success for result in results):
        return _record_successes(connection, webhook_id, results)
    with transaction(connection) as cursor:
        cursor.execute(
            """SELECT failed_in_row, failing_since, told_until, status = 'enabled', now() FROM webhooks
               WHERE id = %s FOR NO KEY UPDATE""",
            (str(webhook_id),),
        )
        row = cursor.fetchone()
        if row is None:
            return NOTHING_NEW  # it was deleted, and its deliveries with it
        failed_in_row, failing_since, told_until, is_enabled, now = row
        written = _record_deliveries(cursor, [of_delivery(result, retries, now) for result in results])
        counted = [result for result in results if result.message.delivery_id in written]
        after = of_endpoint(Health(failed_in_row, failing_since), counted, now)
        disabled = after.disabled if is_enabled else None
        _record_health(cursor, webhook_id, after, disabled)
        notices = _due_notices(after.health, told_until, disabled, now) if is_enabled else ()
        for notice in notices:
            _write_notice(cursor, webhook_id, notice)
        return Recorded(notices, disabled)


# Most of all attempts succeed, so that they cost one statement. A success ends a series of failures.
RECORD = Function(
    "record_delivered",
    [
        Step(
            ALWAYS,
            """
            BEGIN
                PERFORM FROM webhooks WHERE id = %(webhook)s::uuid FOR NO KEY UPDATE;
                UPDATE webhook_deliveries d
                    SET state = 'delivered', last_at = e.at, last_status = e.status, last_ms = e.ms,
                        last_error = NULL, last_reply = NULL
                    FROM unnest(%(id)s::bigint[], %(at)s::timestamptz[], %(status)s::integer[], %(ms)s::integer[])
                        e(id, at, status, ms)
                    WHERE d.id = e.id AND d.state <> 'delivered';
                UPDATE webhooks SET failed_in_row = 0, failing_since = NULL, told_until = NULL, succeeded_at = now()
                    WHERE id = %(webhook)s AND (failed_in_row > 0
                        OR coalesce(succeeded_at, '-infinity') < now() - interval '1 second');
            END""",
        )
    ],
)
"""Records attempts that all succeeded."""


def _record_successes(connection: Connection, webhook_id: UUID, results: Sequence[Result]) -> Recorded:
    parameters = {
        "webhook": str(webhook_id),
        "id": [result.message.delivery_id for result in results],
        "at": [result.at for result in results],
        "status": [result.status for result in results],
        "ms": [result.ms for result in results],
    }
    with connection.cursor() as cursor:
        RECORD.call(cursor, parameters)
    return NOTHING_NEW


def _record_deliveries(cursor: Cursor, outcomes: Sequence[DeliveryOutcome]) -> set[int]:
    """Write what becomes of the deliveries, and the attempts that failed. Returns the deliveries that were changed."""
    cursor.execute(
        """
        WITH ended AS (
            SELECT * FROM unnest(%(id)s::bigint[], %(attempt)s::integer[], %(state)s::text[], %(due_at)s::timestamptz[],
                %(at)s::timestamptz[], %(status)s::integer[], %(ms)s::integer[], %(error)s::text[], %(reply)s::text[])
                AS e(id, attempt, state, due_at, at, status, ms, error, reply)),
        noted AS (
            INSERT INTO webhook_attempts (delivery_id, number, at, ms, status, error, reply)
            SELECT e.id, e.attempt, e.at, e.ms, e.status, e.error, e.reply
            FROM ended e JOIN webhook_deliveries d USING (id)
            WHERE e.state <> 'delivered' ON CONFLICT DO NOTHING)
        UPDATE webhook_deliveries d
            SET state = e.state, due_at = coalesce(e.due_at, d.due_at), last_at = e.at, last_status = e.status,
                last_ms = e.ms, last_error = e.error, last_reply = e.reply
            FROM ended e
            WHERE d.id = e.id AND ((e.state = 'delivered' AND d.state <> 'delivered')
                                   OR (d.attempts = e.attempt AND d.state = 'sending'))
            RETURNING d.id
        """,
        _outcome_parameters(outcomes),
    )
    return {delivery_id for (delivery_id,) in cursor}


def _outcome_parameters(outcomes: Sequence[DeliveryOutcome]) -> dict[str, list[Any]]:
    results = [outcome.result for outcome in outcomes]
    return {
        "id": [result.message.delivery_id for result in results],
        "attempt": [result.message.attempt for result in results],
        "state": [str(outcome.state) for outcome in outcomes],
        "due_at": [outcome.due_at for outcome in outcomes],
        "at": [result.at for result in results],
        "status": [result.status for result in results],
        "ms": [result.ms for result in results],
        "error": [result.error for result in results],
        "reply": [None if result.is_success else result.reply for result in results],
    }


def _record_health(cursor: Cursor, webhook_id: UUID, after: EndpointOutcome, disabled: DisabledReason | None) -> None:
    # A pause that was asked for meanwhile is kept: greatest() passes by what is null.
    cursor.execute(
        """
        UPDATE webhooks SET failed_in_row = %(failed_in_row)s, failing_since = %(failing_since)s,
            succeeded_at = coalesce(%(succeeded_at)s::timestamptz, succeeded_at),
            slow_until = greatest(slow_until, %(slow_until)s::timestamptz),
            told_until = CASE WHEN %(failing_since)s::timestamptz IS NOT NULL THEN now() END,
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


def _due_notices(
    health: Health, told_until: datetime | None, disabled: DisabledReason | None, now: datetime
) -> tuple[str, ...]:
    if disabled:
        return (DISABLED,)
    before = told_until or health.failing_since
    return (FAILING,) if before and health.notices(before, now) else ()


# The URL stays here: it may have a secret in it. An endpoint for one channel learns nothing of others.
_NOTICE = f"""
    INSERT INTO webhook_deliveries (webhook_id, type, notice)
    SELECT other.id, %(type)s, jsonb_build_object('webhook_id', w.id, 'description', w.description,
        'disabled_reason', w.disabled_reason, 'failing_since', {TIME.format("w.failing_since")},
        'failed_in_row', w.failed_in_row)
    FROM webhooks w JOIN webhooks other ON other.id <> w.id AND other.status = 'enabled'
        AND other.types && %(patterns)s::text[] AND (other.channel IS NULL OR other.channel = w.channel)
    WHERE w.id = %(webhook)s::uuid
"""


def _write_notice(cursor: Cursor, webhook_id: UUID, type: str) -> None:
    """Write a notice about the endpoint to all others that want it."""
    patterns = [type, OF_WEBHOOKS, ALL_TYPES]
    cursor.execute(_NOTICE, {"webhook": str(webhook_id), "type": type, "patterns": patterns})
