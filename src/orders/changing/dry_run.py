"""A change as it would be: the order, the stock and the events. All is rolled back, nothing is sent."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from orders.changing.bulk import Move, judge, wanted_by
from orders.changing.change_sql import Change, Decide, DecideMany, OrderState
from orders.changing.dry_run_sql import Changed, rehearse_changes
from orders.neighbours.catalog import Catalog
from orders.neighbours.gate import DRY_RUN
from orders.neighbours.reply import MalformedReply, NoAnswer, NotSent
from orders.order.keys_sql import KeyInUse
from orders.order.results import MAX_ANSWER_BYTES, Result, results_of
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.settings import Settings
from orders.stock.plan import Adjustment, plan
from orders.wire.dry_run import Stock, preview_json


class ChangingDryRun:
    """Says what a change would do. Reads the catalog; what it writes is rolled back."""

    def __init__(self, database: Database, catalog: Catalog, settings: Settings) -> None:
        self._database = database
        self._catalog = catalog
        self._settings = settings

    async def change(
        self, order_id: UUID, wanted: str | None, decide: Decide, key: tuple[str, bytes] | None
    ) -> str | KeyInUse | None:
        """What `store.changing.change_order` would do with this order, as a preview; raises what `decide` raises."""

        def decide_one(standings: Mapping[UUID, OrderState]) -> list[Change]:
            return [change for standing in standings.values() if (change := decide(standing))]

        changed = await self._rehearse({order_id: wanted}, decide_one, key and key[0])
        if isinstance(changed, KeyInUse):
            return changed
        if order_id not in changed.orders:
            return None
        stock = await self._stock(changed.due)
        return preview_json(changed.orders[order_id], stock, changed.events.get(order_id, "[]"))

    async def move_each(
        self, moves: Sequence[Move], instance: str, *, needs_version: bool, all_or_nothing: bool
    ) -> tuple[list[Result], Stock]:
        """What moving all of these would be answered. Raises OrderError: all or nothing, and one is refused."""
        decide, errors = judge(moves, needs_version=needs_version, all_or_nothing=all_or_nothing)
        changed = await self._rehearse(wanted_by(moves), decide, max_bytes=MAX_ANSWER_BYTES)
        assert isinstance(changed, Changed)  # there was no key
        results = results_of(changed.orders, errors, instance)
        stock = await self._stock(changed.due)
        return [_with_events(m.order_id, results[m.order_id], changed) for m in moves], stock

    async def _rehearse(
        self,
        wanted: Mapping[UUID, str | None],
        decide: DecideMany,
        key: str | None = None,
        max_bytes: int | None = None,
    ) -> Changed | KeyInUse:
        return await self._database.run(lambda c: rehearse_changes(c, wanted, decide, key, max_bytes), Lane.CHANGES)

    async def _stock(self, due: Mapping[int, int]) -> dict[int, Adjustment | None]:
        """What the next PUT of each of these products would say. No transaction is open meanwhile."""
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


def _with_events(order_id: UUID, result: Result, changed: Changed) -> Result:
    if result.status >= 300:
        return result
    return Result(result.status, {**result.members, "events": changed.events.get(order_id, "[]")})
