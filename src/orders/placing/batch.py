"""One batch of orders, from claim to settle. What each step has made durable, and who mends it when we die there,
is the table in docs/placing.md; the SQL is in `stock`.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from uuid_utils.compat import uuid7

from orders.errors import OrderError
from orders.neighbours.catalog import Catalog
from orders.order import keys_sql
from orders.order.idempotency import Answer, is_recorded, order_answer
from orders.order.keys_sql import Outcome
from orders.placing.entry import Entry, GiveBack, PlaceOrder
from orders.placing.planning import BatchPlan, Read, new_order, plan_orders
from orders.placing.reading import read_products
from orders.placing.refusals import not_prepared, outcomes, undecided
from orders.placing.settling import Settling
from orders.placing.sorting import ClaimResult, orders_of, products_of, sort_out
from orders.postgres.database import Database, DatabaseUnavailable
from orders.settings import Settings
from orders.stock import claim_sql
from orders.stock.abandon_sql import abandon
from orders.stock.batch_lost_sql import BatchLost
from orders.stock.claim_sql import Claimed
from orders.stock.intend_sql import Intent, Taken, intend
from orders.stock.outcomes_sql import keep_outcomes
from orders.stock.write import jittered

log = logging.getLogger(__name__)

UNDO_TIMEOUT_S = 1.0
"""Timeout for the undo of a batch. Until then clients wait, so that their next try finds nothing in its way."""


class Requeue(Protocol):
    """Puts entries back into the queue. `held` are products that are not to be asked for at once."""

    def __call__(self, entries: Sequence[Entry], held: Iterable[int]) -> None: ...


class Batch:
    """Orders that are placed together. After `run` each of them is answered, or was given to `requeue`."""

    def __init__(
        self,
        entries: Sequence[Entry],
        database: Database,
        catalog: Catalog,
        settings: Settings,
        requeue: Requeue,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.id = uuid7()
        self.size = len(entries)
        self.products = frozenset(products_of(entries))
        self._entries = list(entries)
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._requeue = requeue
        self._spawn = spawn
        self._now = asyncio.get_running_loop().time
        # Measured before CLAIM is sent: our copy of the lease always ends earlier than PostgreSQL's.
        self.began_at = self._now()
        self._lease_until = self.began_at + settings.orders_lease_s
        self._settling: Settling | None = None
        for entry in entries:
            if isinstance(entry, GiveBack):  # nobody waits for it: it has as much time as an order
                entry.deadline = self.began_at + settings.orders_request_deadline_s

    @property
    def busy(self) -> frozenset[int]:
        """The products that it is still at work on."""
        return self.products - self._settling.ended if self._settling else self.products

    @property
    def slow(self) -> frozenset[int]:
        """The products whose PUT takes long."""
        return self._settling.slow if self._settling else frozenset()

    async def run(self) -> None:
        """CLAIM, READ, PLAN, INTEND, WRITE, SETTLE."""
        try:
            settling = await self._prepare()
        except (Taken, BatchLost) as error:
            log.info("batch %s starts over: %s", self.id, error or type(error).__name__)
            await self._abandon(None)
        except Exception as error:
            await self._abandon(not_prepared(error))
        else:
            if settling:
                await settling.run()

    async def _prepare(self) -> Settling | None:
        """Everything before the first PUT. Returns what is left to do."""
        ready, claimed = await self._claim()
        if not ready:
            return None
        read = await read_products(self._catalog, ready, self.id, self._refuse_late)
        for entry in ready:
            if isinstance(entry, GiveBack):
                entry.answer(Answer(200, "", None))  # its stock goes along with whatever is planned now
        planned = plan_orders(orders_of(ready), claimed.due, read, self._now())
        await self._intend(planned, read)
        if not planned.changes:
            return None
        self._settling = Settling(
            self.id,
            planned,
            read.products,
            self._lease_until,
            self._database,
            self._catalog,
            self._settings,
            functools.partial(self._requeue, held=()),
        )
        return self._settling

    # CLAIM ------------------------------------------------------------------------------------------------------

    async def _claim(self) -> tuple[list[Entry], Claimed]:
        orders = orders_of(self._entries)
        fingerprints = {order.key: order.request.fingerprint for order in orders if order.key}
        carts = {order.cart: order.request.seer for order in orders if order.cart}
        references = [order.reference for order in orders if order.reference]
        lease_s = self._settings.orders_lease_s
        products = sorted(self.products)
        claimed = await self._database.run(
            lambda c: claim_sql.claim(c, self.id, lease_s, products, fingerprints, carts, references)
        )
        found = sort_out(self._entries, claimed)
        await self._apply(found)
        return found.ready, claimed

    async def _apply(self, found: ClaimResult) -> None:
        """Answer, release and requeue. Until the end all entries are the batch's: if the database goes away meanwhile,
        those without an answer get one.
        """
        for order, known in found.known_key.items():
            order.answer(known) if isinstance(known, Answer) else order.refuse(known)
        for order, cart_order in found.known_cart.items():
            await self._keep_outcome(order, Outcome(201, cart_order.document.json, cart_order.order_id))
            order.answer(order_answer(201, cart_order.document, cart_order.order_id, replayed=True))
        if found.spare_products or found.spare_keys:
            await self._database.run(lambda c: claim_sql.release(c, self.id, found.spare_products, found.spare_keys))
        for order, error in found.refused.items():  # its key is free again: it may be used from now on
            order.refuse(error)
        self._entries = found.ready
        if found.again:
            self._requeue(found.again, held=found.ask_later)

    async def _keep_outcome(self, order: PlaceOrder, outcome: Outcome) -> None:
        if key := order.key:
            fingerprint = order.request.fingerprint
            await self._database.run(lambda c: keys_sql.keep_outcome(c, key, fingerprint, outcome, self.id))

    # READ -------------------------------------------------------------------------------------------------------

    def _refuse_late(self, entry: Entry, error: OrderError) -> None:
        if isinstance(entry, PlaceOrder) and entry.key:
            self._spawn(self._refuse_durably(entry, error))
        else:
            entry.refuse(error)

    async def _refuse_durably(self, order: PlaceOrder, error: OrderError) -> None:
        """Store the error under the order's key, then answer with it. If storing fails, answer that nothing is decided
        yet (503).
        """
        remembered = outcomes({order: error})
        try:
            is_kept = await self._database.run(lambda c: keep_outcomes(c, self.id, remembered))
        except DatabaseUnavailable:
            is_kept = False
        order.refuse(error if is_kept else undecided(order, error))

    # INTEND -----------------------------------------------------------------------------------------------------

    async def _intend(self, planned: BatchPlan, read: Read) -> None:
        intent = Intent(
            planned.changes,
            [new_order(order, read.products) for order in planned.orders],
            planned.due,
            outcomes(planned.refused),
            freed_keys=[order.key for order, e in planned.refused.items() if order.key and not is_recorded(e)],
            unreadable=[p for entry in self._entries for p in entry.products if p not in read.products],
        )
        horizon_s = self._settings.orders_write_horizon_s
        await self._database.run(lambda c: intend(c, self.id, horizon_s, intent))
        for order, error in planned.refused.items():
            order.refuse(error)

    # Undo of CLAIM and INTEND -----------------------------------------------------------------------------------

    async def _abandon(self, error: OrderError | None) -> None:
        """Nothing was sent: take everything back, and answer with `error` or (None) start over."""
        refused = dict.fromkeys(orders_of(self._entries), error) if error else {}
        remembered, is_undone = outcomes(refused), False
        try:
            async with asyncio.timeout(UNDO_TIMEOUT_S):
                await self._database.run(lambda c: abandon(c, self.id, remembered))
            is_undone = True
        except (DatabaseUnavailable, TimeoutError):
            self._spawn(self._abandon_later(remembered))
        finally:
            self._answer_abandoned(error, is_undone=is_undone)

    def _answer_abandoned(self, error: OrderError | None, *, is_undone: bool) -> None:
        if error is None:
            self._requeue(self._entries, held=())
            return
        for entry in self._entries:
            if isinstance(entry, PlaceOrder) and not is_undone:
                entry.refuse(undecided(entry, error))
            else:
                entry.refuse(error)

    async def _abandon_later(self, remembered: dict[str, Outcome]) -> None:
        """The database is away. Until the lease runs out this is ours to do; then it is recovery's."""
        while self._now() < self._lease_until:
            await asyncio.sleep(jittered(0.2))
            try:
                await self._database.run(lambda c: abandon(c, self.id, remembered))
            except DatabaseUnavailable:
                continue
            return
