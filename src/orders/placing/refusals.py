"""Why an order is not placed: each reason as the error that its client is told, and what its key remembers of it."""

import logging
from collections.abc import Mapping, Sequence

from orders.errors import Code, OrderError
from orders.neighbours.reply import CircuitOpen, MalformedReply, NoAnswer, NotSent
from orders.order.idempotency import failure, is_recorded
from orders.order.keys_sql import Outcome
from orders.placing.entry import OrderRequest, PlaceOrder
from orders.postgres.unavailable import DatabaseUnavailable
from orders.stock.plan import Shortage
from orders.stock.write import Fate

log = logging.getLogger(__name__)


def insufficient(request: OrderRequest, shortages: Sequence[Shortage]) -> OrderError:
    """400 with every line that falls short."""
    errors = [_shortage(request, shortage) for shortage in shortages]
    detail = " ".join(str(e["message"]) for e in errors[:5])
    return OrderError(Code.INSUFFICIENT_INVENTORY, detail, extra={"errors": errors})


def _shortage(request: OrderRequest, shortage: Shortage) -> dict[str, object]:
    product_id = shortage.product_id
    pointer = request.pointers.get(product_id)
    short = f"Product {product_id}: {shortage.requested} requested, {shortage.available} available."
    return {
        **({} if pointer is None else {"pointer": pointer}),
        "code": "insufficient_inventory" if shortage.is_known else "unknown_product",
        "message": short if shortage.is_known else f"The catalog has no product {product_id}.",
        "product_id": product_id,
        "requested": shortage.requested,
        "available": shortage.available,
    }


def took_too_long() -> OrderError:
    """The deadline came while the catalog was read."""
    return OrderError(Code.ORDER_FAILED, "The catalog took too long to answer.")


def not_written(product_id: int, fate: Fate | None) -> OrderError:
    """The catalog does not have the product's new stock, or nobody knows whether it does."""
    if fate is Fate.DOUBT:
        return OrderError(
            Code.ORDER_FAILED, f"The catalog did not acknowledge the new stock of product {product_id} in time."
        )
    return OrderError(Code.ORDER_FAILED, f"The catalog did not take the new stock of product {product_id}.")


def not_read(error: BaseException) -> OrderError:
    """The catalog could not be read."""
    if isinstance(error, CircuitOpen):
        return OrderError(Code.NEIGHBOUR_RESTING, f"{error}.", retry_after_s=1)
    if isinstance(error, NotSent | NoAnswer):
        return OrderError(Code.CATALOG_UNAVAILABLE, f"{error}.")
    if isinstance(error, MalformedReply):
        return OrderError(Code.CATALOG_REPLY_INVALID, f"The Product Catalog Service is out of order: {error}.")
    log.error("unexpected error while reading the catalog", exc_info=error)
    return OrderError(Code.ORDER_FAILED, "Something unexpected happened while the catalog was read.")


def not_prepared(error: Exception) -> OrderError:
    """The batch failed before it sent anything."""
    if isinstance(error, OrderError):
        return error
    if isinstance(error, DatabaseUnavailable):
        unavailable = error.as_order_error()
        log.warning("%s: %s", unavailable.code.name.lower(), error)
        return unavailable
    log.error("unexpected error while placing", exc_info=error)
    return OrderError(Code.ORDER_FAILED, "Something unexpected happened while the order was placed.")


def undecided(order: PlaceOrder, error: OrderError) -> OrderError:
    """The error to send when storing this one under the order's key failed: 503, because a retry with the same key may
    still be placed.
    """
    if order.key and is_recorded(error):
        return OrderError(Code.STOCK_BUSY, error.detail, retry_after_s=5)
    return error


def outcomes(refused: Mapping[PlaceOrder, OrderError]) -> dict[str, Outcome]:
    """What is remembered for the keys of these orders."""
    return {
        order.key: failure(error, order.request.instance)
        for order, error in refused.items()
        if order.key and is_recorded(error)
    }
