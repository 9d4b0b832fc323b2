"""Closing the cart after its order is placed. The order stands whatever happens here; we ask until it is done."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from uuid import UUID

from orders.coalescing import Coalescer
from orders.neighbours.carts import Carts
from orders.neighbours.reply import MalformedReply, NoAnswer, NotSent
from orders.order.model import Line
from orders.placing.closings_sql import Closing, closings_done, due_closings
from orders.postgres.database import Database, DatabaseUnavailable

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 1.0
"""Timeout for closing the cart before a cart's order is answered with 201. Its reader finds the cart closed."""

AGAIN_AFTER_S = 10.0
"""Pause before a cart that could not be closed is tried again."""


class CartClosing:
    """Closes carts: right after placing, and later those that could not be closed then."""

    def __init__(self, database: Database, carts: Carts) -> None:
        self._database = database
        self._carts = carts
        self._done: Coalescer[UUID, None] = Coalescer(self._forget, parallel=1)
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self, order_id: UUID, customer_id: int, cart_id: int | None, lines: Sequence[Line]) -> None:
        """Close the cart of an order that was placed just now. Returns early; raises nothing."""
        closing = Closing(order_id, customer_id, cart_id, {line.product_id: line.quantity for line in lines})
        task = asyncio.create_task(self._attempt(closing, cart_was_read=cart_id is not None))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if cart_id is not None:
            await asyncio.wait([task], timeout=CLOSE_TIMEOUT_S)

    async def close_due_once(self, limit: int = 50) -> int:
        """Try the carts that are due; returns how many there were."""
        due = await self._database.run(lambda c: due_closings(c, limit, AGAIN_AFTER_S))
        await asyncio.gather(*(self._attempt(closing, cart_was_read=False) for closing in due))
        return len(due)

    async def drain(self) -> None:
        """Return when every attempt that is under way has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _attempt(self, closing: Closing, *, cart_was_read: bool) -> None:
        try:
            needs_closing = cart_was_read or await self._is_ours(closing, surely=closing.cart_id is not None)
            if not needs_closing or await self._carts.close(closing.customer_id):
                await self._done.get(closing.order_id)
        except (NotSent, NoAnswer, MalformedReply, DatabaseUnavailable) as error:
            log.warning("the cart of order %s is not closed yet: %s", closing.order_id, error)
        except Exception:
            log.exception("closing the cart of order %s failed", closing.order_id)

    async def _is_ours(self, closing: Closing, *, surely: bool) -> bool:
        """Whether the active cart is the one that was ordered or, for explicit items, holds nothing but them."""
        cart = await self._carts.read(closing.customer_id, surely=surely)
        if cart is None or not cart.is_active:
            return False
        if closing.cart_id is not None:
            return cart.id == closing.cart_id
        return bool(cart.lines) and covers(closing.lines, cart.lines)

    async def _forget(self, order_ids: Sequence[UUID]) -> dict[UUID, None]:
        await self._database.run(lambda c: closings_done(c, order_ids))
        return {}


def covers(ordered: Mapping[int, int], cart: Sequence[Line]) -> bool:
    """Whether the cart holds nothing that the order does not: no other product, and of none more than was ordered."""
    return all(line.quantity <= ordered.get(line.product_id, 0) for line in cart)
