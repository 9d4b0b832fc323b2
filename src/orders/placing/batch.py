"""One batch of orders, from claim to settle. What each step has made durable, and who mends it when we die there,
is the table in docs/placing.md; `store.placing` has the SQL.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from orders.errors import Code, OrderError, reference_taken
from orders.neighbours.catalog import Catalog, Product
from orders.neighbours.gate import DRY_RUN
from orders.neighbours.reply import CircuitOpen, MalformedReply, NoAnswer, NotSent
from orders.order import keys_sql
from orders.order.idempotency import Answer, is_recorded, replay
from orders.order.keys_sql import Outcome
from orders.order.model import MAX_ID
from orders.order.sizes import names_that_fit
from orders.placing.entry import Request, Waiting, insufficient, outcomes
from orders.postgres.database import Database, DatabaseUnavailable, Query
from orders.settings import Settings
from orders.stock import claim_sql
from orders.stock.abandon_sql import abandon
from orders.stock.batch_lost_sql import BatchLost
from orders.stock.claim_sql import CartOrder, Claimed, Due, ReferenceOrder
from orders.stock.intend_sql import Intent, NewOrder, Taken, intend
from orders.stock.outcomes_sql import keep_outcomes
from orders.stock.plan import Adjustment, plan
from orders.stock.settle_sql import Verdict, read_placed, settle
from orders.stock.write import DID_LAND, DID_NOT, Fate, jittered, write_stock

log = logging.getLogger(__name__)

T = TypeVar("T")

STRAGGLER_S = 0.25
"""Orders whose PUTs are all acknowledged are settled after this, without waiting any longer for the others'."""

UNDO_PATIENCE_S = 1.0
"""So long do clients wait for the undo before they are told 503, so that their next try finds nothing in its way."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a batch would do: the orders that it would place, who would be refused, whose cart has become an order
    already, and each product's stock.
    """

    orders: Mapping[Waiting, NewOrder]
    refused: Mapping[Waiting, OrderError]
    repeated: Mapping[Waiting, CartOrder]
    changes: Mapping[int, Adjustment]


