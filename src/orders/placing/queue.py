"""The queue in front of the batches: requests wait here until all that they need is free, and go together."""

import asyncio
import bisect
import functools
import logging
import math
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from orders.errors import Code, OrderError
from orders.neighbours.catalog import Catalog
from orders.order import keys_sql
from orders.order.idempotency import Answer, replay
from orders.order.keys_sql import KeyInUse
from orders.placing.batch import Batch
from orders.placing.cart_closing import CartClosing
from orders.placing.entry import Entry, GiveBack, OrderRequest, PlaceOrder, queue_entry
from orders.placing.held import Held
from orders.placing.selection import Selection, is_small
from orders.placing.settling import STRAGGLER_S
from orders.postgres.database import Database
from orders.settings import Settings

log = logging.getLogger(__name__)

LINGER_S = 0.002
"""Time that the next batch waits, after a batch of N orders, for N orders. Clients that were answered together often
come back together; without the pause the first of them would go alone.
"""

CLOCK_S = 0.0005
"""Tolerance of a timer: it may fire up to this much early, because the event loop's clock counts milliseconds."""

BATCHFULS = 2
"""Maximum of orders in flight, in multiples of a full batch. More of them would only wait for each other."""

QUEUE_SHARE = 0.05
"""Share of a deadline. If the newest request of the last batch waited in the queue for longer, a request behind many
others gets 503.
"""

LINE_S = 0.005
"""Seconds by which each line delays a request's turn: roughly what a line costs. So an order of two lines goes before
one of 500 that came two seconds earlier, and before most of a hundred orders that came in one request.
"""

LARGE_AT_ONCE = 2
"""Maximum number of batches with a large order at once. They take longer, and hold up no other batch."""


def _turn(entry: Entry) -> float:
    return entry.turn_at


