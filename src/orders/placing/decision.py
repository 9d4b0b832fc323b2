"""The decision about each order of a batch, by what became of the PUTs: placed, failed, or planned again. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orders.errors import Code, OrderError
from orders.placing.entry import PlaceOrder
from orders.placing.refusals import not_written, outcomes
from orders.stock.settle_sql import Settlement
from orders.stock.write import DID_LAND, DID_NOT, Fate


@dataclass(slots=True)
class Decided:
    """The orders of which it is certain by now what becomes of them.

    `again`: someone else changed a product's stock. This attempt is stored as failed; the request goes back to the
    queue under a new order ID.
    """

    placed: list[PlaceOrder] = field(default_factory=list)
    failed: dict[PlaceOrder, OrderError] = field(default_factory=dict)
    again: list[PlaceOrder] = field(default_factory=list)

    @property
    def orders(self) -> tuple[PlaceOrder, ...]:
        """All of them."""
        return (*self.placed, *self.failed, *self.again)


def decide(placing: Sequence[PlaceOrder], fates: Mapping[int, Fate], now: float) -> Decided:
    """Decide what is certain. `fates` names the products whose PUT has ended; `now` is the loop's time."""
    decided = Decided()
    for order in placing:
        of_order = {product_id: fates.get(product_id) for product_id in order.products}
        if error := _failure(order, of_order):
            decided.failed[order] = error
        elif Fate.CHANGED in of_order.values():
            decided.again.append(order)
        elif now >= order.deadline:
            decided.failed[order] = OrderError(Code.ORDER_FAILED, "The catalog took too long to take the stock.")
        elif all(fate in DID_LAND for fate in of_order.values()):
            decided.placed.append(order)
    return decided


def _failure(order: PlaceOrder, fates: Mapping[int, Fate | None]) -> OrderError | None:
    if order.future.cancelled():
        return OrderError(Code.ORDER_FAILED, "The service was stopped.")
    bad = next((p for p, fate in fates.items() if fate in (Fate.REFUSED, Fate.DOUBT)), None)
    return None if bad is None else not_written(bad, fates[bad])


def settlement(
    decided: Decided,
    ended: Mapping[int, Fate],
    fates: Mapping[int, Fate],
    *,
    has_failures: bool,
    carries_due: bool,
    hand_over: bool,
) -> Settlement:
    """What SETTLE writes. `ended` are the products whose claims end now, `fates` all that are known.

    `has_failures`, `carries_due` and `hand_over` are as in Settlement.
    """
    keyed = {order: order.key for order in (*decided.placed, *decided.again) if order.key}
    return Settlement(
        placed=[order.order_id for order in decided.placed],
        failed={
            **{order.order_id: error.code.name.lower() for order, error in decided.failed.items()},
            **{order.order_id: "stock_changed" for order in decided.again},
        },
        landed=[p for p, fate in ended.items() if fate in DID_LAND],
        quiet=[p for p, fate in ended.items() if fate is Fate.LANDED_UNACKNOWLEDGED],
        refused=[p for p, fate in ended.items() if fate in DID_NOT],
        took=[p for p, fate in fates.items() if fate in DID_LAND],
        outcomes=outcomes(decided.failed),
        keys_of_placed={order.order_id: keyed[order] for order in decided.placed if order in keyed},
        freed_keys=[keyed[order] for order in decided.again if order in keyed],
        has_failures=has_failures,
        carries_due=carries_due,
        hand_over=hand_over,
        authors={order.order_id: order.request.author for order in decided.orders},
    )
