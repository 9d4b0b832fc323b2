"""Dry runs of changes: the order, the stock and the events afterwards. All is rolled back, and nothing is sent."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.changing.bulk import Move, judge, wanted_by
from orders.changing.change import Decide, DecideMany, Decisions, OrderState
from orders.changing.change_sql import RequestKey
from orders.changing.dry_run_sql import ChangesUndone, change_and_undo
from orders.neighbours.catalog import Catalog
from orders.neighbours.limiter import DRY_RUN
from orders.neighbours.reply import MalformedReply, NoAnswer, NotSent
from orders.order.document import Document
from orders.order.keys_sql import KeyInUse
from orders.order.results import MAX_ANSWER_BYTES, Result, results_of
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.principal import Seer
from orders.settings import Settings
from orders.stock.plan import Adjustment, plan
from orders.wire.dry_run import Stock, preview_json


class ChangingDryRun:
    """Previews changes. It reads the catalog, and rolls back what it writes."""

    def __init__(self, database: Database, catalog: Catalog, settings: Settings) -> None:
        self._database = database
        self._catalog = catalog
        self._settings = settings

    async def change(
        self, seer: Seer, order_id: UUID, wanted: str | None, decide: Decide, key: RequestKey | None = None
    ) -> Document | KeyInUse | None:
        """A preview of what `ForReal` would do. Raises what `decide` raises."""

        def decide_one(states: Mapping[UUID, OrderState]) -> Decisions:
            return Decisions([change for state in states.values() if (change := decide(state))])

        changed = await self._change_and_undo(seer, {order_id: wanted}, decide_one, key)
        if isinstance(changed, KeyInUse):
            return changed
        if order_id not in changed.orders:
            return None
        stock = await self._stock(changed.due)
        order = changed.orders[order_id]
        return Document(order.version, preview_json(order.json, stock, changed.events.get(order_id, "[]")))

    async def move_each(
        self, seer: Seer, moves: Sequence[Move], instance: str, *, needs_version: bool, all_or_nothing: bool
    ) -> tuple[list[Result], Stock]:
        """The answer to moving all of these, and the stock. Raises OrderError if all or nothing is wanted and one is
        refused.
        """
        decide = judge(moves, needs_version=needs_version, all_or_nothing=all_or_nothing)
        changed = await self._change_and_undo(seer, wanted_by(moves), decide, max_bytes=MAX_ANSWER_BYTES)
        assert isinstance(changed, ChangesUndone)  # there was no key
        results = results_of(changed.orders, changed.refused, instance)
        stock = await self._stock(changed.due)
        return [_with_events(m.order_id, results[m.order_id], changed) for m in moves], stock

    async def _change_and_undo(
        self,
        seer: Seer,
        wanted: Mapping[UUID, str | None],
        decide: DecideMany,
        key: RequestKey | None = None,
        max_bytes: int | None = None,
    ) -> ChangesUndone | KeyInUse:
        return await self._database.run(
            lambda c: change_and_undo(c, seer, wanted, decide, key, max_bytes), Lane.CHANGES
        )

    async def _stock(self, due: Mapping[int, int]) -> dict[int, Adjustment | None]:
        """What the next PUT of each product would change, or None if unknown. No transaction is open meanwhile."""
        reads = {p: asyncio.create_task(self._quantity(p)) for p in due}
        if reads:
            await asyncio.wait(reads.values(), timeout=self._settings.orders_request_deadline_s)
        known = {p: read.result() for p, read in reads.items() if not read.cancel()}
        stock = {p: quantity for p, quantity in known.items() if quantity is not None}
        changes = plan(stock, {p: units for p, units in due.items() if p in stock}, ()).changes
        return {p: changes.get(p) for p in due}

    async def _quantity(self, product_id: int) -> int | None:
        try:
            product = await self._catalog.read(product_id, DRY_RUN)
        except (NotSent, NoAnswer, MalformedReply):
            return None
        return product.quantity if product else None


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """Previews changes of orders that the seer sees."""

    dry_run: ChangingDryRun
    seer: Seer

    async def change(
        self, order_id: UUID, wanted: str | None, decide: Decide, key: RequestKey | None = None
    ) -> Document | KeyInUse | None:
        """As `Apply` says."""
        return await self.dry_run.change(self.seer, order_id, wanted, decide, key)


def _with_events(order_id: UUID, result: Result, changed: ChangesUndone) -> Result:
    if result.status >= 300:
        return result
    return Result(result.status, {**result.members, "events": changed.events.get(order_id, "[]")})
