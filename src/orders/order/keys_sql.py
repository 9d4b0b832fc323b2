"""Idempotency-Keys in the database: finds them, and stores outcomes outside a batch. Inside a batch, `stock` stores
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orders.postgres.database import Connection
from orders.postgres.rows import named_rows


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer that a key remembers: HTTP status, JSON body, and the order if one was placed.

    `version`: the version of the order in the body. It is stored in the body only, and `keys_in_use` reads it there.
    """

    status: int
    body: str
    order_id: UUID | None
    version: int | None = None


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
            """SELECT key, fingerprint, status, body, order_id,
                      CASE WHEN status < 300 THEN (body::json ->> 'version')::integer END AS version
               FROM idempotency_keys WHERE key = ANY(%s)""",
            (list(keys),),
        )
        return {row["key"]: KeyInUse(bytes(row["fingerprint"]), _outcome(row)) for row in named_rows(cursor)}


def _outcome(row: dict[str, Any]) -> Outcome | None:
    if row["status"] is None:
        return None
    order_id = row["order_id"] and UUID(row["order_id"])
    return Outcome(row["status"], row["body"], order_id, row["version"])


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
