"""The secrets of endpoints, encrypted: the present one, and those that sign beside it during a rotation."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from cryptography.exceptions import InvalidTag

from orders.postgres.database import Connection, Cursor
from orders.webhooks.signing import Sealing, SignatureKind, SigningKey

KEEP_OLD_FOR = timedelta(hours=24)
"""Default time for which the old secret signs beside the new one."""


def keep_secret(
    cursor: Cursor, webhook_id: UUID, key: SigningKey, sealing: Sealing, keep_old_for: timedelta = KEEP_OLD_FOR
) -> None:
    """Make this the endpoint's present secret. The one before signs beside it for a while. Commits nothing.

    Whoever calls has locked the endpoint's row, or has just added it.
    """
    cursor.execute(
        """DELETE FROM webhook_secrets
           WHERE webhook_id = %(webhook)s::uuid
             AND coalesce(signs_until, now() + %(keep_s)s * interval '1 second') <= now()""",
        {"webhook": str(webhook_id), "keep_s": keep_old_for.total_seconds()},
    )
    cursor.execute(
        """UPDATE webhook_secrets SET signs_until = now() + %(keep_s)s * interval '1 second'
           WHERE webhook_id = %(webhook)s::uuid AND signs_until IS NULL""",
        {"webhook": str(webhook_id), "keep_s": keep_old_for.total_seconds()},
    )
    cursor.execute(
        """INSERT INTO webhook_secrets (webhook_id, number, kind, sealed, public_key)
           SELECT %(webhook)s::uuid, coalesce(max(number), 0) + 1, %(kind)s, %(sealed)s, %(public_key)s
           FROM webhook_secrets WHERE webhook_id = %(webhook)s::uuid""",
        {
            "webhook": str(webhook_id),
            "kind": str(key.kind),
            "sealed": sealing.seal(key, str(webhook_id)),
            "public_key": key.public_text,
        },
    )


def signing_keys(
    connection: Connection, webhook_ids: Collection[UUID], sealing: Sealing
) -> dict[UUID, list[SigningKey]]:
    """The secrets that sign now, by endpoint, the present one first.

    An endpoint is left out if none of its secrets can be opened: ORDERS_SECRET is another one than before.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT webhook_id, kind, sealed FROM webhook_secrets
               WHERE webhook_id = ANY(%s::uuid[]) AND (signs_until IS NULL OR signs_until > now())
               ORDER BY webhook_id, number DESC""",
            ([str(webhook_id) for webhook_id in webhook_ids],),
        )
        rows = cursor.fetchall()
    keys: dict[UUID, list[SigningKey]] = {}
    for webhook_id, kind, sealed in rows:
        try:
            key = sealing.open(SignatureKind(kind), bytes(sealed), str(webhook_id))
        except InvalidTag:
            continue
        keys.setdefault(UUID(webhook_id), []).append(key)
    return keys
