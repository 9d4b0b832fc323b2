"""Moves a placed order to another status, cancels it or a part of it, and takes goods back.

Pure functions decide what becomes of an order by its state. `change_sql` writes it.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from orders.changing.change_sql import Change, Decide, KeyTaken, OrderState, Part, change_order, change_stale
from orders.errors import Code, OrderError, invalid
from orders.order.events import EventType
from orders.order.idempotency import Answer, replay
from orders.order.keys_sql import KeyInUse
from orders.order.model import Author
from orders.order.statuses import CANCELLED, RETURNED
from orders.postgres.database import Database
from orders.postgres.lanes import Lane

RESTOCKED = "restocked"
"""The condition of returned goods in which they go back to the catalog."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The author of a change, their reason and note, and the versions of the order that they know (None: any)."""

    author: Author = Author()  # noqa: RUF009 (frozen)
    reason: str | None = None
    note: str | None = None
    versions: Container[int] | None = None


@dataclass(frozen=True, slots=True)
class Units:
    """A number of units of one line. `condition`: the state in which they came back."""

    line_id: int
    quantity: int
    condition: str = RESTOCKED


Rehearse = Callable[[UUID, str | None, Decide, tuple[str, bytes] | None], Awaitable[str | KeyInUse | None]]
"""A function that previews a change instead of making it: `dry_run.ChangingDryRun.change`."""


async def change_status(
    database: Database, order_id: UUID, status: str, asked: Asked | None = None, rehearse: Rehearse | None = None
) -> str:
    """Move the order and return its JSON. If it has the status already, nothing is changed.

    Of two calls at the same moment, the second sees the result of the first. Raises OrderError.
    """
    asked = asked or Asked()

    def decide(standing: OrderState) -> Change | None:
        return move(standing, status, asked)

    return (await _change(database, order_id, status, decide, rehearse=rehearse)).body


async def cancel_order(
    database: Database,
    order_id: UUID,
    asked: Asked,
    units: Sequence[Units],
    *,
    restock: bool,
    key: str | None = None,
    rehearse: Rehearse | None = None,
) -> Answer:
    """Cancel these units of the order or, without any, the whole order. Raises OrderError.

    With a key, a repetition of the same request gets the first answer.
    """
    request = ("cancel", str(order_id), asked.reason, asked.note, restock, [(u.line_id, u.quantity) for u in units])

    def decide(standing: OrderState) -> Change | None:
        return cancel(standing, asked, units, restock=restock)

    return await _change(database, order_id, CANCELLED, decide, key, request, rehearse)


async def return_order(
    database: Database,
    order_id: UUID,
    asked: Asked,
    units: Sequence[Units],
    key: str | None = None,
    rehearse: Rehearse | None = None,
) -> Answer:
    """Take back these units of the order or, without any, all that is left of it. Raises OrderError."""
    goods = [(u.line_id, u.quantity, u.condition) for u in units]
    request = ("return", str(order_id), asked.reason, asked.note, goods)

    def decide(standing: OrderState) -> Change | None:
        return take_back(standing, asked, units)

    return await _change(database, order_id, RETURNED, decide, key, request, rehearse)


async def _change(
    database: Database,
    order_id: UUID,
    wanted: str,
    decide: Decide,
    key: str | None = None,
    request: object = None,
    rehearse: Rehearse | None = None,
) -> Answer:
    fingerprint = hashlib.sha256(json.dumps(request).encode()).digest()
    remember = (key, fingerprint) if key else None
    try:
        if rehearse:
            outcome = await rehearse(order_id, wanted, decide, remember)
        else:
            outcome = await database.run(lambda c: change_order(c, order_id, wanted, decide, remember), Lane.CHANGES)
    except KeyTaken:
        raise OrderError(Code.KEY_REUSED, "This Idempotency-Key was used with another request.") from None
    if outcome is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"There is no order {order_id}.")
    return replay(outcome, fingerprint) if isinstance(outcome, KeyInUse) else Answer(200, outcome, None)


