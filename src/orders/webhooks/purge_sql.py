"""Deletes deliveries that ended long ago. What waits is never deleted."""

from orders.postgres.database import Connection

PURGED = 1_000
"""Maximum number of deliveries that are deleted at once: a moment's work, and short locks."""


def purge(connection: Connection, keep_days: float) -> bool:
    """Delete some deliveries that ended more than `keep_days` ago. Returns whether there may be
    more.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """DELETE FROM webhook_deliveries WHERE id IN (
                   SELECT id FROM webhook_deliveries
                   WHERE state IN ('delivered', 'failed') AND created_at < now() - %(days)s * interval '1 day'
                     AND coalesce(last_at, created_at) < now() - %(days)s * interval '1 day'
                   ORDER BY created_at LIMIT %(most)s FOR UPDATE SKIP LOCKED)""",
            {"days": keep_days, "most": PURGED},
        )
        return cursor.rowcount == PURGED
