"""The outbox: what Debezium reads in the write-ahead log. Rows are there only inside the assigner's transaction."""

from orders.events.wanted import PREFIX
from orders.order.attached_sql import hidden
from orders.order.document_sql import TIME

# As a webhook is sent it, without the order: `webhooks/body.py`. A test compares them.
_PAYLOAD = f"""jsonb_build_object(
        'type', '{PREFIX}' || e.type, 'timestamp', {TIME.format("e.at")}, 'data', json_build_object(
            'position', v.position, 'order_id', e.order_id, 'number', e.number,
            'order_url', '/orders/' || e.order_id || '?at=' || e.number, 'customer_id', o.customer_id,
            'channel', o.channel, 'actor', e.actor, 'reason', e.reason,
            'before', {hidden("e.before", "false")}, 'after', {hidden("e.after", "false")}, 'details', e.details,
            'order', NULL))"""

# A UUID of version 8 from a SHA-256: PostgreSQL has no SHA-1 of its own, which version 5 needs.
_ID = """overlay(overlay(left(encode(sha256(uuid_send(v.order_id) || convert_to(v.number::text, 'UTF8')), 'hex'), 32)
        placing '8' from 13 for 1) placing 'a' from 17 for 1)::uuid"""

FILL = f"""
        IF %(outbox)s::boolean AND given > 0 THEN
            INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, position, at)
                SELECT {_ID}, 'order', v.order_id, '{PREFIX}' || v.type, {_PAYLOAD}, v.position, e.at
                FROM events v
                JOIN order_events e ON e.order_id = v.order_id AND e.number = v.number
                JOIN orders o ON o.id = v.order_id
                WHERE v.position > head.position ORDER BY v.position;
            DELETE FROM outbox;
        END IF"""
"""A step of the assigner: the events that it has just given their positions pass through the outbox, in their order."""
