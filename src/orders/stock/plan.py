"""PLAN: which of the waiting orders get the last units, and what each product's stock becomes. A pure function."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orders.order.model import Line


@dataclass(frozen=True, slots=True)
class Shortage:
    """A line that falls short: the requested units, and those available at the order's turn (0 of an
    unknown product).
    """

    product_id: int
    requested: int
    available: int
    is_known: bool = True


class Adjustment(NamedTuple):
    """A product's stock before and after this batch, as the catalog counts it."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a batch is about to do. Per order, its shortages: without any, it is placed. Per product, its change."""

    shortages: tuple[tuple[Shortage, ...], ...]
    changes: Mapping[int, Adjustment]


def plan(stock: Mapping[int, int], due: Mapping[int, int], orders: Sequence[Sequence[Line]]) -> Plan:
    """Decide the orders: first come, first served, and all or nothing per order.

    `stock` is what the catalog has of each product. `due` is stock due back and is added first. A product that is not
    in `stock` has 0 available. `changes` names the products whose claim is still needed: an order takes from them, or
    they get stock back, even if the two cancel out.
    """
    left = {product_id: quantity + due.get(product_id, 0) for product_id, quantity in stock.items()}
    touched = {product_id for product_id in due if product_id in stock}
    decisions = []
    for lines in orders:
        shortages = tuple(
            Shortage(line.product_id, line.quantity, left.get(line.product_id, 0), line.product_id in left)
            for line in lines
            if line.quantity > left.get(line.product_id, 0)
        )
        if not shortages:
            for line in lines:
                left[line.product_id] -= line.quantity
                touched.add(line.product_id)
        decisions.append(shortages)
    changes = {product_id: Adjustment(stock[product_id], left[product_id]) for product_id in sorted(touched)}
    return Plan(tuple(decisions), changes)
