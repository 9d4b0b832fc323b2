"""Reads what the messages say: the events, and the orders as they were after them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from orders.finding.history import as_of
from orders.finding.past_sql import read_pasts
from orders.order.attached_sql import hidden
from orders.order.document_sql import TIME
from orders.order.statuses import Workflow
from orders.postgres.database import Connection
from orders.postgres.functions import ALWAYS, Function, Step
from orders.principal import Seer
from orders.webhooks.body import body_of_event, body_of_notice
from orders.webhooks.model import Message, Payload

# In the order in which receivers see the members. Private notes are never sent.
_EVENT = f"""json_build_object(
    'type', e.type, 'at', {TIME.format("e.at")},
    'position', w.position, 'order_id', e.order_id, 'number', e.number,
    'order_url', '/orders/' || e.order_id || '?at=' || e.number, 'customer_id', o.customer_id, 'channel', o.channel,
    'actor', e.actor, 'reason', e.reason,
    'before', {hidden("e.before", "false")}, 'after', {hidden("e.after", "false")}, 'details', e.details)"""

EVENTS_TO_SEND = Function(
    "events_to_send",
    [
        Step(
            ALWAYS,
            f"""RETURN QUERY SELECT w.n, {_EVENT}
                FROM unnest(%(ids)s::uuid[], %(numbers)s::integer[], %(positions)s::bigint[])
                    WITH ORDINALITY w(id, number, position, n)
                JOIN order_events e ON e.order_id = w.id AND e.number = w.number
                JOIN orders o ON o.id = w.id""",
        )
    ],
    rows="n bigint, event json",
    only_reads=True,
)
"""The events of these orders with these numbers. `n` is the event's place."""


RECEIVER = Seer(sees_private=False)
"""What receivers see of the orders whose events they get."""


def bodies(
    connection: Connection, workflow: Workflow, payload: Payload, messages: Sequence[Message]
) -> dict[int, bytes]:
    """The bodies of the messages, by delivery. One is left out if its event is not there any more."""
    found = {
        message.delivery_id: body_of_notice(message.type, message.created_at, message.notice)
        for message in messages
        if message.notice is not None
    }
    of_events = [message for message in messages if message.notice is None]
    events = _read_events(connection, of_events) if of_events else {}
    orders = _orders_as_of(connection, workflow, of_events) if of_events and payload is Payload.FULL else {}
    for message in of_events:
        if event := events.get(message.delivery_id):
            found[message.delivery_id] = body_of_event(event, orders.get(_version(message)))
    return found


def _version(message: Message) -> tuple[UUID, int]:
    """The order and its version after the event: the event's number is the version."""
    assert message.order_id is not None
    assert message.number is not None
    return message.order_id, message.number


def _read_events(connection: Connection, messages: Sequence[Message]) -> dict[int, dict[str, Any]]:
    parameters = {
        "ids": [str(message.order_id) for message in messages],
        "numbers": [message.number for message in messages],
        "positions": [message.position for message in messages],
    }
    with connection.cursor() as cursor:
        EVENTS_TO_SEND.call(cursor, parameters)
        return {messages[n - 1].delivery_id: event for n, event in cursor}


def _orders_as_of(
    connection: Connection, workflow: Workflow, messages: Sequence[Message]
) -> dict[tuple[UUID, int], dict[str, Any]]:
    """The orders by ID and version. Each is the same whenever it is read: `updated_at` is the time of the event,
    because somebody in psql can set another one.
    """
    pasts = read_pasts(connection, [_version(message) for message in messages], RECEIVER)
    return {wanted: as_of(past, wanted[1], workflow) | {"updated_at": past.at} for wanted, past in pasts.items()}
