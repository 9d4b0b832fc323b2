"""The stock's record, the comparison with the catalog, and a person's decisions about it."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from orders.changing.apply import ForReal
from orders.changing.move import change_status
from orders.machinery import Machinery, machinery
from orders.order.model import Line
from orders.order.statuses import CANCELLED
from orders.placing.checkout import Checkout, CheckoutRequest
from orders.postgres.database import DatabaseUnavailable
from orders.principal import SEES_EVERYTHING
from orders.settings import Settings
from orders.stock.reconcile import Comparison, Reconciliation, Undecided
from tests.conftest import Sandbox, execute
from tests.integration.sabotage import Died, How, Saboteur

_customers = itertools.count(9_000)


@dataclass
class Shop:
    built: Machinery
    reconciliation: Reconciliation
    settings: Settings

    async def order(self, *lines: tuple[int, int]) -> Any:
        checkout = Checkout(self.built.database, self.built.carts, self.built.placement, self.settings)
        answer = await checkout.check_out(
            CheckoutRequest(SEES_EVERYTHING, next(_customers), [Line(*line) for line in lines], None), "/orders/1"
        )
        return answer.order_id

    async def compare(self, *products: int) -> list[Comparison]:
        return [comparison async for comparison in self.reconciliation.compare(products)]

    def record(self, product: int) -> list[tuple[Any, ...]]:
        return execute(
            self.built.database.dsn,
            "SELECT kind, before, after FROM stock_record WHERE product_id = %s ORDER BY id",
            (product,),
        )


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with machinery(settings) as built:
        yield Shop(built, Reconciliation(built.database, built.catalog, settings), settings)


async def test_what_was_sold_and_given_back_is_recorded_and_agrees(shop: Shop, sandbox: Sandbox) -> None:
    a, b = sandbox.product(10), sandbox.product(10)
    await shop.order((a, 3), (b, 1))
    cancelled = await shop.order((a, 2))
    await change_status(ForReal(shop.built.database, SEES_EVERYTHING), cancelled, CANCELLED)
    await shop.built.recovery.recover_once()
    await shop.built.placement.drain()
    assert [(c.product_id, c.recorded, c.found, c.is_well) for c in await shop.compare()] == [
        (a, 7, 7, True),
        (b, 9, 9, True),
    ]
    assert shop.record(a) == [("moved", 10, 7), ("moved", 7, 5), ("moved", 5, 7)]


async def test_nothing_is_called_different_while_orders_are_being_placed(shop: Shop, sandbox: Sandbox) -> None:
    products = [sandbox.product(100_000) for _ in range(4)]
    await shop.order(*((product, 1) for product in products))
    sandbox.catalog_faults(slow_s=0.005)
    is_over = False

    async def buy(n: int) -> None:
        while not is_over:
            await shop.order((products[n % 4], 1), (products[(n + 1) % 4], 2))

    buyers = [asyncio.create_task(buy(n)) for n in range(12)]
    seen = [c for _ in range(5) for c in await shop.compare()]
    is_over = True
    await asyncio.gather(*buyers)
    assert len(seen) == 20
    for comparison in seen:
        assert comparison.is_well or "being written" in comparison.sentence, comparison
    assert any(comparison.is_well for comparison in seen)


async def test_a_restock_is_explained_and_can_be_accepted(shop: Shop, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    await shop.order((product, 3))
    sandbox.restock(product, 57)
    (found,) = await shop.compare(product)
    assert (found.recorded, found.found, found.is_well) == (7, 57, False)
    assert "somebody else changed it by +50: restocked" in found.sentence
    assert await shop.reconciliation.accept(product) == f"Product {product}: 57 is recorded (it was 7)."
    assert "already" in await shop.reconciliation.accept(product)
    assert [c.is_well for c in await shop.compare(product)] == [True]
    assert shop.record(product) == [("moved", 10, 7), ("accepted", 7, 57)]


async def test_an_old_figure_that_was_written_back_is_seen_and_can_be_undone(shop: Shop, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    await shop.order((product, 3))
    await shop.order((product, 1))
    sandbox.restock(product, 10)
    (found,) = await shop.compare(product)
    assert "somebody wrote an old figure back, and 4 units are offered that are sold" in found.sentence
    assert await shop.reconciliation.restore(product) == f"Product {product}: 6 is written (it was 10)."
    assert sandbox.stock(product) == 6
    assert "already" in await shop.reconciliation.restore(product)
    assert [c.is_well for c in await shop.compare(product)] == [True]
    await shop.order((product, 6))
    assert [c.is_well for c in await shop.compare(product)] == [True]


async def test_a_counted_stock_is_set_once(shop: Shop, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    await shop.order((product, 3))
    assert "9 is written" in await shop.reconciliation.set(product, 7, 9)
    await shop.order((product, 1))
    with pytest.raises(Undecided, match="says 8, not 7; nothing was written"):
        await shop.reconciliation.set(product, 7, 9)
    assert sandbox.stock(product) == 8
    assert shop.record(product) == [("moved", 10, 7), ("corrected", 7, 9), ("moved", 9, 8)]
    assert [c.is_well for c in await shop.compare(product)] == [True]


async def test_a_doubt_is_told_until_a_person_has_settled_it(shop: Shop, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    await shop.order((product, 1))
    held = "INSERT INTO stock_record (product_id, batch_id, kind, before, after, found) VALUES (%s, %s, %s, 9, 6, 20)"
    execute(shop.built.database.dsn, held, (product, "01a20aba-6e99-743f-8292-11e9cafb05ea", "in doubt"))
    sandbox.restock(product, 20)
    (found,) = await shop.compare(product)
    assert not found.is_well
    assert "nobody could tell what became of a PUT of 6 over 9" in found.sentence
    assert "20 is recorded" in await shop.reconciliation.accept(product)
    assert [c.is_well for c in await shop.compare(product)] == [True]


async def test_a_product_that_is_gone_keeps_what_is_due_back(shop: Shop, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    cancelled = await shop.order((product, 3))
    sandbox.forget(product)
    await change_status(ForReal(shop.built.database, SEES_EVERYTHING), cancelled, CANCELLED)
    await shop.built.recovery.recover_once()
    await shop.built.placement.drain()
    (found,) = await shop.compare(product)
    assert "does not know it any more; the record says 7, 3 are due back" in found.sentence
    with pytest.raises(Undecided, match="does not know it"):
        await shop.reconciliation.restore(product)


async def test_a_catalog_that_does_not_answer_is_said(shop: Shop, sandbox: Sandbox) -> None:
    product = sandbox.product(10)
    await shop.order((product, 3))
    sandbox.catalog_faults(error_rate=1)
    (found,) = await shop.compare(product)
    assert (found.is_well, found.found) == (False, None)
    with pytest.raises(Undecided):
        await shop.reconciliation.accept(product)
    sandbox.heal()
    assert [c.is_well for c in await shop.compare(product)] == [True]
    assert execute(shop.built.database.dsn, "SELECT * FROM stock_claims") == []


async def test_what_was_never_sold_here_is_no_difference(shop: Shop, sandbox: Sandbox) -> None:
    (found,) = await shop.compare(sandbox.product(5))
    assert (found.is_well, found.recorded, found.found) == (True, None, 5)


async def test_a_defect_of_ours_would_be_seen(shop: Shop, sandbox: Sandbox) -> None:
    """Were an order's stock not taken, the record and the orders would differ."""
    product = sandbox.product(10)
    await shop.order((product, 3))
    execute(shop.built.database.dsn, "UPDATE order_items SET quantity = 4 WHERE product_id = %s", (product,))
    (found,) = await shop.compare(product)
    assert "By its orders the stock was moved by -4, by the record by -3" in found.sentence


