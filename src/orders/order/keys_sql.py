"""Idempotency-Keys in the database: finds them, and stores outcomes outside a batch. Inside a batch, `stock` stores
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer that a key remembers: HTTP status, JSON body, and the order if one was placed."""

    status: int
    body: str
    order_id: UUID | None


@dataclass(frozen=True, slots=True)
class KeyInUse:
    """An Idempotency-Key that is known: its request's fingerprint, and the outcome, or None while the request runs."""

    fingerprint: bytes
    outcome: Outcome | None


def find_key(connection: Connection, key: str) -> KeyInUse | None:
    """The known use of this key, or None."""
    return keys_in_use(connection, [key]).get(key)


def keys_in_use(connection: Connection, keys: Sequence[str]) -> dict[str, KeyInUse]:
    """The known uses of these keys."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT key, fingerprint, status, body, order_id FROM idempotency_keys WHERE key = ANY(%s)", (list(keys),)
        )
        return {
            key: KeyInUse(
                bytes(fingerprint), None if status is None else Outcome(status, body, order_id and UUID(order_id))
            )
            for key, fingerprint, status, body, order_id in cursor
        }


def keep_outcome(
    connection: Connection, key: str, fingerprint: bytes, outcome: Outcome, batch: UUID | None = None
) -> bool:
    """Store the answer to a request that placed nothing itself. Returns False, and stores nothing, if another batch has
    the key.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO idempotency_keys AS k (key, fingerprint, batch_id, status, body, order_id)
               VALUES (%(key)s, %(fingerprint)s, coalesce(%(batch)s::uuid, gen_random_uuid()),
                       %(status)s, %(body)s, %(order)s)
               ON CONFLICT (key) DO UPDATE SET status = excluded.status, body = excluded.body,
                                               order_id = excluded.order_id
               WHERE k.status IS NULL AND k.batch_id = excluded.batch_id""",
            {
                "key": key,
                "fingerprint": fingerprint,
                "batch": batch and str(batch),
                "status": outcome.status,
                "body": outcome.body,
                "order": outcome.order_id and str(outcome.order_id),
            },
        )
        return cursor.rowcount > 0
