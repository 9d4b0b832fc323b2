"""Reading orders. PostgreSQL builds the JSON, and nothing parses it again on its way to the client."""

from collections.abc import Sequence
from uuid import UUID

from orders.order.attached_sql import MEMBERS
from orders.order.document import Document
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step

TIME = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

# Inlined copy of the SQL function orders_allowed(): calling it per row made lists six times slower. Keep both in step.
ALLOWED = """coalesce(
        (SELECT CASE WHEN s.is_hold AND o.held_from IS NOT NULL
                THEN o.held_from || array_remove(s.allowed, o.held_from) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = o.status AND NOT (o.adopted AND o.status = 'Pending')),
        CASE WHEN o.adopted THEN orders_allowed(o.status, o.held_from, true) ELSE '{}' END)"""

# psycopg2 reads % in a statement as a placeholder. This text has none.
ORDER_JSON = f"""json_build_object(
    'id', o.id, 'number', o.number, 'customer_id', o.customer_id, 'status', o.status,
    'items', coalesce((
        SELECT json_agg(json_build_object(
            'id', i.id, 'product_id', i.product_id, 'name', i.name, 'quantity', i.quantity,
            'unit_price', i.unit_price, 'total', i.quantity * i.unit_price,
            'cancelled', i.cancelled, 'returned', i.returned) ORDER BY i.id)
        FROM order_items i WHERE i.order_id = o.id), '[]'),
    'currency', o.currency, 'total', o.total, 'version', o.version,
    'allowed_statuses', {ALLOWED},
    {MEMBERS},
    'created_at', {TIME.format("o.created_at")}, 'updated_at', {TIME.format("o.updated_at")})::text"""
"""SQL for the order `o` as JSON of the wire."""


SHORT_JSON = "json_build_object('id', o.id, 'status', o.status, 'version', o.version)::text"
"""SQL for the order `o` in short, for answers without room for all of it."""


DOCUMENTS = Function(
    "documents",
    [
        Step(
            ALWAYS,
            f"RETURN QUERY SELECT o.id, o.version, {ORDER_JSON} FROM orders o WHERE o.id = ANY(%(ids)s::uuid[])",
        )
    ],
    rows="id uuid, version integer, document text",
    only_reads=True,
)


PAGE = Function(
    "documents_that_fit",
    [
        Step(
            ALWAYS,
            f"""
            DECLARE
                found record;
                so_far bigint := 0;
            BEGIN
                FOR found IN
                    SELECT p.id, (SELECT {ORDER_JSON} FROM orders o WHERE o.id = p.id) AS document
                    FROM unnest(%(ids)s::uuid[]) p(id)
                LOOP
                    EXIT WHEN so_far > 0 AND so_far + octet_length(found.document) > %(bytes)s::bigint;
                    so_far := so_far + octet_length(found.document);
                    RETURN NEXT found;
                END LOOP;
            END""",
        )
    ],
    rows="id uuid, document text",
    only_reads=True,
)
"""The first of these orders whose sizes sum up to at most `bytes`, but at least one. PostgreSQL builds no more than
these.
"""


def read_orders(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Document]:
    """Each of these orders that exists, whatever its status."""
    with connection.cursor() as cursor:
        DOCUMENTS.call(cursor, {"ids": [str(order_id) for order_id in ids]})
        return {UUID(order_id): Document(version, json) for order_id, version, json in cursor}


def find_order(connection: Connection, order_id: UUID | None, number: int | None) -> UUID | None:
    """The ID of the order with this ID or this number, if there is one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM orders WHERE id = %s::uuid OR number = %s", (order_id and str(order_id), number))
        row = cursor.fetchone()
        return UUID(row[0]) if row else None


EVENT_JSON = f"""json_build_object(
        'number', e.number, 'type', e.type, 'before', e.before, 'after', e.after, 'details', e.details,
        'actor', e.actor, 'reason', e.reason, 'note', e.note, 'request_id', e.request_id,
        'at', {TIME.format("e.at")})"""
"""SQL for the event `e` as JSON of the wire."""
