"""What a dead replica left behind: its batches are ended, stock goes back, carts are closed. Runs in every replica."""

import asyncio
import logging
from dataclasses import dataclass
from uuid import UUID

from uuid_utils.compat import uuid7

from orders.neighbours.catalog import SAID_NO, Catalog, Product, Written
from orders.neighbours.reply import MalformedReply, NoAnswer, NotSent
from orders.placing.cart_closing import CartClosing
from orders.placing.queue import Placement
from orders.postgres.database import Database
from orders.settings import Settings
from orders.stock import orphans_sql
from orders.stock.orphans_sql import Ended, Orphan
from orders.stock.write import DISPUTES

log = logging.getLogger(__name__)

BATCHES_AT_ONCE = 20
"""Maximum number of dead batches that one round ends."""

DUE_AT_ONCE = 200
"""Maximum number of products whose stock one round gives back."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What one round found: dead batches, products with stock due back, carts to be closed."""

    batches: int
    due: int
    carts: int

    def __str__(self) -> str:
        return (
            f"{self.batches} interrupted batches, {self.due} products with stock to give back, "
            f"{self.carts} carts to close"
        )

    def __bool__(self) -> bool:
        return bool(self.batches or self.due or self.carts)


class Recovery:
    """Ends what dead replicas began."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        placement: Placement,
        closing: CartClosing,
        settings: Settings,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._placement = placement
        self._closing = closing
        self._settings = settings

    async def recover_once(self) -> Recovered:
        """One round. Safe to run anywhere at any time, any number of times."""
        dead = await self._database.run(lambda c: orphans_sql.dead_batches(c, BATCHES_AT_ONCE))
        await asyncio.gather(*map(self._end_batch, dead))
        due = await self._database.run(lambda c: orphans_sql.products_due_back(c, DUE_AT_ONCE))
        self._placement.give_back(due)
        carts = await self._closing.close_due_once()
        keep_h = self._settings.orders_key_retention_h
        running_s = 2 * self._settings.orders_lease_s
        await self._database.run(lambda c: orphans_sql.forget(c, keep_h, running_s))
        return Recovered(len(dead), len(due), carts)

    async def _end_batch(self, dead: UUID) -> None:
        """Find out what became of each product of a dead batch. What can't be known yet waits for the next round."""
        batch = uuid7()
        lease_until = asyncio.get_running_loop().time() + self._settings.orders_lease_s
        orphans = await self._database.run(
            lambda c: orphans_sql.take_over(c, dead, batch, self._settings.orders_lease_s)
        )
        if not orphans:
            return
        log.info("took over batch %s as %s: %d products in doubt", dead, batch, len(orphans))
        ends = await asyncio.gather(*(self._find_out(orphan, batch, lease_until) for orphan in orphans))
        ended = Ended(
            landed=[product_id for end in ends for product_id in end.landed],
            refused=[product_id for end in ends for product_id in end.refused],
            drifted={product_id: found for end in ends for product_id, found in end.drifted.items()},
        )
        horizon_s = self._settings.orders_write_horizon_s
        await self._database.run(lambda c: orphans_sql.end_claims(c, batch, horizon_s, ended))
        for product_id, found in ended.drifted.items():
            log.warning("product %s drifted: its stock is %s; see `orders reconcile %s`", product_id, found, product_id)

    async def _find_out(self, orphan: Orphan, batch: UUID, lease_until: float) -> Ended:
        """What became of one product; nothing: not known yet.

        `after` has landed. `before` is sent `after` again until it is acknowledged. Anything else is a stranger's
        doing: once no PUT of ours can land any more it counts as not landed. Where the two are one (what the orders
        took was what was due back) nothing is ever sent, and it landed whatever the catalog says.
        """
        if orphan.before == orphan.after:
            return Ended(landed=[orphan.product_id])
        try:
            product = await self._catalog.read(orphan.product_id, surely=True)
        except (NotSent, NoAnswer, MalformedReply) as error:
            log.warning("product %s stays in doubt: %s", orphan.product_id, error)
            return Ended()
        if product and product.quantity == orphan.after:
            return Ended(landed=[orphan.product_id])
        if product and product.quantity == orphan.before:
            return await self._send_again(product, orphan, batch, lease_until)
        found = product.quantity if product else None
        return Ended() if orphan.may_land else Ended(drifted={orphan.product_id: found})

    async def _send_again(self, product: Product, orphan: Orphan, batch: UUID, lease_until: float) -> Ended:
        horizon_s = self._settings.orders_write_horizon_s
        await self._database.run(lambda c: orphans_sql.intend_again(c, batch, horizon_s, [orphan.product_id]))
        written = await self._write(product, orphan, lease_until)
        if written is Written.DONE:
            return Ended(landed=[orphan.product_id])
        if written is Written.REFUSED and not orphan.may_land:
            return Ended(refused=[orphan.product_id])
        return Ended()

    async def _write(self, product: Product, orphan: Orphan, lease_until: float) -> Written:
        """One PUT or, where its refusal may be another call's answer, some more, each alone and read back."""
        written = await self._catalog.write(product, orphan.after, lease_until)
        for dispute in range(DISPUTES):
            if written not in SAID_NO:
                return written
            try:
                found = await self._catalog.read(product.id, surely=True)
            except (NotSent, NoAnswer, MalformedReply):
                return Written.UNKNOWN
            if found is None or found.quantity != orphan.before:
                return Written.DONE if found and found.quantity == orphan.after else Written.UNKNOWN
            if dispute < DISPUTES - 1:
                written = await self._catalog.write(product, orphan.after, lease_until, disputed=written)
        return Written.REFUSED
