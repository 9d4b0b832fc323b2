"""An order as it was earlier: the order as it is now, with its later events undone."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from orders.errors import Code, OrderError
from orders.finding.past_sql import Events, Known, Past, read_events, read_known, read_past
from orders.order.statuses import Workflow
from orders.postgres.database import Connection, Database
from orders.postgres.lanes import Lane
from orders.principal import Seer

EVENTS_AT_ONCE = 1000


async def read_order_at(
    database: Database, workflow: Workflow, order_id: UUID, seer: Seer, at: int | datetime
) -> dict[str, Any]:
    """The order as of this version or this time. Raises OrderError if there is no such order that the seer sees, or
    none at that time.
    """

    def read(connection: Connection) -> dict[str, Any]:
        known = read_known(connection, order_id, seer, None if isinstance(at, int) else at)
        if known is None:
            raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
        version = at if isinstance(at, int) else _version_at(known, at)
        if not known.first <= version <= known.last:
            raise OrderError(
                Code.NOT_RECORDED, f"There is no version {version}; known are {known.first} to {known.last}."
            )
        return as_of(read_past(connection, order_id, seer, version), version, workflow)

    return await database.run(read, Lane.LISTS)


def all_events(database: Database, order_id: UUID, seer: Seer) -> Iterator[Any]:
    """All events of the order, oldest first. For callers without an event loop."""
    page = Events([], 0)
    while page.end is not None:
        after = page.end

        def read(connection: Connection, after: int = after) -> Events | None:
            return read_events(connection, order_id, seer, after, EVENTS_AT_ONCE)

        page = database.run_sync(read) or Events([], None)
        yield from map(json.loads, page.events)


def as_of(past: Past, version: int, workflow: Workflow) -> dict[str, Any]:
    """The order at this version. Each member that later events changed gets the value before the first of them."""
    order = past.order
    if order["version"] == version:
        return order
    members = dict(past.members)
    held_from = members.pop("held_from", past.held_from)
    order.update(members)
    for item in order["items"]:
        item.update(past.lines.get(str(item["id"]), {}))
        item["total"] = None if item["unit_price"] is None else item["quantity"] * item["unit_price"]
    order["version"] = version
    order["updated_at"] = past.at
    order["allowed_statuses"] = workflow.allowed(order["status"], held_from, adopted=past.adopted)
    return order


def _version_at(known: Known, at: datetime) -> int:
    """The order's version at this time. Raises OrderError if it is unknown."""
    if known.at is not None:
        return known.at
    if known.first > 1 or known.began_at is None:
        raise OrderError(
            Code.NOT_RECORDED,
            f"What the order was then was not recorded; ask for a version, {known.first} to {known.last}.",
        )
    if at < datetime.fromisoformat(known.began_at):
        raise OrderError(Code.NOT_RECORDED, f"The order did not exist yet; it was placed at {known.began_at}.")
    return known.first
