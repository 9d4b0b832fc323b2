"""An event as brokers get it: a CloudEvent 1.0 in binary mode, so its attributes are headers. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orders.events.wanted import PREFIX
from orders.webhooks.body import body_of_event

CONTENT_TYPE = "application/json"
"""Format of the data."""

SCHEMA_VERSION = 1
"""Version of the schemas that the data keep to: `GET /schemas/{type}/{version}`."""


@dataclass(frozen=True, slots=True)
class RelayedEvent:
    """An event on its way to a broker. `attributes` are those of CloudEvents, but for the content type."""

    position: int
    id: str
    type: str
    order_id: str
    attributes: Mapping[str, str]
    body: bytes

    def headers(self, prefix: str) -> dict[str, str]:
        """The attributes as headers whose names begin with `prefix`."""
        return {prefix + name: value for name, value in self.attributes.items()}


def relayed(event: Mapping[str, Any], order: Mapping[str, Any] | None, source: str) -> RelayedEvent:
    """The CloudEvent of an event, with the order as of then. Its data are the bytes that a webhook would be sent.

    `event`: a row of EVENTS_TO_SEND. `source`: ORDERS_EVENT_SOURCE. `dataschema` has to be absolute, so it is there if
    the source is.
    """
    order_id, position = event["order_id"], event["position"]
    id, type = f"{order_id}-{event['number']}", PREFIX + event["type"]
    attributes = {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": type,
        "subject": order_id,
        "time": event["at"],
        "sequence": f"{position:020d}",
        "partitionkey": order_id,
    }
    if "://" in source:
        attributes["dataschema"] = f"{source}/schemas/{type}/{SCHEMA_VERSION}"
    return RelayedEvent(position, id, type, order_id, attributes, body_of_event(event, order))


def runs(events: Sequence[RelayedEvent]) -> Iterator[list[RelayedEvent]]:
    """The events, cut where an order would come a second time. What is sent at once may arrive in any order; so it has
    one event of each order at most.
    """
    run: list[RelayedEvent] = []
    orders: set[str] = set()
    for event in events:
        if event.order_id in orders:
            yield run
            run, orders = [], set()
        run.append(event)
        orders.add(event.order_id)
    if run:
        yield run