class Batch:
    """Orders that are placed together. After `run` each of them is answered, or was given to `requeue`."""

    def __init__(
        self,
        waiting: Sequence[Waiting],
        database: Database,
        catalog: Catalog,
        settings: Settings,
        requeue: Callable[[Sequence[Waiting], Iterable[int]], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.id = uuid7()
        self._flow: Hashable = self.id  # its calls to the catalog take turns with those of other batches
        self.slow: set[int] = set()
        self.size = len(waiting)
        self._waiting = list(waiting)
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._requeue = requeue
        self._spawn = spawn
        self._now = asyncio.get_running_loop().time
        # Counted from before CLAIM is sent, so that we believe it over before PostgreSQL does.
        self.began_at = self._now()
        self._lease_until = self.began_at + settings.orders_lease_s
        self._products: dict[int, Product] = {}
        self._changes: dict[int, Adjustment] = {}
        self._fates: dict[int, Fate] = {}
        self.ended: set[int] = set()  # products that it has done with: their claims are gone
        self._has_failures = False
        self._carries_returns = False
        self._placing: list[Waiting] = []

    async def run(self) -> None:
        """CLAIM, READ, PLAN, INTEND, WRITE, SETTLE."""
        try:
            await self._prepare()
        except (Taken, BatchLost) as error:
            log.info("batch %s starts over: %s", self.id, error or type(error).__name__)
            await self._abandon(None)
        except Exception as error:
            await self._abandon(_as_order_error(error))
        else:
            await self._write_and_settle()

    async def _prepare(self) -> None:
        ready, claimed = await self._claim()
        if not ready:
            return
        errors = await self._read(ready)
        await self._intend(*self._plan(ready, claimed, errors))

    async def rehearse(self) -> Rehearsed:
        """READ and PLAN of these requests, each of another cart, as if all of their products were free.

        Nothing is claimed, written or sent. Raises DatabaseUnavailable.
        """
        self._flow = DRY_RUN
        requests = [w.request for w in self._waiting if w.request]
        products = sorted({p for w in self._waiting for p in w.products})
        carts = [r.cart for r in requests if r.cart]
        claimed = await self._database.run(lambda c: claim_sql.look(c, products, carts, _references(requests)))
        placed = {cart: order for cart, order in claimed.cart_orders.items() if order.is_placed}
        repeated = {w: placed[w.request.cart] for w in self._waiting if w.request and w.request.cart in placed}
        taken = {**self._taken_here(), **self._taken(claimed)}
        ready = [w for w in self._waiting if w not in repeated and w not in taken]
        refused, _ = self._plan(ready, claimed, await self._read(ready))
        orders = {w: self._new_order(w, w.request) for w in self._placing if w.request}
        return Rehearsed(orders, {**taken, **refused}, repeated, self._changes)

    # CLAIM ------------------------------------------------------------------------------------------------------

    async def _claim(self) -> tuple[list[Waiting], Claimed]:
        requests = [w.request for w in self._waiting if w.request]
        products = sorted({p for w in self._waiting for p in w.products})
        fingerprints = {r.key: r.fingerprint for r in requests if r.key}
        carts = [r.cart for r in requests if r.cart]
        references, lease_s = _references(requests), self._settings.orders_lease_s
        claimed = await self._database.run(
            lambda c: claim_sql.claim(c, self.id, lease_s, products, fingerprints, carts, references)
        )
        self._waiting = [w for w in self._waiting if not await self._is_repetition(w, claimed)]
        ready = [w for w in self._waiting if self._may_go_on(w, claimed)]
        await self._release_unneeded(ready, claimed)
        for waiting, error in self._taken(claimed).items():  # not before its key is free again: it may be used then
            waiting.refuse(error)
        again = [w for w in self._waiting if not (self._may_go_on(w, claimed) or w.future.done())]
        self._waiting = ready  # not before: should the database go away until here, all of them are answered
        # Of those that got all of their products, the cart, the key or the reference is elsewhere.
        elsewhere = {p for w in again if w.products <= claimed.products for p in w.products}
        self._requeue(again, elsewhere | (set(products) - claimed.products))
        return ready, claimed

    async def _is_repetition(self, waiting: Waiting, claimed: Claimed) -> bool:
        """Whether the request's key or cart has its answer already; it is given here."""
        request = waiting.request
        if request and request.key in claimed.keys_in_use:
            try:
                waiting.answer(replay(claimed.keys_in_use[request.key], request.fingerprint))
            except OrderError as error:
                waiting.refuse(error)
            return True
        order = claimed.cart_orders.get(request.cart) if request and request.cart else None
        if request and order and order.is_placed:
            if request.key:
                outcome, key = Outcome(201, order.body, order.order_id), request.key
                await self._database.run(lambda c: keys_sql.keep_outcome(c, key, request.fingerprint, outcome, self.id))
            waiting.answer(Answer(201, order.body, order.order_id, replayed=True))
            return True
        return False

    def _taken(self, claimed: Claimed) -> dict[Waiting, OrderError]:
        """Who wants a reference that a placed order has."""
        placed = {reference: order for reference, order in claimed.references.items() if order.is_placed}
        return {w: reference_taken(r, _if_own(w, placed[r])) for w, r in self._referring() if r in placed}

    def _taken_here(self) -> dict[Waiting, OrderError]:
        """Who wants a reference that another one before it wants, too."""
        first = dict(reversed([(reference, waiting) for waiting, reference in self._referring()]))
        return {w: reference_taken(r, None) for w, r in self._referring() if first[r] is not w}

    def _referring(self) -> list[tuple[Waiting, str]]:
        references = [(w, w.request.details.external_reference) for w in self._waiting if w.request]
        return [(waiting, reference) for waiting, reference in references if reference]

    def _may_go_on(self, waiting: Waiting, claimed: Claimed) -> bool:
        """Whether it got all that it needs. Otherwise another batch, here or elsewhere, is at work on it."""
        request = waiting.request
        has_key = not (request and request.key) or request.key in claimed.keys
        has_cart = not (request and request.cart) or request.cart not in claimed.cart_orders
        has_reference = not request or request.details.external_reference not in claimed.references
        return has_key and has_cart and has_reference and waiting.products <= claimed.products

    async def _release_unneeded(self, ready: Sequence[Waiting], claimed: Claimed) -> None:
        products = claimed.products - {p for w in ready for p in w.products}
        keys = claimed.keys - {w.request.key for w in ready if w.request and w.request.key}
        if products or keys:
            await self._database.run(lambda c: claim_sql.release(c, self.id, products, keys))

    # READ -------------------------------------------------------------------------------------------------------

    async def _read(self, ready: Sequence[Waiting]) -> dict[int, OrderError]:
        """Fill `_products`; returns why the others can't be known."""
        products = sorted({p for w in ready for p in w.products})
        reads = {p: asyncio.create_task(self._catalog.read(p, self._flow)) for p in products}
        await self._wait_for(reads.values(), ready)
        errors: dict[int, OrderError] = {}
        for product_id, read in reads.items():
            if read.cancel():
                read.add_done_callback(_ignore)
                errors[product_id] = _took_too_long()
            elif error := read.exception():
                errors[product_id] = _catalog_error(error)
            elif product := read.result():
                self._products[product_id] = product
        return errors

    async def _wait_for(self, reads: Iterable[asyncio.Task[Product | None]], ready: Sequence[Waiting]) -> None:
        """Return when all is read, or nobody waits for it any more: each client is answered at its own deadline."""
        pending, waiting = set(reads), list(ready)
        while pending and waiting:
            patience_s = min(map(self._deadline, waiting)) - self._now()
            _, pending = await asyncio.wait(pending, timeout=max(0.0, patience_s))
            for late in [w for w in waiting if pending and self._deadline(w) <= self._now()]:
                waiting.remove(late)
                if late.request and late.request.key:
                    self._spawn(self._refuse_durably(late, _took_too_long()))
                else:
                    late.refuse(_took_too_long())

    async def _refuse_durably(self, waiting: Waiting, error: OrderError) -> None:
        """Once its key remembers the error; where that can't be had, it is told that nothing was decided."""
        remembered = outcomes({waiting: error})
        try:
            is_kept = await self._database.run(lambda c: keep_outcomes(c, self.id, remembered))
        except DatabaseUnavailable:
            is_kept = False
        waiting.refuse(error if is_kept else _undecided(waiting, error))

    def _deadline(self, waiting: Waiting) -> float:
        request = waiting.request
        return request.deadline if request else self.began_at + self._settings.orders_request_deadline_s

    # PLAN -------------------------------------------------------------------------------------------------------

    def _plan(
        self, ready: Sequence[Waiting], claimed: Claimed, errors: Mapping[int, OrderError]
    ) -> tuple[dict[Waiting, OrderError], list[Due]]:
        """Decide, fill `_placing` and `_changes`; returns who is refused and why, and the stock that goes back."""
        refused: dict[Waiting, OrderError] = {}
        candidates: list[Waiting] = []
        for waiting in ready:
            if waiting.request is None:
                waiting.answer(Answer(200, "", None))
            elif error := self._hindrance(waiting.request, errors):
                refused[waiting] = error
            else:
                candidates.append(waiting)
        due = [d for d in claimed.due if d.product_id in self._products]
        returns: dict[int, int] = {}
        for d in due:
            returns[d.product_id] = returns.get(d.product_id, 0) + d.quantity
        stock = {p.id: p.quantity for p in self._products.values()}
        decided = plan(stock, returns, [w.request.lines for w in candidates if w.request])
        self._changes = dict(decided.changes)
        self._carries_returns = bool(due)
        for waiting, shortages in zip(candidates, decided.shortages, strict=True):
            if shortages and waiting.request:
                refused[waiting] = insufficient(waiting.request, shortages)
            else:
                self._placing.append(waiting)
        return refused, due

    def _hindrance(self, request: Request, errors: Mapping[int, OrderError]) -> OrderError | None:
        if self._now() >= request.deadline:
            return _took_too_long()
        for line in request.lines:
            if line.product_id in errors:
                return errors[line.product_id]
        known = [line for line in request.lines if line.product_id in self._products]
        total = sum(line.quantity * self._products[line.product_id].price for line in known)
        if total > MAX_ID:
            return OrderError(Code.TOTAL_TOO_LARGE, f"The order's total would be {total}.")
        return None

    # INTEND -----------------------------------------------------------------------------------------------------

    async def _intend(self, refused: Mapping[Waiting, OrderError], due: Sequence[Due]) -> None:
        orders = [self._new_order(w, w.request) for w in self._placing if w.request]
        remembered = outcomes(refused)
        undecided = [w.request.key for w, e in refused.items() if w.request and w.request.key and not is_recorded(e)]
        unreadable = [p for w in self._waiting for p in w.products if p not in self._products]
        intent = Intent(self._changes, orders, due, remembered, undecided, unreadable)
        horizon_s = self._settings.orders_write_horizon_s
        await self._database.run(lambda c: intend(c, self.id, horizon_s, intent))
        for waiting, error in refused.items():
            waiting.refuse(error)

    def _new_order(self, waiting: Waiting, request: Request) -> NewOrder:
        products = [self._products[line.product_id] for line in request.lines]
        names = names_that_fit([product.name for product in products])
        items = tuple(zip(request.lines, names, (product.price for product in products), strict=True))
        total = sum(line.quantity * price for line, _, price in items)
        return NewOrder(waiting.order_id, request.customer_id, request.cart_id, total, items, request.details)

    # Undo of CLAIM and INTEND -----------------------------------------------------------------------------------

    async def _abandon(self, error: OrderError | None) -> None:
        """Nothing was sent: take everything back, and answer with `error` or (None) start over."""
        self._placing = []
        refused = {w: error for w in self._waiting if error and w.request}
        remembered, is_undone = outcomes(refused), False
        try:
            async with asyncio.timeout(UNDO_PATIENCE_S):
                await self._database.run(lambda c: abandon(c, self.id, remembered))
            is_undone = True
        except (DatabaseUnavailable, TimeoutError):
            self._spawn(self._abandon_later(remembered))
        finally:
            for waiting in self._waiting:
                if error:
                    waiting.refuse(error if is_undone else _undecided(waiting, error))
            if not error:
                self._requeue(self._waiting, ())

    async def _abandon_later(self, remembered: dict[str, Outcome]) -> None:
        """The database is away. Until the lease runs out this is ours to do; then it is recovery's."""
        while self._now() < self._lease_until:
            await asyncio.sleep(jittered(0.2))
            try:
                await self._database.run(lambda c: abandon(c, self.id, remembered))
            except DatabaseUnavailable:
                continue
            return

    # WRITE ------------------------------------------------------------------------------------------------------

    async def _write_and_settle(self) -> None:
        if not self._changes:
            return
        puts = [asyncio.create_task(self._put(self._products[p], change)) for p, change in self._changes.items()]
        pending = set(puts)
        patience_s, until = STRAGGLER_S, asyncio.ALL_COMPLETED
        try:
            while pending:
                _, pending = await asyncio.wait(pending, timeout=patience_s, return_when=until)
                self.slow = self._changes.keys() - self._fates.keys()
                await self._settle(is_last=not pending)
                patience_s, until = max(0.05, self._next_deadline() - self._now()), asyncio.FIRST_COMPLETED
        except BatchLost:
            await self._answer_lost()
        except Exception:
            log.exception("batch %s can't be settled; recovery will", self.id)
        finally:
            for put in pending:
                put.cancel()
        # Not in `finally`: who is cancelled in the middle of SETTLE does not know what became of it.
        self._refuse_rest(OrderError(Code.ORDER_FAILED, "The order could not be completed."))

    async def _put(self, product: Product, change: Adjustment) -> None:
        if change.before == change.after:
            self._fates[product.id] = Fate.LANDED
            return
        needed_until = [w.request.deadline for w in self._placing if w.request and product.id in w.products]
        give_up_at = max(needed_until, default=self._now() + self._settings.orders_request_deadline_s)
        try:
            self._fates[product.id] = await write_stock(
                self._catalog, product, change, min(give_up_at, self._lease_until), self._flow
            )
        except Exception:
            log.exception("the PUT of product %s ended unexpectedly", product.id)
            self._fates[product.id] = Fate.DOUBT

    def _next_deadline(self) -> float:
        deadlines = [w.request.deadline for w in self._placing if w.request]
        return min([*deadlines, self._lease_until]) if deadlines else self._lease_until

    # SETTLE -----------------------------------------------------------------------------------------------------

    async def _settle(self, *, is_last: bool) -> None:
        """Settle what is certain by now. What is still on its way stays with the batch."""
        placed, failed, again = self._decide()
        ended = {p: fate for p, fate in self._fates.items() if fate is not Fate.DOUBT and p not in self.ended}
        if not (placed or failed or again or ended or is_last):
            return
        self._has_failures = self._has_failures or bool(failed or again)
        verdict = self._verdict(placed, failed, again, ended, is_last=is_last)
        bodies = await self._settle_surely(verdict)
        self.ended |= ended.keys()
        decided = {*placed, *failed, *again}
        self._placing = [w for w in self._placing if w not in decided]
        for waiting in placed:
            waiting.answer(Answer(201, bodies[waiting.order_id], waiting.order_id))
        for waiting, error in failed.items():
            waiting.refuse(error)
        for waiting in again:
            waiting.order_id = uuid7()
        self._requeue(again, ())

    def _decide(self) -> tuple[list[Waiting], dict[Waiting, OrderError], list[Waiting]]:
        """Who is placed, who failed and why, and who is planned again because someone else wrote a product's stock."""
        placed: list[Waiting] = []
        failed: dict[Waiting, OrderError] = {}
        again: list[Waiting] = []
        for waiting in self._placing:
            fates = {p: self._fates.get(p) for p in waiting.products}
            bad = next((p for p, fate in fates.items() if fate in (Fate.REFUSED, Fate.DOUBT)), None)
            if waiting.future.cancelled():
                failed[waiting] = OrderError(Code.ORDER_FAILED, "The service was stopped.")
            elif bad is not None:
                failed[waiting] = _write_error(bad, fates[bad])
            elif Fate.CHANGED in fates.values():
                again.append(waiting)
            elif waiting.request and self._now() >= waiting.request.deadline:
                failed[waiting] = OrderError(Code.ORDER_FAILED, "The catalog took too long to take the stock.")
            elif all(fate in DID_LAND for fate in fates.values()):
                placed.append(waiting)
        return placed, failed, again

    def _verdict(
        self,
        placed: Sequence[Waiting],
        failed: Mapping[Waiting, OrderError],
        again: Sequence[Waiting],
        ended: Mapping[int, Fate],
        *,
        is_last: bool,
    ) -> Verdict:
        keyed = {w: w.request.key for w in (*placed, *again) if w.request and w.request.key}
        return Verdict(
            placed=[w.order_id for w in placed],
            failed={
                **{w.order_id: error.code.name.lower() for w, error in failed.items()},
                **{w.order_id: "stock_changed" for w in again},
            },
            landed=[p for p, fate in ended.items() if fate in DID_LAND],
            quiet=[p for p, fate in ended.items() if fate is Fate.LANDED_UNACKNOWLEDGED],
            refused=[p for p, fate in ended.items() if fate in DID_NOT],
            took=[p for p, fate in self._fates.items() if fate in DID_LAND],
            outcomes=outcomes(failed),
            keys_of_placed={w.order_id: keyed[w] for w in placed if w in keyed},
            freed_keys=[keyed[w] for w in again if w in keyed],
            has_failures=self._has_failures,
            carries_returns=self._carries_returns,
            hand_over=is_last and bool(self._changes.keys() - self.ended - ended.keys()),
            authors={w.order_id: w.request.author for w in (*placed, *failed, *again) if w.request},
        )

    async def _settle_surely(self, verdict: Verdict) -> dict[UUID, str]:
        """SETTLE, through a lost connection too: it is guarded, so a second run of it changes nothing.

        Raises BatchLost: another replica was first, and the orders have failed.
        """
        horizon_s = self._settings.orders_write_horizon_s
        try:
            return await self._surely(lambda c: settle(c, self.id, horizon_s, verdict))
        except BatchLost:
            placed = await self._read_placed(verdict.placed)
            if len(placed) == len(verdict.placed):  # the run whose answer was lost had succeeded
                return placed
            raise

    async def _read_placed(self, ids: Sequence[UUID]) -> dict[UUID, str]:
        return await self._surely(lambda c: read_placed(c, self.id, ids))

    async def _surely(self, query: Query[T]) -> T:
        """`query`, as often as it takes for the database to answer.

        While SETTLE's outcome is unknown neither 201 nor 500 would be true, so the client waits with us.
        """
        while True:
            try:
                return await self._database.run(query)
            except DatabaseUnavailable as error:
                log.warning("batch %s waits for the database: %s", self.id, error)
                await asyncio.sleep(jittered(0.2))

    # When the batch is not ours any more ------------------------------------------------------------------------

    async def _answer_lost(self) -> None:
        """Another replica has taken the batch over: its orders have failed, unless a SETTLE of ours was first."""
        log.warning("batch %s was taken over; its orders are the recovering replica's", self.id)
        placed = await self._read_placed([w.order_id for w in self._placing])
        for waiting in self._placing:
            if waiting.order_id in placed:
                waiting.answer(Answer(201, placed[waiting.order_id], waiting.order_id))
        self._refuse_rest(OrderError(Code.ORDER_FAILED, "This replica was interrupted while placing the order."))

    def _refuse_rest(self, error: OrderError) -> None:
        for waiting in self._placing:
            waiting.refuse(_undecided(waiting, error))


def _if_own(waiting: Waiting, order: ReferenceOrder) -> UUID | None:
    """The order's ID, for its own customer."""
    return order.order_id if waiting.request and waiting.request.customer_id == order.customer_id else None


def _references(requests: Iterable[Request]) -> list[str]:
    return [r.details.external_reference for r in requests if r.details.external_reference]


def _ignore(read: asyncio.Task[Product | None]) -> None:
    """Read the error that a cancelled task may end with all the same, or the log has a stack trace of it."""
    if not read.cancelled():
        read.exception()


def _undecided(waiting: Waiting, error: OrderError) -> OrderError:
    """What is told instead of an error that the request's key could not be made to remember: with the same key it may
    still be placed, by a repetition.
    """
    if waiting.request and waiting.request.key and is_recorded(error):
        return OrderError(Code.STOCK_BUSY, error.detail, retry_after_s=5)
    return error


def _took_too_long() -> OrderError:
    return OrderError(Code.ORDER_FAILED, "The catalog took too long to answer.")


def _write_error(product_id: int, fate: Fate | None) -> OrderError:
    if fate is Fate.DOUBT:
        return OrderError(
            Code.ORDER_FAILED, f"The catalog did not acknowledge the new stock of product {product_id} in time."
        )
    return OrderError(Code.ORDER_FAILED, f"The catalog did not take the new stock of product {product_id}.")


def _catalog_error(error: BaseException) -> OrderError:
    if isinstance(error, CircuitOpen):
        return OrderError(Code.NEIGHBOUR_RESTING, f"{error}.", retry_after_s=1)
    if isinstance(error, NotSent | NoAnswer):
        return OrderError(Code.CATALOG_UNAVAILABLE, f"{error}.")
    if isinstance(error, MalformedReply):
        return OrderError(Code.CATALOG_REPLY_INVALID, f"The Product Catalog Service is out of order: {error}.")
    log.error("unexpected error while reading the catalog", exc_info=error)
    return OrderError(Code.ORDER_FAILED, "Something unexpected happened while the catalog was read.")


def _as_order_error(error: Exception) -> OrderError:
    if isinstance(error, OrderError):
        return error
    if isinstance(error, DatabaseUnavailable):
        unavailable = error.as_order_error()
        log.warning("%s: %s", unavailable.code.name.lower(), error)
        return unavailable
    log.error("unexpected error while placing", exc_info=error)
    return OrderError(Code.ORDER_FAILED, "Something unexpected happened while the order was placed.")
