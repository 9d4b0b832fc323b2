"""Many orders placed in one request. Each has its own result, in the order of the request."""

import asyncio
import logging
from collections.abc import Sequence

from orders.order.model import Author
from orders.order.results import Result, answered, as_order_error, in_bounds, refused
from orders.placing.checkout import Checkout, CheckoutRequest

log = logging.getLogger(__name__)


async def place_each(
    checkout: Checkout, asked: Sequence[CheckoutRequest], instance: str, author: Author
) -> list[Result]:
    """Place all of them at once: they meet in the placement's batches. Raises nothing."""
    results = await asyncio.gather(*(_place(checkout, one, instance, author) for one in asked))
    if failed := [result.status for result in results if result.status >= 500]:
        log.warning("POST %s [%s]: %s of %s orders failed", instance, author.request_id, len(failed), len(results))
    return in_bounds(results)


async def _place(checkout: Checkout, asked: CheckoutRequest, instance: str, author: Author) -> Result:
    try:
        return answered(await checkout.check_out(asked, instance, author))
    except Exception as error:
        return refused(as_order_error(error), instance)