EXPIRY = Asked(Author("expiry"), reason="expired")
EXPIRE_AT_ONCE = 100


async def expire_once(database: Database, expiries: Mapping[str, timedelta]) -> int:
    """Cancel and restock orders that have stayed in a status for longer than allowed. Returns how many.

    Safe in every replica at once.
    """

    def expire(standing: OrderState) -> Change | None:
        return move(standing, CANCELLED, EXPIRY) if CANCELLED in standing.allowed else None

    count = 0
    for status, stayed in expiries.items():
        count += await database.run(
            lambda c, status=status, stayed=stayed: change_stale(  # type: ignore[misc]  # a lambda's defaults
                c, status, stayed, CANCELLED, EXPIRE_AT_ONCE, expire
            )
        )
    return count


def move(standing: OrderState, status: str, asked: Asked, *, restock: bool = True) -> Change | None:
    """Move to another status. The lines stay as they are. If the new status gives stock back, everything not yet
    returned goes back.
    """
    require_version(standing, asked)
    if standing.status == status:
        return None
    _require_allowed(standing, status)
    held_from = standing.status if standing.wanted_is_hold else None
    back = standing.wanted_gives_back and restock
    return Change(
        standing,
        EventType.CANCELLED if status == CANCELLED else EventType.MOVED,
        asked.author,
        status,
        held_from,
        standing.total,
        back=_by_product(standing, {part.id: part.left for part in standing.parts}) if back else {},
        is_rest=True,
        before=_status(standing.status, standing.held_from),
        after=_status(status, held_from),
        details={"restock": restock} if standing.wanted_gives_back else None,
        reason=asked.reason,
        note=asked.note,
    )


def cancel(standing: OrderState, asked: Asked, units: Sequence[Units], *, restock: bool) -> Change | None:
    """Cancel the order, or some units of it. Then its quantities and total become smaller. Cancelling the last units
    cancels the whole order, which keeps these lines as they are.
    """
    whole = move(standing, CANCELLED, asked, restock=restock)
    if not units:
        return whole
    _require_allowed(standing, CANCELLED)
    quantities = _quantities(standing, units)
    details = {"restock": restock, "items": [{"id": u.line_id, "quantity": u.quantity} for u in units]}
    if whole and all(quantities.get(part.id, 0) == part.left for part in standing.parts):
        return replace(whole, details=details)
    parts = [part for part in standing.parts if part.id in quantities]
    total = _reduced(standing.total, parts, quantities)
    return Change(
        standing,
        EventType.CANCELLED,
        asked.author,
        standing.status,
        standing.held_from,
        total,
        cancelled=quantities,
        back=_by_product(standing, quantities) if restock else {},
        before={
            "items": [{"id": p.id, "quantity": p.quantity, "cancelled": p.cancelled} for p in parts],
            "total": standing.total,
        },
        after={
            "items": [
                {"id": p.id, "quantity": p.quantity - quantities[p.id], "cancelled": p.cancelled + quantities[p.id]}
                for p in parts
            ],
            "total": total,
        },
        details=details,
        reason=asked.reason,
        note=asked.note,
    )


