"""One batch of orders, from claim to settle. What each step has made durable, and who mends it when we die there,
is the table in docs/placing.md; `store.placing` has the SQL.
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from orders.catalog import Catalog, Product, Written
from orders.database import Database, DatabaseUnavailable, Query
from orders.errors import Code, OrderError, problem
from orders.neighbour import NoAnswer, NotSent, Resting, Rubbish
from orders.order import MAX_ID, Line
from orders.plan import Change, Shortage, plan
from orders.settings import Settings
from orders.store import placing
from orders.store.placing import BatchLost, CartTaken, Claimed, Due, Intent, KeyInUse, NewOrder, Outcome, Verdict

log = logging.getLogger(__name__)

T = TypeVar("T")

STRAGGLER_S = 0.25
"""Orders whose PUTs are all acknowledged are settled after this, without waiting any longer for the others'."""

RECORDED = (201, 400, 500)
"""Statuses that are the outcome of a request with an Idempotency-Key. After any other nothing has been decided."""


@dataclass(frozen=True, slots=True)
class Request:
    """An order to place: the lines, merged, or those of the cart `cart_id`. `deadline` is the event loop's time."""

    customer_id: int
    lines: tuple[Line, ...]
    deadline: float
    instance: str
    cart_id: int | None = None
    key: str | None = None
    fingerprint: bytes = b""
    pointers: Mapping[int, str] = field(default_factory=dict)

    @property
    def cart(self) -> tuple[int, int] | None:
        """What identifies the cart."""
        return None if self.cart_id is None else (self.customer_id, self.cart_id)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is told: HTTP status, JSON body, the order if it is placed, and whether this is a repetition."""

    status: int
    body: str
    order_id: UUID | None
    replayed: bool = False


@dataclass(eq=False, slots=True)
class Waiting:
    """A request (None: only stock that is due back) on its way through a batch, and the future that is its answer."""

    products: frozenset[int]
    future: asyncio.Future[Answer]
    request: Request | None = None
    order_id: UUID = field(default_factory=uuid7)
    passed_over: int = 0

    def answer(self, answer: Answer) -> None:
        """Answer, unless the client was answered already."""
        if not self.future.done():
            self.future.set_result(answer)

    def refuse(self, error: Exception) -> None:
        """Answer with an error, unless the client was answered already."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # read, so that a client that has gone leaves no warning behind


class _Fate(Enum):
    """What became of a product's new stock."""

    LANDED = auto()  # acknowledged
    LANDED_LOUDLY = auto()  # landed, but an earlier PUT of the same value may land again
    REFUSED = auto()  # certainly not: the catalog will not have it, or it never left
    CHANGED = auto()  # certainly not: someone else wrote first
    DOUBT = auto()  # nobody knows; recovery will


