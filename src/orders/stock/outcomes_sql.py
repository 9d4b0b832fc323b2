"""Outcomes that Idempotency-Keys remember, stored by the batch that holds the keys."""

from typing import Any
from uuid import UUID

from orders.order.keys_sql import Outcome
from orders.postgres.database import Connection

FREE_KEYS = """
    DELETE FROM idempotency_keys WHERE batch_id = %(batch)s AND status IS NULL AND key = ANY(%(freed)s::text[])
"""


KEEP_OUTCOMES = """
    UPDATE idempotency_keys k SET status = n.status, body = n.body
        FROM unnest(%(outcome_keys)s::text[], %(outcome_statuses)s::smallint[], %(outcome_bodies)s::text[])
            n(key, status, body)
        WHERE k.key = n.key AND k.batch_id = %(batch)s AND k.status IS NULL
"""


def keep_outcomes(connection: Connection, batch: UUID, outcomes: dict[str, Outcome]) -> bool:
    """Store the outcomes of requests that leave the batch. Returns False if the batch does not hold all of the keys any
    more.
    """
    with connection.cursor() as cursor:
        cursor.execute(KEEP_OUTCOMES, {"batch": str(batch), **outcome_parameters(outcomes)})
        return cursor.rowcount == len(outcomes)


def outcome_parameters(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    return {
        "outcome_keys": list(outcomes),
        "outcome_statuses": [outcome.status for outcome in outcomes.values()],
        "outcome_bodies": [outcome.body for outcome in outcomes.values()],
    }