async def test_the_record_is_only_ever_added_to(shop: Shop, sandbox: Sandbox) -> None:
    await shop.order((sandbox.product(10), 3))
    for change in ("UPDATE stock_record SET after = 0", "DELETE FROM stock_record"):
        with pytest.raises(psycopg2.Error, match="only ever added to"):
            execute(shop.built.database.dsn, change)


@pytest.mark.parametrize("how", How)
async def test_a_correction_that_is_spoilt_at_any_step_ends_in_agreement(
    how: How, settings: Settings, sandbox: Sandbox
) -> None:
    for at in itertools.count(1):
        saboteur = Saboteur(at, how, late_s=settings.orders_write_horizon_s / 2)
        product = sandbox.product(10)
        async with machinery(settings) as built:
            shop = Shop(built, Reconciliation(built.database, built.catalog, settings), settings)
            await shop.order((product, 3))
            sandbox.restock(product, 20)
            saboteur.watch(built)
            with contextlib.suppress(Undecided, Died, DatabaseUnavailable):
                await shop.reconciliation.restore(product)
            await saboteur.land()
        async with machinery(settings) as built:
            shop = Shop(built, Reconciliation(built.database, built.catalog, settings), settings)
            for _ in range(3):
                hours = "lease_until = lease_until - interval '1 h', lands_until = lands_until - interval '1 h'"
                execute(settings.database_url or "", f"UPDATE stock_claims SET {hours}")
                await built.recovery.recover_once()
            await shop.reconciliation.restore(product)
            assert sandbox.stock(product) == 7
            assert [c.is_well for c in await shop.compare(product)] == [True], saboteur.effects
        if at > len(saboteur.effects):
            assert at > 6
            break