_DID_LAND = (_Fate.LANDED, _Fate.LANDED_LOUDLY)
_DID_NOT = (_Fate.REFUSED, _Fate.CHANGED)


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
        self.slow: set[int] = set()
        self._waiting = list(waiting)
        self._database = database
        self._catalog = catalog
        self._settings = settings
        self._requeue = requeue
        self._spawn = spawn
        self._now = asyncio.get_running_loop().time
        # Counted from before CLAIM is sent, so that we believe it over before PostgreSQL does.
        self._lease_until = self._now() + settings.orders_lease_s
        self._products: dict[int, Product] = {}
        self._changes: dict[int, Change] = {}
        self._fates: dict[int, _Fate] = {}
        self._ended: set[int] = set()
        self._placing: list[Waiting] = []

    async def run(self) -> None:
        """CLAIM, READ, PLAN, INTEND, WRITE, SETTLE."""
        try:
            await self._prepare()
        except (CartTaken, BatchLost) as error:
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
        errors = await self._read(sorted({p for w in ready for p in w.products}))
        await self._intend(*self._plan(ready, claimed, errors))

    # CLAIM ------------------------------------------------------------------------------------------------------

    async def _claim(self) -> tuple[list[Waiting], Claimed]:
        requests = [w.request for w in self._waiting if w.request]
        products = sorted({p for w in self._waiting for p in w.products})
        keys = {r.key: r.fingerprint for r in requests if r.key}
        carts = [r.cart for r in requests if r.cart]
        claimed = await self._database.run(
            lambda c: placing.claim(c, self.id, self._settings.orders_lease_s, products, keys, carts)
        )
        repeated = [w for w in self._waiting if await self._is_repetition(w, claimed)]
        new = [w for w in self._waiting if w not in repeated]
        ready = [w for w in new if self._may_go_on(w, claimed)]
        again = [w for w in new if w not in ready]
        self._waiting = ready
        await self._release_unneeded(ready, claimed)
        elsewhere = {p for w in again if w.products <= claimed.products for p in w.products}  # its cart is, or its key
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
                await self._database.run(lambda c: placing.keep_outcome(c, key, request.fingerprint, outcome, self.id))
            waiting.answer(Answer(201, order.body, order.order_id, replayed=True))
            return True
        return False

    def _may_go_on(self, waiting: Waiting, claimed: Claimed) -> bool:
        """Whether it got all that it needs. Otherwise another batch, here or elsewhere, is at work on it."""
        request = waiting.request
        has_key = not (request and request.key) or request.key in claimed.keys
        has_cart = not (request and request.cart) or request.cart not in claimed.cart_orders
        return has_key and has_cart and waiting.products <= claimed.products

    async def _release_unneeded(self, ready: Sequence[Waiting], claimed: Claimed) -> None:
        products = claimed.products - {p for w in ready for p in w.products}
        keys = claimed.keys - {w.request.key for w in ready if w.request and w.request.key}
        if products or keys:
            await self._database.run(lambda c: placing.release(c, self.id, products, keys))

    # READ -------------------------------------------------------------------------------------------------------

    async def _read(self, product_ids: Sequence[int]) -> dict[int, OrderError]:
        replies = await asyncio.gather(*map(self._catalog.read, product_ids), return_exceptions=True)
        errors: dict[int, OrderError] = {}
        for product_id, reply in zip(product_ids, replies, strict=True):
            if isinstance(reply, Product):
                self._products[product_id] = reply
            elif isinstance(reply, BaseException):
                errors[product_id] = _catalog_error(reply)
        return errors

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
        for waiting, shortages in zip(candidates, decided.shortages, strict=True):
            if shortages and waiting.request:
                refused[waiting] = insufficient(waiting.request, shortages)
            else:
                self._placing.append(waiting)
        return refused, due

    def _hindrance(self, request: Request, errors: Mapping[int, OrderError]) -> OrderError | None:
        for line in request.lines:
            if line.product_id in errors:
                return errors[line.product_id]
        if self._now() >= request.deadline:
            return OrderError(Code.ORDER_FAILED, "The catalog took too long to answer.")
        known = [line for line in request.lines if line.product_id in self._products]
        total = sum(line.quantity * self._products[line.product_id].price for line in known)
        if total > MAX_ID:
            return OrderError(Code.TOTAL_TOO_LARGE, f"The order's total would be {total}.")
        return None

    # INTEND -----------------------------------------------------------------------------------------------------

    async def _intend(self, refused: Mapping[Waiting, OrderError], due: Sequence[Due]) -> None:
        orders = [self._new_order(w, w.request) for w in self._placing if w.request]
        outcomes = _outcomes(refused)
        undecided = [w.request.key for w, e in refused.items() if w.request and w.request.key and not is_recorded(e)]
        unreadable = [p for w in self._waiting for p in w.products if p not in self._products]
        intent = Intent(self._changes, orders, due, outcomes, undecided, unreadable)
        horizon_s = self._settings.orders_write_horizon_s
        await self._database.run(lambda c: placing.intend(c, self.id, horizon_s, intent))
        for waiting, error in refused.items():
            waiting.refuse(error)

    def _new_order(self, waiting: Waiting, request: Request) -> NewOrder:
        items = tuple(
            (line, self._products[line.product_id].name, self._products[line.product_id].price)
            for line in request.lines
        )
        total = sum(line.quantity * price for line, _, price in items)
        return NewOrder(waiting.order_id, request.customer_id, request.cart_id, total, items)

    # Undo of CLAIM and INTEND -----------------------------------------------------------------------------------

    async def _abandon(self, error: OrderError | None) -> None:
        """Nothing was sent: take everything back, and answer with `error` or (None) start over."""
        self._placing = []
        refused = {w: error for w in self._waiting if error and w.request}
        outcomes = _outcomes(refused)
        try:
            await self._database.run(lambda c: placing.abandon(c, self.id, outcomes))
        except DatabaseUnavailable:
            self._spawn(self._abandon_later(outcomes))
        finally:
            for waiting in self._waiting:
                if error:
                    waiting.refuse(error)
            if not error:
                self._requeue(self._waiting, ())

    async def _abandon_later(self, outcomes: dict[str, Outcome]) -> None:
        """The database is away. Until the lease runs out this is ours to do; then it is recovery's."""
        while self._now() < self._lease_until:
            await asyncio.sleep(_jittered(0.2))
            try:
                await self._database.run(lambda c: placing.abandon(c, self.id, outcomes))
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
            self._refuse_rest(OrderError(Code.ORDER_FAILED, "The order could not be completed."))

    async def _put(self, product: Product, change: Change) -> None:
        if change.before == change.after:
            self._fates[product.id] = _Fate.LANDED
            return
        needed_until = [w.request.deadline for w in self._placing if w.request and product.id in w.products]
        give_up_at = max(needed_until, default=self._now() + self._settings.orders_request_deadline_s)
        try:
            self._fates[product.id] = await self._write(product, change, min(give_up_at, self._lease_until))
        except Exception:
            log.exception("the PUT of product %s ended unexpectedly", product.id)
            self._fates[product.id] = _Fate.DOUBT

    async def _write(self, product: Product, change: Change, give_up_at: float) -> _Fate:
        """Send `after` until the catalog's answer is certain. Only this one value is ever sent."""
        unanswered = 0
        pause_s = 0.05
        while self._now() < give_up_at:
            written = await self._catalog.write(product, change.after, not_after=give_up_at)
            unanswered += written is Written.UNKNOWN
            fate = _fate(written, unanswered)
            if fate is None:
                fate = await self._read_back(product, change, written, unanswered)
            if fate is not None:
                return fate
            await asyncio.sleep(_jittered(pause_s))
            pause_s = min(pause_s * 2, 1.0)
        return _Fate.DOUBT if unanswered else _Fate.REFUSED

    async def _read_back(self, product: Product, change: Change, written: Written, unanswered: int) -> _Fate | None:
        """What the catalog says after a PUT without an answer; None: send the same value again."""
        if not unanswered:
            return None
        try:
            found = await self._catalog.read(product.id)
        except (NotSent, NoAnswer, Rubbish):
            return None
        if found and found.quantity == change.after:
            return _Fate.LANDED_LOUDLY
        if found and found.quantity == change.before and written is not Written.CHANGED:
            return None
        return _Fate.DOUBT  # a stranger wrote, before or after what we sent has landed: nobody can tell

    def _next_deadline(self) -> float:
        deadlines = [w.request.deadline for w in self._placing if w.request]
        return min([*deadlines, self._lease_until]) if deadlines else self._lease_until

    # SETTLE -----------------------------------------------------------------------------------------------------

    async def _settle(self, *, is_last: bool) -> None:
        """Settle what is certain by now. What is still on its way stays with the batch."""
        placed, failed, again = self._decide()
        ended = {p: fate for p, fate in self._fates.items() if fate is not _Fate.DOUBT and p not in self._ended}
        if not (placed or failed or again or ended or is_last):
            return
        verdict = self._verdict(placed, failed, again, ended, is_last=is_last)
        bodies = await self._settle_surely(verdict)
        self._ended |= ended.keys()
        self._placing = [w for w in self._placing if w not in placed and w not in failed and w not in again]
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
            bad = next((p for p, fate in fates.items() if fate in (_Fate.REFUSED, _Fate.DOUBT)), None)
            if waiting.future.cancelled():
                failed[waiting] = OrderError(Code.ORDER_FAILED, "The service was stopped.")
            elif bad is not None:
                failed[waiting] = _write_error(bad, fates[bad])
            elif _Fate.CHANGED in fates.values():
                again.append(waiting)
            elif waiting.request and self._now() >= waiting.request.deadline:
                failed[waiting] = OrderError(Code.ORDER_FAILED, "The catalog took too long to take the stock.")
            elif all(fate in _DID_LAND for fate in fates.values()):
                placed.append(waiting)
        return placed, failed, again

    def _verdict(
        self,
        placed: Sequence[Waiting],
        failed: Mapping[Waiting, OrderError],
        again: Sequence[Waiting],
        ended: Mapping[int, _Fate],
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
            landed=[p for p, fate in ended.items() if fate in _DID_LAND],
            quiet=[p for p, fate in ended.items() if fate is _Fate.LANDED_LOUDLY],
            refused=[p for p, fate in ended.items() if fate in _DID_NOT],
            took=[p for p, fate in self._fates.items() if fate in _DID_LAND],
            outcomes=_outcomes(failed),
            keys_of_placed={w.order_id: keyed[w] for w in placed if w in keyed},
            freed_keys=[keyed[w] for w in again if w in keyed],
            is_last=is_last,
        )

    async def _settle_surely(self, verdict: Verdict) -> dict[UUID, str]:
        """SETTLE, through a lost connection too: it is guarded, so a second run of it changes nothing.

        Raises BatchLost: another replica was first, and the orders have failed.
        """
        horizon_s = self._settings.orders_write_horizon_s
        try:
            return await self._surely(lambda c: placing.settle(c, self.id, horizon_s, verdict))
        except BatchLost:
            placed = await self._read_placed(verdict.placed)
            if len(placed) == len(verdict.placed):  # the run whose answer was lost had succeeded
                return placed
            raise

    async def _read_placed(self, ids: Sequence[UUID]) -> dict[UUID, str]:
        return await self._surely(lambda c: placing.read_placed(c, self.id, ids))

    async def _surely(self, query: Query[T]) -> T:
        """`query`, as often as it takes for the database to answer.

        While SETTLE's outcome is unknown neither 201 nor 500 would be true, so the client waits with us.
        """
        while True:
            try:
                return await self._database.run(query)
            except DatabaseUnavailable as error:
                log.warning("batch %s waits for the database: %s", self.id, " ".join(str(error).split()))
                await asyncio.sleep(_jittered(0.2))

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
            waiting.refuse(error)


