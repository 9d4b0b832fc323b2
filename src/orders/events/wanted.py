"""What a reader wants of the feed: events of some types, of one order, of one channel. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from orders.errors import invalid
from orders.order.events import EventType
from orders.principal import SEES_EVERYTHING, Seer

PREFIX = "order."
"""What the type of an event of an order begins with, in the feed."""

OF_ORDERS = "order.*"
"""All types but that of orders that failed."""

ALL = "*"
"""All types."""

KNOWN_TYPES = tuple(PREFIX + kind.value for kind in EventType)
"""The types of events, as the feed has them."""


MEANINGS = {PREFIX + kind.value: kind.meaning for kind in EventType}
"""What the types mean."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader wants: the events after a position, `limit` of them at most.

    `mark`: the mark of the event at `after`, as the page before told it. None: it is not compared. `types`: the types,
    sorted, as the history has them. None: all types.
    """

    after: int = 0
    mark: str | None = None
    limit: int = 100
    types: tuple[str, ...] | None = None
    order_id: UUID | None = None
    channel: str | None = None
    seer: Seer = SEES_EVERYTHING


def parse_types(text: str) -> tuple[str, ...] | None:
    """The types in a text with commas, sorted. None: all. Raises OrderError if one is unknown.

    Failed orders were never placed. Only `*` and `order.failed` mean their events.
    """
    asked = [part.strip() for part in text.split(",")]
    if unknown := [part for part in asked if part not in (*KNOWN_TYPES, OF_ORDERS, ALL)]:
        known = ", ".join((*KNOWN_TYPES, OF_ORDERS, ALL))
        raise invalid("query/types", "unknown_type", f"There is no type {unknown[0][:60]!r}; there are {known}.")
    return None if ALL in asked else tuple(sorted({kind for part in asked for kind in _meant(part)}))


def _meant(part: str) -> Collection[str]:
    if part == OF_ORDERS:
        return [kind.value for kind in EventType if kind is not EventType.FAILED]
    return [part.removeprefix(PREFIX)]
