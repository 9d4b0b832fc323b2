"""The queue in front of the batches: requests wait here until all that they need is free, and go together."""

import asyncio
import bisect
import functools
import logging
import math
import random
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from orders.errors import Code, OrderError
from orders.neighbours.catalog import Catalog
from orders.order import keys_sql
from orders.order.idempotency import Answer, replay
from orders.order.keys_sql import KeyInUse
from orders.placing.batch import STRAGGLER_S, Batch
from orders.placing.cart_closing import CartClosing
from orders.placing.entry import Request, Waiting
from orders.postgres.database import Database
from orders.settings import Settings

log = logging.getLogger(__name__)

PASSED_OVER = 8
"""After so many batches went ahead without it, a request's products are kept free for it (so that nothing starves)."""


GATHER_S = 0.002
"""So long after a batch the next one waits for as many orders: clients that were answered together come back together,
and the first of them would be a batch of its own.
"""


CLOCK_S = 0.0005
"""An alarm may come so much early: the event loop's clock counts milliseconds."""

BATCHFULS = 2
"""So many orders, in full batches, are at most under way at once: more of them would only wait for each other."""

QUEUE_SHARE = 0.05
"""Part of a deadline: if the last request waited in the queue for longer, a request behind many others gets 503."""

LINE_S = 0.005
"""Seconds that each line puts a request's turn off. So an order of two lines goes before one of 500 that came two
seconds earlier, and before most of a hundred orders that came in one request. It is about what a line costs.
"""

MOST_PRODUCTS = 256
"""Maximum number of products in a batch of several orders: four rounds of calls to a catalog that takes 64."""

SMALL = 64
"""Number of products up to which an order is small, and a batch that takes along orders before their turn."""

LARGE_AT_ONCE = 2
"""Maximum number of batches with a large order at once. They take longer, and hold up no other batch."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A product that another replica holds (or that is quiet): when to ask for it again."""

    FIRST_S: ClassVar[float] = 0.008
    MOST_S: ClassVar[float] = 0.1

    until: float = 0.0
    pause_s: float = FIRST_S

    def once_more(self, now: float) -> "_Held":
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 (a pause is no secret)
        return _Held(now + self.pause_s * jitter, min(self.pause_s * 2, self.MOST_S))


def _turn(waiting: Waiting) -> float:
    return waiting.turn_at


