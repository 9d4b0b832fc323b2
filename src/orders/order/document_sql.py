"""Reading orders. PostgreSQL builds the JSON, and nothing parses it again on its way to the client.

Every function that reads takes a `Seer`: what it does not see is left out by the statement.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from orders.order.attached_sql import hidden, members
from orders.order.document import Document
from orders.order.seer_sql import is_seen_by, seer_values
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step
from orders.principal import SEES_EVERYTHING, Seer

TIME = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

# Inlined copy of the SQL function orders_allowed(): calling it per row made lists six times slower. Keep both in step.
ALLOWED = """coalesce(
        (SELECT CASE WHEN s.is_hold AND o.held_from IS NOT NULL
                THEN o.held_from || array_remove(s.allowed, o.held_from) ELSE s.allowed END
         FROM order_statuses s WHERE s.status = o.status AND NOT (o.adopted AND o.status = 'Pending')),
        CASE WHEN o.adopted THEN orders_allowed(o.status, o.held_from, true) ELSE '{}' END)"""


def order_json(sees_private: str) -> str:
    """SQL for the order `o` as JSON of the wire. `sees_private`: SQL for whether private members are shown, or null
    instead. `true` costs nothing: PostgreSQL leaves the choice out of its plan.
    """
    # psycopg2 reads % in a statement as a placeholder. This text has none.
    return f"""json_build_object(
    'id', o.id, 'number', o.number, 'customer_id', o.customer_id, 'channel', o.channel, 'status', o.status,
    'items', coalesce((
        SELECT json_agg(json_build_object(
            'id', i.id, 'product_id', i.product_id, 'name', i.name, 'quantity', i.quantity,
            'unit_price', i.unit_price, 'total', i.quantity * i.unit_price,
            'cancelled', i.cancelled, 'returned', i.returned) ORDER BY i.id)
        FROM order_items i WHERE i.order_id = o.id), '[]'),
    'currency', o.currency, 'total', o.total, 'version', o.version,
    'allowed_statuses', {ALLOWED},
    {members(sees_private)},
    'created_at', {TIME.format("o.created_at")}, 'updated_at', {TIME.format("o.updated_at")})::text"""


ORDER_JSON = order_json("true")
"""SQL for the whole order `o`, for statements whose answers are nobody's yet, and for seers of private members."""


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
"""The orders `ids`, for seers of everything."""


SEEN_DOCUMENTS = Function(
    "seen_documents",
    [
        Step(
            ALWAYS,
            f"""RETURN QUERY SELECT seer.n, o.version, {order_json("seer.sees_private")}
                FROM unnest(%(ids)s::uuid[], %(customers)s::bigint[], %(channels)s::text[], %(see_private)s::boolean[])
                    WITH ORDINALITY seer(id, customer_id, channel, sees_private, n)
                JOIN orders o ON o.id = seer.id AND (seer.customer_id IS NULL OR o.customer_id = seer.customer_id)
                    AND (seer.channel IS NULL OR o.channel = seer.channel)""",
        )
    ],
    rows="n bigint, version integer, document text",
    only_reads=True,
)
"""The orders `ids`, each if its seer sees it. `n` is the place of the order and its seer in the arrays, from 1 on."""


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
                    SELECT p.id, (SELECT {order_json("%(sees_private)s::boolean")}
                                  FROM orders o WHERE o.id = p.id) AS document
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
these. The statement that gives it the IDs has left out what the seer does not see.
"""


def read_orders(connection: Connection, wanted: Sequence[tuple[UUID, Seer]]) -> dict[tuple[UUID, Seer], Document]:
    """Each of these orders that exists and that its seer sees, whatever its status. One statement for all seers."""
    with connection.cursor() as cursor:
        if all(seer.sees_everything for _, seer in wanted):  # the usual case, which pays nothing for the others
            DOCUMENTS.call(cursor, {"ids": [str(order_id) for order_id, _ in wanted]})
            return {(UUID(order_id), SEES_EVERYTHING): Document(version, json) for order_id, version, json in cursor}
        SEEN_DOCUMENTS.call(cursor, _by_seer(wanted))
        return {wanted[n - 1]: Document(version, json) for n, version, json in cursor}


def _by_seer(wanted: Sequence[tuple[UUID, Seer]]) -> dict[str, Any]:
    return {
        "ids": [str(order_id) for order_id, _ in wanted],
        "customers": [seer.customer_id for _, seer in wanted],
        "channels": [seer.channel for _, seer in wanted],
        "see_private": [seer.sees_private for _, seer in wanted],
    }


def find_order(connection: Connection, order_id: UUID | None, number: int | None, seer: Seer) -> UUID | None:
    """The ID of the order with this ID or this number, if there is one and the seer sees it."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT o.id FROM orders o
                WHERE (o.id = %(id)s::uuid OR o.number = %(number)s) AND {is_seen_by(seer)}""",
            {"id": order_id and str(order_id), "number": number, **seer_values(seer)},
        )
        row = cursor.fetchone()
        return UUID(row[0]) if row else None


SHOP = "shop"
"""What an event says instead of its actor, if the seer may not know who of the staff it was."""


def event_json(sees_private: str, customer: str) -> str:
    """SQL for the event `e` as JSON of the wire. `sees_private` as in `order_json`. `customer`: SQL for the order's
    customer.

    Without it, only the actor and the note of the customer's own events are shown: notes of others are for the staff.
    Nor is it told how long a note was that the event has in part, because that may be the private one.
    """
    shown = f"({sees_private} OR e.actor = 'customer:' || {customer})"
    return f"""json_build_object(
        'number', e.number, 'type', e.type,
        'before', {hidden("e.before", sees_private)}, 'after', {hidden("e.after", sees_private)},
        'details', CASE WHEN {sees_private} THEN e.details ELSE nullif(e.details - 'cut', '{{}}') END,
        'actor', CASE WHEN {shown} THEN e.actor ELSE '{SHOP}' END, 'reason', e.reason,
        'note', CASE WHEN {shown} THEN e.note END, 'request_id', e.request_id,
        'at', {TIME.format("e.at")})"""


EVENT_JSON = event_json("true", "NULL")
"""SQL for the event `e`, for seers of private members."""