def take_back(standing: OrderState, asked: Asked, units: Sequence[Units]) -> Change | None:
    """Take goods back. Those that can be sold again go back to the catalog. Once all are back, the order
    is `Returned`.
    """
    require_version(standing, asked)
    if standing.status != RETURNED:
        _require_allowed(standing, RETURNED)
    elif standing.wanted_gives_back:
        raise OrderError(Code.QUANTITY_EXCEEDED, f"All stock of this order went back when it became {RETURNED}.")
    units = units or [Units(part.id, part.left) for part in standing.parts if part.left]
    if not units:
        return None
    quantities = _quantities(standing, units)
    parts = [part for part in standing.parts if part.id in quantities]
    is_all = all(quantities.get(part.id, 0) == part.left for part in standing.parts)
    moves = is_all and standing.status != RETURNED
    restocked: dict[int, int] = {}
    for u in units:
        if u.condition == RESTOCKED:
            restocked[u.line_id] = restocked.get(u.line_id, 0) + u.quantity
    return Change(
        standing,
        EventType.RETURNED,
        asked.author,
        RETURNED if moves else standing.status,
        None if moves else standing.held_from,
        standing.total,
        returned=quantities,
        back=_by_product(standing, restocked),
        before={
            **(_status(standing.status, standing.held_from) if moves else {}),
            "items": [{"id": p.id, "returned": p.returned} for p in parts],
        },
        after={
            **(_status(RETURNED, None) if moves else {}),
            "items": [{"id": p.id, "returned": p.returned + quantities[p.id]} for p in parts],
        },
        details={"items": [{"id": u.line_id, "quantity": u.quantity, "condition": u.condition} for u in units]},
        reason=asked.reason,
        note=asked.note,
    )


def require_version(standing: OrderState, asked: Asked) -> None:
    """Raise OrderError if the order's version is none of those that the author of the change knows."""
    if asked.versions is not None and standing.version not in asked.versions:
        raise OrderError(
            Code.VERSION_CHANGED,
            f"The order has version {standing.version}, which is none of those that you named.",
            extra={"version": standing.version},
        )


def _require_allowed(standing: OrderState, status: str) -> None:
    if status not in standing.allowed:
        names = ", ".join(standing.allowed) or "nothing: it is final"
        raise OrderError(
            Code.STATUS_NOT_ALLOWED,
            f"An order that is {standing.status} can't become {status}; it can become {names}.",
            extra={"allowed_statuses": list(standing.allowed)},
        )


def _quantities(standing: OrderState, units: Sequence[Units]) -> dict[int, int]:
    """The units per line, summed up if a line is named twice. Raises OrderError if there is no such line, or too few
    are left.
    """
    left = {part.id: part.left for part in standing.parts}
    quantities: dict[int, int] = {}
    errors: list[dict[str, Any]] = []
    for n, u in enumerate(units):
        if u.line_id not in left:
            lines = ", ".join(map(str, left))
            raise invalid(f"#/items/{n}/id", "unknown_line", f"The order has no line {u.line_id}; it has {lines}.")
        quantities[u.line_id] = quantities.get(u.line_id, 0) + u.quantity
        if quantities[u.line_id] > left[u.line_id]:
            message = f"Line {u.line_id}: {quantities[u.line_id]} asked for, {left[u.line_id]} left."
            errors.append(
                {
                    "pointer": f"#/items/{n}/quantity",
                    "code": "quantity_exceeded",
                    "message": message,
                    "left": left[u.line_id],
                }
            )
    if errors:
        detail = " ".join(str(error["message"]) for error in errors[:5])
        raise OrderError(Code.QUANTITY_EXCEEDED, detail, extra={"errors": errors})
    return quantities


def _by_product(standing: OrderState, quantities: Mapping[int, int]) -> dict[int, int]:
    """The units per product. An adopted order may have a product in several lines."""
    units: dict[int, int] = {}
    for part in standing.parts:
        if quantity := quantities.get(part.id, 0):
            units[part.product_id] = units.get(part.product_id, 0) + quantity
    return units


def _reduced(total: int | None, parts: Sequence[Part], quantities: Mapping[int, int]) -> int | None:
    """The total without these units, or None if the total or a price was never recorded."""
    prices = [part.unit_price for part in parts]
    if total is None or None in prices:
        return None
    return total - sum(quantities[part.id] * (part.unit_price or 0) for part in parts)


def _status(status: str, held_from: str | None) -> dict[str, Any]:
    return {"status": status, **({"held_from": held_from} if held_from else {})}