class Placement:
    """Places orders in batches. One per replica; made inside the event loop."""

    def __init__(self, database: Database, catalog: Catalog, closing: CartClosing, settings: Settings) -> None:
        self._database = database
        self._catalog = catalog
        self._closing = closing
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Waiting] = []  # in the order of their turns
        self._batches: dict[Batch, frozenset[int]] = {}
        self._large: set[Batch] = set()  # those with a large order, which is always the first
        self._keys: dict[str, bytes] = {}
        self._giving_back: set[int] = set()
        self._held: dict[int, _Held] = {}
        self._queued_s = 0.0  # how long the newest request of the last batch had waited beyond its turn
        self._expected = 0  # orders, until `_gather_until`
        self._gather_until = -math.inf
        self._alarm: asyncio.Handle | None = None
        self._alarm_at = math.inf  # not asked of the handle: uvloop's has no time where it is due at once
        self._tasks: set[asyncio.Task[None]] = set()

    async def place(self, request: Request) -> Answer:
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

    async def find_outcome(self, key: str, fingerprint: bytes) -> Answer | None:
        """The first outcome of this key, if it has one. Raises OrderError as `replay` does."""
        known = await self._database.run(lambda c: keys_sql.find_key(c, key))
        return replay(known, fingerprint) if known else None

    def give_back(self, products: Iterable[int]) -> None:
        """See that the stock which is due back to these products goes back soon."""
        for product_id in set(products) - self._giving_back:
            self._giving_back.add(product_id)
            waiting = Waiting(frozenset((product_id,)), self._loop.create_future(), turn_at=self._loop.time())
            waiting.future.add_done_callback(functools.partial(self._gave_back, product_id))
            self._line_up(waiting)
        self._dispatch()

    def _gave_back(self, product_id: int, _: object) -> None:
        self._giving_back.discard(product_id)

    async def drain(self) -> None:
        """Return when every batch that is under way has ended, and the next one that only gathers."""
        while self._tasks or (self._waiting and not self._has_gathered()):
            await (asyncio.wait(self._tasks) if self._tasks else asyncio.sleep(GATHER_S))

    @property
    def waiting_count(self) -> int:
        """How many requests wait for a batch."""
        return len(self._waiting)

    async def _place(self, request: Request) -> Answer:
        waiting = Waiting(frozenset(line.product_id for line in request.lines), self._loop.create_future(), request)
        waiting.turn_at = self._loop.time() + LINE_S * (request.lines_ahead + len(request.lines))
        self._make_room(waiting)
        self._line_up(waiting)
        expiry = self._loop.call_at(request.deadline, self._expire, waiting)
        self._dispatch()
        try:
            answer = await waiting.future
        finally:
            expiry.cancel()
        if answer.order_id and not answer.replayed:
            await self._closing.close(answer.order_id, request.customer_id, request.cart_id, request.lines)
        return answer

    def _line_up(self, waiting: Waiting) -> None:
        bisect.insort(self._waiting, waiting, key=_turn)

    def _make_room(self, newcomer: Waiting) -> None:
        """Refuse the newcomer if the queue takes too long. If it is full, refuse whichever has the last turn."""
        too_many = OrderError(Code.OVERLOADED, f"{len(self._waiting)} orders are waiting already.", retry_after_s=1)
        if self._is_slow(newcomer):
            raise too_many
        if len(self._waiting) >= self._settings.orders_queue:
            if self._waiting[-1].request is None or self._waiting[-1].turn_at <= newcomer.turn_at:
                raise too_many
            self._waiting.pop().refuse(too_many)

    def _is_slow(self, newcomer: Waiting) -> bool:
        """Whether the last request waited long, and more are before this one than a quarter of a batch.

        Requests whose product is held elsewhere stand aside: they are no reason to refuse those that want another.
        """
        if self._queued_s <= QUEUE_SHARE * self._settings.orders_request_deadline_s:
            return False
        before = self._waiting[: bisect.bisect(self._waiting, newcomer.turn_at, key=_turn)]
        return sum(not w.is_hindered for w in before) >= self._settings.orders_batch_size / 4

    def _expire(self, waiting: Waiting) -> None:
        """The deadline has come. One that is in a batch is the batch's to answer."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.refuse(
                OrderError(
                    Code.STOCK_BUSY, "The product's stock was busy until the request's deadline.", retry_after_s=5
                )
            )

    def _requeue(self, entries: Sequence[Waiting], held: Iterable[int]) -> None:
        """Put back, in order, who could not go along. `held` are products that another replica holds: nobody here asks
        for them again before a pause that grows while it goes on.
        """
        now = self._loop.time()
        self._held = {p: pause for p, pause in self._held.items() if pause.until > now - 1}
        for product_id in held:
            self._held[product_id] = self._held.get(product_id, _Held()).once_more(now)
        again = [entry for entry in entries if not entry.future.done()]
        for entry in again:
            entry.is_hindered = True
            if entry.request and entry.request.deadline <= now:
                self._loop.call_soon(self._expire, entry)
        self._waiting = sorted([*again, *self._waiting], key=_turn)
        if self._waiting:
            self._wake_up_at(min((h.until for h in self._held.values() if h.until > now), default=now + _Held.FIRST_S))

    def _wake_up_at(self, when: float) -> None:
        """One timer, for the first product that may be asked for again."""
        if when < self._alarm_at:
            if self._alarm:
                self._alarm.cancel()
            self._alarm, self._alarm_at = self._loop.call_at(when, self._wake_up), when

    def _wake_up(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self._dispatch()
        now = self._loop.time()
        later = [pause.until for pause in self._held.values() if pause.until > now]
        if self._waiting and later:
            self._wake_up_at(min(later))

    def _dispatch(self) -> None:
        while self._has_room() and self._has_gathered() and (chosen := self._choose()):
            self._note_wait(chosen)
            batch = Batch(chosen, self._database, self._catalog, self._settings, self._requeue, self._spawn)
            self._batches[batch] = frozenset(p for entry in chosen for p in entry.products)
            if len(chosen[0].products) > SMALL:
                self._large.add(batch)
            self._spawn(self._run(batch, len(chosen)))

    def _note_wait(self, chosen: Sequence[Waiting]) -> None:
        if turns := [w.turn_at for w in chosen if w.request and not w.is_hindered]:
            self._queued_s = self._loop.time() - max(turns)

    def _has_room(self) -> bool:
        """Whether another batch may begin. Few large ones cost less than many small ones, so as a rule the next gathers
        until the last has ended; but one that takes long (a slow catalog, a PUT without an answer) holds up nobody.
        """
        orders = sum(batch.size for batch in self._batches)
        if (
            len(self._batches) >= self._settings.orders_batches
            or orders >= BATCHFULS * self._settings.orders_batch_size
        ):
            return False
        long_ago = self._loop.time() - STRAGGLER_S
        young = [b.began_at for b in self._batches if b.began_at > long_ago and b not in self._large]
        if young and self._waiting:
            self._wake_up_at(min(young) + STRAGGLER_S)
        return not young

    def _has_gathered(self) -> bool:
        """Whether as many wait as the last batch had, or had the time to come back."""
        is_time = len(self._waiting) >= self._expected or self._loop.time() >= self._gather_until - CLOCK_S
        if not is_time and self._waiting:
            self._wake_up_at(self._gather_until)
        return is_time

    async def _run(self, batch: Batch, size: int) -> None:
        try:
            await batch.run()
        except Exception:
            log.exception("batch %s ended unexpectedly; recovery will look after what is left of it", batch.id)
        finally:
            del self._batches[batch]
            self._large.discard(batch)
            self._expected, self._gather_until = size, self._loop.time() + GATHER_S
            self._dispatch()

    def _choose(self) -> Sequence[Waiting]:
        """The next batch, in the order of turns: requests that need no product that another batch is still at work on,
        and no cart and no reference that is in this one already.
        """
        now = self._loop.time()
        held = {product_id for product_id, pause in self._held.items() if pause.until > now}
        busy = held.union(*(products - batch.ended for batch, products in self._batches.items()))
        slow = set().union(*(batch.slow for batch in self._batches))
        taken: set[tuple[str, object]] = set()
        wanted: set[int] = set()
        takes_large = len(self._large) < LARGE_AT_ONCE
        chosen: list[Waiting] = []
        rest: list[Waiting] = []
        for entry in self._waiting:
            only_once = entry.request.only_once if entry.request else set()
            if entry.future.done():
                continue
            is_free = busy.isdisjoint(entry.products) and taken.isdisjoint(only_once)
            is_small = len(entry.products) <= SMALL
            room = (MOST_PRODUCTS if entry.turn_at <= now else SMALL) - len(wanted)
            fits = (is_small and len(entry.products - wanted) <= room) if chosen else (is_small or takes_large)
            if is_free and fits and len(chosen) < self._settings.orders_batch_size:
                chosen.append(entry)
                taken |= only_once
                wanted |= entry.products
            else:
                rest.append(entry)
                entry.is_hindered = entry.is_hindered or not is_free
                entry.passed_over += 1
                may_start = is_small or takes_large
                if may_start and entry.passed_over > PASSED_OVER and not entry.products & (slow | held):
                    busy |= entry.products
        self._waiting = rest
        return chosen

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
