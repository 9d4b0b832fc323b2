"""WRITE and SETTLE: the second half of a batch. Each order is answered as soon as it is certain what became of it."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from orders.errors import Code, OrderError
from orders.neighbours.catalog import Catalog, Product
from orders.order.document import Document
from orders.order.idempotency import order_answer
from orders.placing.decision import Decided, decide, settlement
from orders.placing.entry import Entry
from orders.placing.planning import BatchPlan
from orders.placing.refusals import undecided
from orders.postgres.database import Database, DatabaseUnavailable, Query
from orders.settings import Settings
from orders.stock.batch_lost_sql import BatchLost
from orders.stock.plan import Adjustment
from orders.stock.settle_sql import Settlement, read_placed, settle
from orders.stock.write import Fate, jittered, write_stock

log = logging.getLogger(__name__)

T = TypeVar("T")

STRAGGLER_S = 0.25
"""Time after which orders whose PUTs are all acknowledged are settled, without waiting any longer for the others'."""

SETTLE_AGAIN_S = 0.05
"""Shortest wait for the next deadline. A PUT that ends earlier ends it."""


class Settling:
    """The PUTs of a batch, and what is decided by them.

    `ended` are the products that the batch holds no longer: their claims are deleted, or quiet. `slow` are those whose
    PUT takes long.
    """

    def __init__(
        self,
        batch: UUID,
        planned: BatchPlan,
        products: Mapping[int, Product],
        lease_until: float,
        database: Database,
        catalog: Catalog,
        settings: Settings,
        requeue: Callable[[Sequence[Entry]], None],
    ) -> None:
        self.ended: frozenset[int] = frozenset()
        self.slow: frozenset[int] = frozenset()
        self._batch = batch
        self._placing = list(planned.orders)
        self._changes = planned.changes
        self._products = products
        self._lease_until = lease_until
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._requeue = requeue
        self._now = asyncio.get_running_loop().time
        self._fates: dict[int, Fate] = {}
        self._has_failures = False
        self._carries_due = bool(planned.due)

    async def run(self) -> None:
        """Send the PUTs, settle, and answer everybody."""
        puts = {asyncio.create_task(self._put(self._products[p], change)) for p, change in self._changes.items()}
        try:
            await self._settle_while(puts)
        except BatchLost:
            await self._answer_lost()
        except Exception:
            log.exception("batch %s can't be settled; recovery will", self._batch)
        finally:
            for put in puts:
                put.cancel()
        if self._placing:
            # Not in `finally`: a batch that is cancelled in the middle of SETTLE does not know what became of them.
            self._refuse_rest(OrderError(Code.ORDER_FAILED, "The order could not be completed."))

    async def _settle_while(self, puts: set[asyncio.Task[None]]) -> None:
        """Settle what is certain after STRAGGLER_S, then after each PUT and at each deadline, until no PUT is left."""
        _, pending = await asyncio.wait(puts, timeout=STRAGGLER_S)
        await self._settle(is_last=not pending)
        while pending:
            timeout_s = max(SETTLE_AGAIN_S, self._next_deadline() - self._now())
            _, pending = await asyncio.wait(pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            await self._settle(is_last=not pending)

    async def _put(self, product: Product, change: Adjustment) -> None:
        if change.before == change.after:
            self._fates[product.id] = Fate.LANDED
            return
        needed_until = [order.deadline for order in self._placing if product.id in order.products]
        give_up_at = max(needed_until, default=self._now() + self._settings.orders_request_deadline_s)
        try:
            self._fates[product.id] = await write_stock(
                self._catalog, product, change, min(give_up_at, self._lease_until), self._batch
            )
        except Exception:
            log.exception("the PUT of product %s ended unexpectedly", product.id)
            self._fates[product.id] = Fate.DOUBT

    def _next_deadline(self) -> float:
        return min([self._lease_until, *(order.deadline for order in self._placing)])

    async def _settle(self, *, is_last: bool) -> None:
        """Settle what is certain by now. What is still on its way stays with the batch."""
        self.slow = frozenset(self._changes.keys() - self._fates.keys())
        decided = decide(self._placing, self._fates, self._now())
        ended = {p: fate for p, fate in self._fates.items() if fate is not Fate.DOUBT and p not in self.ended}
        if not (decided.orders or ended or is_last):
            return
        self._has_failures = self._has_failures or bool(decided.failed or decided.again)
        written = settlement(
            decided,
            ended,
            self._fates,
            has_failures=self._has_failures,
            carries_due=self._carries_due,
            hand_over=is_last and bool(self._changes.keys() - self.ended - ended.keys()),
        )
        documents = await self._settle_until_answered(written)
        self.ended |= ended.keys()
        self._answer(decided, documents)
        if decided.again or not is_last:  # the queue looks again, too, at what is free by now
            self._requeue(decided.again)

    def _answer(self, decided: Decided, documents: Mapping[UUID, Document]) -> None:
        settled = set(decided.orders)
        self._placing = [order for order in self._placing if order not in settled]
        for order in decided.placed:
            order.answer(order_answer(201, documents[order.order_id], order.order_id))
        for order, error in decided.failed.items():
            order.refuse(error)
        for order in decided.again:
            order.order_id = uuid7()

    async def _settle_until_answered(self, written: Settlement) -> dict[UUID, Document]:
        """SETTLE, through a lost connection too: it is guarded, so a second run of it changes nothing.

        Raises BatchLost: another replica was first, and the orders have failed.
        """
        horizon_s = self._settings.orders_write_horizon_s
        try:
            return await self._until_answered(lambda c: settle(c, self._batch, horizon_s, written))
        except BatchLost:
            placed = await self._read_placed(written.placed)
            if len(placed) == len(written.placed):  # the run whose answer was lost had succeeded
                return placed
            raise

    async def _read_placed(self, ids: Sequence[UUID]) -> dict[UUID, Document]:
        return await self._until_answered(lambda c: read_placed(c, self._batch, ids))

    async def _until_answered(self, query: Query[T]) -> T:
        """Run `query` again until the database answers.

        While SETTLE's outcome is unknown neither 201 nor 500 would be true, so the client waits with us.
        """
        while True:
            try:
                return await self._database.run(query)
            except DatabaseUnavailable as error:
                log.warning("batch %s waits for the database: %s", self._batch, error)
                await asyncio.sleep(jittered(0.2))

    # When the batch is not ours any more ------------------------------------------------------------------------

    async def _answer_lost(self) -> None:
        """Another replica has taken the batch over: its orders have failed, unless a SETTLE of ours was first."""
        log.warning("batch %s was taken over; its orders are the recovering replica's", self._batch)
        placed = await self._read_placed([order.order_id for order in self._placing])
        for order in self._placing:
            if order.order_id in placed:
                order.answer(order_answer(201, placed[order.order_id], order.order_id))
        self._refuse_rest(OrderError(Code.ORDER_FAILED, "This replica was interrupted while placing the order."))

    def _refuse_rest(self, error: OrderError) -> None:
        for order in self._placing:
            order.refuse(undecided(order, error))
