"""Moves a placed order to another status: by a request, or because it has expired."""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from orders.changing.apply import Apply, change_once
from orders.changing.change import NO_RESTOCK, Change, OrderState, Restock
from orders.changing.change_sql import change_stale
from orders.changing.rules import Asked, require_allowed, require_version, status_members
from orders.order.events import EventType
from orders.order.idempotency import Answer
from orders.order.model import Author
from orders.order.statuses import CANCELLED
from orders.postgres.database import Database

EXPIRY = Asked(Author("expiry"), reason="expired")
EXPIRE_AT_ONCE = 100


async def change_status(apply: Apply, order_id: UUID, status: str, asked: Asked | None = None) -> Answer:
    """Move the order. If it has the status already, nothing is changed.

    Of two calls at the same moment, the second sees the result of the first. Raises OrderError.
    """
    asked = asked or Asked()

    def decide(state: OrderState) -> Change | None:
        return move(state, status, asked)

    return await change_once(apply, order_id, status, decide)


def move(state: OrderState, status: str, asked: Asked, *, restock: bool = True) -> Change | None:
    """The change to another status. The lines stay as they are. If the new status gives stock back, everything not yet
    returned goes back, unless `restock` is False. Raises OrderError.
    """
    require_version(state, asked)
    if state.status == status:
        return None
    require_allowed(state, status)
    held_from = state.status if state.wanted_is_hold else None
    event = asked.event(
        EventType.CANCELLED if status == CANCELLED else EventType.MOVED,
        before=status_members(state.status, state.held_from),
        after=status_members(status, held_from),
        details={"restock": restock} if state.wanted_gives_back else None,
    )
    goes_back = state.wanted_gives_back and restock
    stock = Restock.of_all_that_is_left(state) if goes_back else NO_RESTOCK
    return Change.of_status(state, event, status, held_from, stock)


async def expire_once(database: Database, expiries: Mapping[str, timedelta]) -> int:
    """Cancel and restock orders that have stayed in a status for longer than allowed. Returns how many.

    Safe in every replica at once.
    """

    def expire(state: OrderState) -> Change | None:
        return move(state, CANCELLED, EXPIRY) if CANCELLED in state.allowed else None

    count = 0
    for status, stayed in expiries.items():
        count += await database.run(
            lambda c, status=status, stayed=stayed: change_stale(  # type: ignore[misc]  # a lambda's defaults
                c, status, stayed, CANCELLED, EXPIRE_AT_ONCE, expire
            )
        )
    return count
