"""Takes goods of an order back."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from orders.changing.apply import Apply, change_once, request_key
from orders.changing.change import Change, OrderState, Restock
from orders.changing.rules import (
    RESTOCKED,
    Asked,
    Units,
    is_all_that_is_left,
    quantities_of,
    require_allowed,
    require_version,
    status_members,
)
from orders.errors import Code, OrderError
from orders.order.events import Event, EventType
from orders.order.idempotency import Answer, ClientKey, Keyed
from orders.order.statuses import RETURNED


async def return_order(
    apply: Apply, order_id: UUID, asked: Asked, units: Sequence[Units], key: ClientKey | None = None
) -> Answer:
    """Take back these units of the order or, without any, all that is left of it. Raises OrderError.

    With a key, a repetition of the same request gets the first answer.
    """
    goods = [(u.line_id, u.quantity, u.condition) for u in units]
    request = ("return", str(order_id), asked.reason, asked.note, goods)

    def decide(state: OrderState) -> Change | None:
        return take_back(state, asked, units)

    return await change_once(apply, order_id, RETURNED, decide, request_key(key, Keyed.RETURN, request))


def take_back(state: OrderState, asked: Asked, units: Sequence[Units]) -> Change | None:
    """Take goods back. Those that can be sold again go back to the catalog. Once all are back, the order is `Returned`.
    Raises OrderError.
    """
    require_version(state, asked)
    if state.status != RETURNED:
        require_allowed(state, RETURNED)
    elif state.wanted_gives_back:
        raise OrderError(Code.QUANTITY_EXCEEDED, f"All stock of this order went back when it became {RETURNED}.")
    units = units or [Units(part.id, part.left) for part in state.parts if part.left]
    if not units:
        return None
    quantities = quantities_of(state, units)
    moves = state.status != RETURNED and is_all_that_is_left(state, quantities)
    event = _event(state, asked, units, quantities, moves=moves)
    stock = Restock.of_lines(state, _restocked(units))
    return Change.of_returned_goods(state, event, quantities, stock, RETURNED if moves else None)


def _event(
    state: OrderState, asked: Asked, units: Sequence[Units], quantities: Mapping[int, int], *, moves: bool
) -> Event:
    parts = [part for part in state.parts if part.id in quantities]
    was = status_members(state.status, state.held_from) if moves else {}
    becomes = status_members(RETURNED, None) if moves else {}
    return asked.event(
        EventType.RETURNED,
        before={**was, "items": [{"id": p.id, "returned": p.returned} for p in parts]},
        after={**becomes, "items": [{"id": p.id, "returned": p.returned + quantities[p.id]} for p in parts]},
        details={"items": [{"id": u.line_id, "quantity": u.quantity, "condition": u.condition} for u in units]},
    )


def _restocked(units: Sequence[Units]) -> dict[int, int]:
    """The units per line that can be sold again."""
    restocked: dict[int, int] = {}
    for u in units:
        if u.condition == RESTOCKED:
            restocked[u.line_id] = restocked.get(u.line_id, 0) + u.quantity
    return restocked
