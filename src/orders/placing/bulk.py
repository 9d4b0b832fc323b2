"""Many orders placed in one request. Each has its own result, in the order of the request."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from orders.order.model import NO_DETAILS, Author, Details, Line
from orders.order.results import Result, answered, as_order_error, in_bounds, refused
from orders.placing.checkout import Checkout

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """An order to place: of these items or, where None, of the customer's cart; once per key; `details` go with it.

    `lines_ahead`: lines of the orders before it in the same HTTP request. It puts off its turn.
    """

    customer_id: int
    items: Sequence[Line] | None = None
    key: str | None = None
    details: Details = NO_DETAILS
    lines_ahead: int = 0


async def place_each(checkout: Checkout, wishes: Sequence[Wish], instance: str, author: Author) -> list[Result]:
    """Place all of them at once: they meet in the placement's batches. Raises nothing."""
    results = await asyncio.gather(*(_place(checkout, wish, instance, author) for wish in wishes))
    if failed := [result.status for result in results if result.status >= 500]:
        log.warning("POST %s [%s]: %s of %s orders failed", instance, author.request_id, len(failed), len(results))
    return in_bounds(results)


async def _place(checkout: Checkout, wish: Wish, instance: str, author: Author) -> Result:
    try:
        return answered(
            await checkout.check_out(
                wish.customer_id, wish.items, wish.key, instance, author, wish.details, wish.lines_ahead
            )
        )
    except Exception as error:
        return refused(as_order_error(error), instance)
