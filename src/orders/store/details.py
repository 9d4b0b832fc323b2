"""What is attached to an order: reading it to merge, and writing it if nobody else changed the order in between."""

import json
from uuid import UUID

import psycopg2.errors

from orders.database import Connection
from orders.order import Details
from orders.store.claiming import reference_orders
from orders.store.reading import ORDER_JSON


class ReferenceTaken(Exception):
    """The external reference is another order's (None: of one that was gone when we looked)."""

    def __init__(self, order_id: UUID | None) -> None:
        super().__init__()
        self.order_id = order_id


def read_details(connection: Connection, order_id: UUID) -> tuple[Details, int, str] | None:
    """What is attached to the order, its version, and its JSON."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT o.external_reference, o.metadata, o.public_note, o.private_note, o.version, {ORDER_JSON}
                FROM orders o WHERE o.id = %s""",
            (str(order_id),),
        )
        row = cursor.fetchone()
    if row is None:
        return None
    reference, metadata, public, private, version, body = row
    dumped = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if metadata else None
    return Details(reference, dumped, public, private), version, body


def write_details(connection: Connection, order_id: UUID, version: int, details: Details) -> str | None:
    """Attach this to the order, if it still has this version; what was attached before is replaced.

    Returns the order's new JSON, or None where someone else has changed it since. Raises ReferenceTaken.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                WITH changed AS (
                    UPDATE orders SET external_reference = %(reference)s, metadata = %(metadata)s,
                                      public_note = %(public)s, private_note = %(private)s,
                                      version = version + 1, updated_at = now()
                    WHERE id = %(id)s AND version = %(version)s RETURNING *)
                SELECT {ORDER_JSON} FROM changed o
                """,
                {
                    "id": str(order_id),
                    "version": version,
                    "reference": details.external_reference,
                    "metadata": details.metadata,
                    "public": details.public_note,
                    "private": details.private_note,
                },
            )
            row = cursor.fetchone()
            return row[0] if row else None
    except psycopg2.errors.UniqueViolation:
        other = reference_orders(connection, [details.external_reference or ""]).get(details.external_reference or "")
        raise ReferenceTaken(other.order_id if other else None) from None