def replay(known: KeyInUse, fingerprint: bytes) -> Answer:
    """The first outcome of a key. Raises OrderError: it is another request's (422), or still running (409)."""
    if known.fingerprint != fingerprint:
        raise OrderError(Code.KEY_REUSED, "This Idempotency-Key was used with another customer or other items.")
    if known.outcome is None:
        raise OrderError(Code.KEY_IN_USE, "The first request with this Idempotency-Key is running.", retry_after_s=1)
    return Answer(known.outcome.status, known.outcome.body, known.outcome.order_id, replayed=True)


def insufficient(request: Request, shortages: Sequence[Shortage]) -> OrderError:
    """400 with every line that falls short."""
    errors = [
        {
            **({"pointer": request.pointers[s.product_id]} if s.product_id in request.pointers else {}),
            "code": "insufficient_inventory",
            "message": f"{s.requested} of product {s.product_id} were asked for, {s.available} are available.",
            "product_id": s.product_id,
            "requested": s.requested,
            "available": s.available,
        }
        for s in shortages
    ]
    names = ", ".join(str(s.product_id) for s in shortages)
    return OrderError(Code.INSUFFICIENT_INVENTORY, f"There is not enough of product {names}.", extra={"errors": errors})


def _outcomes(refused: Mapping[Waiting, OrderError]) -> dict[str, Outcome]:
    """What is remembered for the keys of these requests."""
    return {
        w.request.key: Outcome(error.code.value.status, json.dumps(problem(error, w.request.instance)), None)
        for w, error in refused.items()
        if w.request and w.request.key and is_recorded(error)
    }


