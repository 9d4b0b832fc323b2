"""An order as it was: what it is now, with its events undone, newest first."""

from datetime import datetime
from typing import Any
from uuid import UUID

from orders.database import Database
from orders.errors import Code, OrderError
from orders.store.reading import History, read_history
from orders.workflow import Workflow


async def read_order_at(database: Database, workflow: Workflow, order_id: UUID, at: int | datetime) -> dict[str, Any]:
    """The order as of this version or this time. Raises OrderError: no such order, or none then."""
    history = await database.run(lambda c: read_history(c, order_id))
    if history is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    version = at if isinstance(at, int) else _version_at(history, at)
    first, last = _first_known(history), history.order["version"]
    if not first <= version <= last:
        raise OrderError(Code.NOT_RECORDED, f"There is no version {version}; known are {first} to {last}.")
    return as_of(history, version, workflow)


def as_of(history: History, version: int, workflow: Workflow) -> dict[str, Any]:
    """The order with every event after this version undone. The version is known."""
    order = {**history.order, "items": [dict(item) for item in history.order["items"]]}
    undone = [event for event in history.events if event["number"] > version]
    if not undone:
        return order
    held_from = history.held_from
    items = {item["id"]: item for item in order["items"]}
    for event in reversed(undone):
        before = dict(event["before"] or {})
        held_from = before.pop("held_from", held_from)
        for item in before.pop("items", []):
            items[item["id"]].update(item)
        order.update(before)
    for item in items.values():
        item["total"] = None if item["unit_price"] is None else item["quantity"] * item["unit_price"]
    order["version"] = version
    order["updated_at"] = next((e["at"] for e in history.events if e["number"] == version), history.placed_at)
    order["allowed_statuses"] = workflow.allowed(order["status"], held_from, adopted=history.adopted)
    return order


def _first_known(history: History) -> int:
    """Orders from before there was a history are known from the version on that they had then."""
    return max(1, history.events[0]["number"] - 1) if history.events else int(history.order["version"])


def _version_at(history: History, at: datetime) -> int:
    """The version that the order had at this time. Raises OrderError: that is not known."""
    numbers = [event["number"] for event in history.events if datetime.fromisoformat(event["at"]) <= at]
    if numbers:
        return int(numbers[-1])
    first = _first_known(history)
    begins = history.events[0]["at"] if history.events and history.events[0]["number"] == 1 else history.placed_at
    if first > 1 or begins is None:
        last = history.order["version"]
        raise OrderError(
            Code.NOT_RECORDED, f"What the order was then was not recorded; ask for a version, {first} to {last}."
        )
    if at < datetime.fromisoformat(begins):
        raise OrderError(Code.NOT_RECORDED, f"The order did not exist yet; it was placed at {begins}.")
    return first
