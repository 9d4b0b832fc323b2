"""PLAN: what a batch is about to do, decided from what the catalog has. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orders.errors import Code, OrderError
from orders.neighbours.catalog import Product
from orders.order.model import MAX_ID
from orders.order.sizes import names_that_fit
from orders.placing.entry import PlaceOrder
from orders.placing.refusals import insufficient, took_too_long
from orders.stock.claim_sql import Due
from orders.stock.intend_sql import NewOrder
from orders.stock.plan import Adjustment, plan


@dataclass(frozen=True, slots=True)
class Read:
    """What READ found. `errors`: why a product could not be read. A product in neither is not in the catalog."""

    products: Mapping[int, Product]
    errors: Mapping[int, OrderError]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The orders to place, who is refused and why, each product's stock, and the stock that goes back."""

    orders: Sequence[PlaceOrder]
    refused: Mapping[PlaceOrder, OrderError]
    changes: Mapping[int, Adjustment]
    due: Sequence[Due]


def plan_orders(orders: Sequence[PlaceOrder], due: Sequence[Due], read: Read, now: float) -> BatchPlan:
    """Plan these orders, first come, first served. `due` is the stock that waits to go back; `now` the loop's time."""
    refused = {order: error for order in orders if (error := refusal_before_plan(order, read, now))}
    candidates = [order for order in orders if order not in refused]
    going_back = [d for d in due if d.product_id in read.products]
    stock = {product.id: product.quantity for product in read.products.values()}
    decided = plan(stock, _sums(going_back), [order.request.lines for order in candidates])
    placing = []
    for order, shortages in zip(candidates, decided.shortages, strict=True):
        if shortages:
            refused[order] = insufficient(order.request, shortages)
        else:
            placing.append(order)
    return BatchPlan(placing, refused, decided.changes, going_back)


def _sums(due: Sequence[Due]) -> dict[int, int]:
    sums: dict[int, int] = {}
    for d in due:
        sums[d.product_id] = sums.get(d.product_id, 0) + d.quantity
    return sums


def refusal_before_plan(order: PlaceOrder, read: Read, now: float) -> OrderError | None:
    """Why the order can't even be planned."""
    if now >= order.deadline:
        return took_too_long()
    lines = order.request.lines
    if read.errors and (error := next((read.errors[p.product_id] for p in lines if p.product_id in read.errors), None)):
        return error
    known = [line for line in lines if line.product_id in read.products]
    total = sum(line.quantity * read.products[line.product_id].price for line in known)
    if total > MAX_ID:
        return OrderError(Code.TOTAL_TOO_LARGE, f"The order's total would be {total}.")
    return None


def new_order(order: PlaceOrder, products: Mapping[int, Product]) -> NewOrder:
    """The order as INTEND writes it, with names and prices of this moment."""
    request = order.request
    bought = [products[line.product_id] for line in request.lines]
    names = names_that_fit([product.name for product in bought])
    items = tuple(zip(request.lines, names, (product.price for product in bought), strict=True))
    total = sum(line.quantity * price for line, _, price in items)
    customer_id, cart_id = request.customer_id, request.cart_id
    return NewOrder(order.order_id, customer_id, cart_id, total, items, request.details, request.channel)
