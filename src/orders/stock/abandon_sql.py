"""Gives up a batch that has sent nothing."""

from uuid import UUID

from orders.order.events import EventType
from orders.order.keys_sql import Outcome
from orders.postgres.database import Connection
from orders.stock.outcomes_sql import KEEP_OUTCOMES, outcome_parameters

FAIL = f"""
    failed AS (
        UPDATE orders SET status = 'Failed', failure = 'order_failed', updated_at = now()
        WHERE batch_id = %(batch)s AND status = 'Pending' RETURNING id),
    events AS (
        INSERT INTO order_events (order_id, number, type, before, after, actor, reason)
        SELECT id, 1, '{EventType.FAILED}', '{{"status": "Pending"}}', '{{"status": "Failed"}}', 'recovery',
               'order_failed'
        FROM failed)
"""
"""SQL parts that fail the `Pending` orders of a batch and add their events."""


def abandon(connection: Connection, batch: UUID, outcomes: dict[str, Outcome]) -> None:
    """Undo CLAIM and INTEND of a batch that has sent nothing. Safe to repeat. Does nothing to a batch that is gone."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            -- First of all: an INTEND whose answer was lost may still be running. It holds these rows; then it is done.
            SELECT FROM stock_claims WHERE batch_id = %(batch)s ORDER BY product_id FOR UPDATE;
            {KEEP_OUTCOMES};
            DELETE FROM idempotency_keys WHERE batch_id = %(batch)s AND status IS NULL;
            UPDATE stock_returns SET batch_id = NULL WHERE batch_id = %(batch)s AND returned_at IS NULL;
            WITH {FAIL}
            SELECT FROM failed;
            DELETE FROM stock_claims WHERE batch_id = %(batch)s
            """,
            {"batch": str(batch), **outcome_parameters(outcomes)},
        )
