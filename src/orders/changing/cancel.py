"""Cancels an order, or some units of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from orders.changing.apply import Apply, change_once, request_key
from orders.changing.change import NO_RESTOCK, Change, OrderState, Part, Restock
from orders.changing.move import move
from orders.changing.rules import Asked, Units, is_all_that_is_left, quantities_of, require_allowed
from orders.order.events import EventType
from orders.order.idempotency import Answer, ClientKey, Keyed
from orders.order.statuses import CANCELLED


async def cancel_order(
    apply: Apply,
    order_id: UUID,
    asked: Asked,
    units: Sequence[Units],
    *,
    restock: bool,
    key: ClientKey | None = None,
) -> Answer:
    """Cancel these units of the order or, without any, the whole order. Raises OrderError.

    With a key, a repetition of the same request gets the first answer.
    """
    request = ("cancel", str(order_id), asked.reason, asked.note, restock, [(u.line_id, u.quantity) for u in units])

    def decide(state: OrderState) -> Change | None:
        return cancel(state, asked, units, restock=restock)

    return await change_once(apply, order_id, CANCELLED, decide, request_key(key, Keyed.CANCEL, request))


def cancel(state: OrderState, asked: Asked, units: Sequence[Units], *, restock: bool) -> Change | None:
    """Cancel the order, or some units of it. Then its quantities and total become smaller. Cancelling the last units
    cancels the whole order, which keeps these lines as they are. Raises OrderError.
    """
    whole = move(state, CANCELLED, asked, restock=restock)
    if not units:
        return whole
    require_allowed(state, CANCELLED)
    quantities = quantities_of(state, units)
    details = {"restock": restock, "items": [{"id": u.line_id, "quantity": u.quantity} for u in units]}
    if whole and is_all_that_is_left(state, quantities):
        return replace(whole, event=replace(whole.event, details=details))
    return _cancel_part(state, asked, quantities, details, restock=restock)


def _cancel_part(
    state: OrderState, asked: Asked, quantities: Mapping[int, int], details: Mapping[str, Any], *, restock: bool
) -> Change:
    parts = [part for part in state.parts if part.id in quantities]
    total = _reduced(state.total, parts, quantities)
    before = [{"id": p.id, "quantity": p.quantity, "cancelled": p.cancelled} for p in parts]
    after = [
        {"id": p.id, "quantity": p.quantity - quantities[p.id], "cancelled": p.cancelled + quantities[p.id]}
        for p in parts
    ]
    event = asked.event(
        EventType.CANCELLED, {"items": before, "total": state.total}, {"items": after, "total": total}, details
    )
    stock = Restock.of_lines(state, quantities) if restock else NO_RESTOCK
    return Change.of_cancelled_units(state, event, quantities, total, stock)


def _reduced(total: int | None, parts: Sequence[Part], quantities: Mapping[int, int]) -> int | None:
    """The total without these units, or None if the total or a price was never recorded."""
    prices = [part.unit_price for part in parts]
    if total is None or None in prices:
        return None
    return total - sum(quantities[part.id] * (part.unit_price or 0) for part in parts)