def is_recorded(error: OrderError) -> bool:
    """Whether an Idempotency-Key remembers this error."""
    return error.code.value.status in RECORDED


def _fate(written: Written, unanswered: int) -> _Fate | None:
    """What one PUT's result says for certain, given how many before it went unanswered; None: not certain yet.

    An ETag does not end the danger of a late arrival: one that is a hash of the content comes back with the content.
    """
    if written is Written.DONE:
        return _Fate.LANDED_LOUDLY if unanswered else _Fate.LANDED
    if written is Written.REFUSED:
        return _Fate.DOUBT if unanswered else _Fate.REFUSED
    if written is Written.CHANGED and not unanswered:
        return _Fate.CHANGED
    return None


def _write_error(product_id: int, fate: _Fate | None) -> OrderError:
    if fate is _Fate.DOUBT:
        return OrderError(
            Code.ORDER_FAILED, f"The catalog did not acknowledge the new stock of product {product_id} in time."
        )
    return OrderError(Code.ORDER_FAILED, f"The catalog did not take the new stock of product {product_id}.")


def _catalog_error(error: BaseException) -> OrderError:
    if isinstance(error, Resting):
        return OrderError(Code.NEIGHBOUR_RESTING, f"{error}.", retry_after_s=1)
    if isinstance(error, NotSent | NoAnswer):
        return OrderError(Code.CATALOG_UNAVAILABLE, f"{error}.")
    if isinstance(error, Rubbish):
        return OrderError(Code.CATALOG_REPLY_INVALID, f"The Product Catalog Service is out of order: {error}.")
    log.error("unexpected error while reading the catalog", exc_info=error)
    return OrderError(Code.ORDER_FAILED, "Something unexpected happened while the catalog was read.")


def _as_order_error(error: Exception) -> OrderError:
    if isinstance(error, OrderError):
        return error
    if isinstance(error, DatabaseUnavailable):
        log.warning("the database is away: %s", " ".join(str(error).split()))
        return OrderError(Code.DATABASE_UNAVAILABLE, "The database can't be reached.", retry_after_s=1)
    log.error("unexpected error while placing", exc_info=error)
    return OrderError(Code.ORDER_FAILED, "Something unexpected happened while the order was placed.")


def _jittered(pause_s: float) -> float:
    return pause_s * random.uniform(0.5, 1.5)  # noqa: S311 (a pause is no secret)