class Placement:
    """Places orders in batches. One per replica; made inside the event loop."""

    def __init__(self, database: Database, catalog: Catalog, closing: CartClosing, settings: Settings) -> None:
        self._database = database
        self._catalog = catalog
        self._closing = closing
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Entry] = []  # in the order of their turns
        self._batches: set[Batch] = set()
        self._with_large_order: set[Batch] = set()  # those with a large order, which is always the first
        self._keys: dict[str, bytes] = {}
        self._giving_back: set[int] = set()
        self._held = Held()
        self._queued_s = 0.0  # how long the newest request of the last batch had waited beyond its turn
        self._expected = 0  # entries, until `_linger_until`
        self._linger_until = -math.inf
        self._timer: asyncio.Handle | None = None
        self._timer_at = math.inf  # uvloop's handle has no time if it is due at once
        self._tasks: set[asyncio.Task[None]] = set()

    # What is asked of it ----------------------------------------------------------------------------------------

    async def place(self, request: OrderRequest) -> Answer:
        """Place the order. Raises OrderError: it was not placed, and nothing stays taken for it."""
        if request.key is None:
            return await self._place(request)
        if running := self._keys.get(request.key):
            replay(KeyInUse(running, None), request.fingerprint)  # raises: it has no outcome yet
        self._keys[request.key] = request.fingerprint
        try:
            return await self._place(request)
        finally:
            del self._keys[request.key]

    async def _place(self, request: OrderRequest) -> Answer:
        turn_at = self._loop.time() + LINE_S * (request.lines_ahead + len(request.lines))
        order = queue_entry(request, self._loop.create_future(), turn_at)
        self._make_room(order)
        self._line_up(order)
        expiry = self._loop.call_at(request.deadline, self._expire, order)
        self._dispatch()
        try:
            answer = await order.future
        finally:
            expiry.cancel()
        if answer.order_id and not answer.replayed:
            await self._closing.close(answer.order_id, request.customer_id, request.cart_id, request.lines)
        return answer

    async def find_outcome(self, key: str, fingerprint: bytes) -> Answer | None:
        """The first outcome of this key, if it has one. Raises OrderError as `replay` does."""
        known = await self._database.run(lambda c: keys_sql.find_key(c, key))
        return replay(known, fingerprint) if known else None

    def give_back(self, products: Iterable[int]) -> None:
        """See that the stock which is due back to these products goes back soon."""
        for product_id in set(products) - self._giving_back:
            self._giving_back.add(product_id)
            entry = GiveBack(frozenset((product_id,)), self._loop.create_future(), self._loop.time(), math.inf)
            entry.future.add_done_callback(functools.partial(self._gave_back, product_id))
            self._line_up(entry)
        self._dispatch()

    def _gave_back(self, product_id: int, _: object) -> None:
        self._giving_back.discard(product_id)

    async def drain(self) -> None:
        """Return when all batches have ended, and so has the one that only waits for more orders."""
        while self._tasks or (self._waiting and not self._has_lingered()):
            await (asyncio.wait(self._tasks) if self._tasks else asyncio.sleep(LINGER_S))

    @property
    def waiting_count(self) -> int:
        """How many entries wait for a batch."""
        return len(self._waiting)

    # Who waits --------------------------------------------------------------------------------------------------

    def _line_up(self, entry: Entry) -> None:
        bisect.insort(self._waiting, entry, key=_turn)

    def _make_room(self, newcomer: PlaceOrder) -> None:
        """Refuse the newcomer if the queue takes too long. If it is full, refuse whichever has the last turn."""
        if self._is_congested(newcomer):
            raise self._too_many()
        if len(self._waiting) >= self._settings.orders_queue:
            last = self._waiting[-1]
            if isinstance(last, GiveBack) or last.turn_at <= newcomer.turn_at:
                raise self._too_many()
            last.refuse(self._too_many())
            self._waiting.pop()

    def _too_many(self) -> OrderError:
        return OrderError(Code.OVERLOADED, f"{len(self._waiting)} orders are waiting already.", retry_after_s=1)

    def _is_congested(self, newcomer: PlaceOrder) -> bool:
        """Whether the queue is slow: the newest request of the last batch waited too long, and at least a quarter of a
        batch is ahead of this one. Entries that wait for a busy product, cart or reference don't count.
        """
        if self._queued_s <= QUEUE_SHARE * self._settings.orders_request_deadline_s:
            return False
        before = self._waiting[: bisect.bisect(self._waiting, newcomer.turn_at, key=_turn)]
        return sum(not entry.is_hindered for entry in before) >= self._settings.orders_batch_size / 4

    def _expire(self, entry: Entry) -> None:
        """The deadline has come. An entry that is in a batch is the batch's to answer."""
        if entry in self._waiting:
            self._waiting.remove(entry)
            entry.refuse(
                OrderError(
                    Code.STOCK_BUSY, "The product's stock was busy until the request's deadline.", retry_after_s=5
                )
            )

    def _requeue(self, entries: Sequence[Entry], held: Iterable[int]) -> None:
        """Put entries back, in order, that could not go along. Nobody here asks for the `held` products again before a
        pause, which grows while they stay held.
        """
        now = self._loop.time()
        self._held.note(held, now)
        again = [entry for entry in entries if not entry.future.done()]
        for entry in again:
            entry.is_hindered = True
            if isinstance(entry, PlaceOrder) and entry.deadline <= now:
                self._loop.call_soon(self._expire, entry)
        self._waiting = sorted([*again, *self._waiting], key=_turn)
        self._loop.call_soon(self._dispatch)

    # The next batch ---------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Begin as many batches as may begin now, and set the timer for when time alone allows the next."""
        while self._has_room() and self._has_lingered() and (chosen := self._choose()):
            self._begin(chosen)
        self._set_timer()

    def _begin(self, chosen: Sequence[Entry]) -> None:
        if turns := [entry.turn_at for entry in chosen if isinstance(entry, PlaceOrder) and not entry.is_hindered]:
            self._queued_s = self._loop.time() - max(turns)
        batch = Batch(chosen, self._database, self._catalog, self._settings, self._requeue, self._spawn)
        self._batches.add(batch)
        if not is_small(chosen[0]):
            self._with_large_order.add(batch)
        self._spawn(self._run(batch))

    async def _run(self, batch: Batch) -> None:
        try:
            await batch.run()
        except Exception:
            log.exception("batch %s ended unexpectedly; recovery will look after what is left of it", batch.id)
        finally:
            self._batches.discard(batch)
            self._with_large_order.discard(batch)
            self._expected, self._linger_until = batch.size, self._loop.time() + LINGER_S
            self._dispatch()

    def _has_room(self) -> bool:
        """Whether another batch may begin. A full batch costs less than several small ones, so the next one normally
        waits until the last one has ended. A batch that takes longer than STRAGGLER_S is not waited for.
        """
        if len(self._batches) >= self._settings.orders_batches:
            return False
        in_flight = sum(batch.size for batch in self._batches)
        return in_flight < BATCHFULS * self._settings.orders_batch_size and self._may_begin_at() <= self._loop.time()

    def _may_begin_at(self) -> float:
        """When the newest batch counts as slow, so that another may begin. One with a large order does so at once."""
        begun = [batch.began_at for batch in self._batches if batch not in self._with_large_order]
        return max(begun, default=-math.inf) + STRAGGLER_S

    def _has_lingered(self) -> bool:
        """Whether as many wait as the last batch had, or had the time to come back."""
        return len(self._waiting) >= self._expected or self._loop.time() >= self._linger_until - CLOCK_S

    def _choose(self) -> Sequence[Entry]:
        """The entries of the next batch; the others go on waiting."""
        now = self._loop.time()
        held = self._held.resting(now)
        selection = Selection(
            busy=held.union(*(batch.busy for batch in self._batches)),
            unsure=held.union(*(batch.slow for batch in self._batches)),
            takes_large=len(self._with_large_order) < LARGE_AT_ONCE,
            size=self._settings.orders_batch_size,
            now=now,
        )
        for entry in self._waiting:
            if not entry.future.done():
                selection.offer(entry)
        self._waiting = selection.rest
        return selection.chosen

    def _set_timer(self) -> None:
        when = self._next_wake_up()
        if when == self._timer_at:
            return
        if self._timer:
            self._timer.cancel()
        self._timer = None if when == math.inf else self._loop.call_at(when, self._wake_up)
        self._timer_at = when

    def _next_wake_up(self) -> float:
        """When time alone may let another batch begin; infinity: only an event can."""
        if not self._waiting:
            return math.inf
        now = self._loop.time()
        times = (self._linger_until, self._may_begin_at(), self._held.next_end(now))
        return min((when for when in times if when > now), default=math.inf)

    def _wake_up(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._dispatch()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
