"""What recovery makes of a dead batch, whatever the catalog says; and how long the product stays quiet afterwards."""

from dataclasses import dataclass

import pytest
from uuid_utils.compat import uuid7

from orders.machinery import machinery
from orders.placing.recovery import Recovered
from orders.postgres.database import connect
from orders.settings import Settings
from orders.stock import orphans_sql
from orders.stock.orphans_sql import Ended
from tests.conftest import Sandbox, execute, wait_until

HORIZON_S, LEASE_S = 2, 100
BEFORE, AFTER, STRANGE = 5, 4, 90


@pytest.fixture
def patient(settings: Settings) -> Settings:
    """On a busy machine a catalog that is well must not seem to be silent."""
    times = {"orders_neighbour_timeout_s": 10, "orders_request_deadline_s": 30, "orders_lease_s": 60}
    return settings.model_copy(update=times)


def leave_behind(dsn: str, product: int, after: int, *, may_land: bool) -> None:
    """A dead batch: its claim with an intent, and an order of one unit."""
    batch, order, lands = str(uuid7()), str(uuid7()), "1 min" if may_land else "-1 s"
    execute(
        dsn,
        """INSERT INTO stock_claims (product_id, batch_id, lease_until, before, after, lands_until)
           VALUES (%s, %s, now() - interval '1 s', %s, %s, now() + %s::interval)""",
        (product, batch, BEFORE, after, lands),
    )
    execute(
        dsn,
        """INSERT INTO orders (id, customer_id, status, total, batch_id) VALUES (%s, 42, 'Pending', 1, %s);
           INSERT INTO order_items (order_id, product_id, quantity) VALUES (%s, %s, 1)""",
        (order, batch, order, product),
    )


@dataclass(frozen=True)
class Case:
    """What recovery finds, and what it does."""

    found: int | None
    may_land: bool = True
    locked: bool = False
    after: int = AFTER
    is_ended: bool = True
    goes_back: bool = False
    record: tuple[str, int | None] | None = None
    stock: int | None = AFTER


CASES = {
    "it has landed": Case(AFTER, goes_back=True, record=("moved", None)),
    "it has not, and is sent again": Case(BEFORE, goes_back=True, record=("moved", None)),
    "it is refused now, and may have landed": Case(BEFORE, locked=True, is_ended=False, stock=BEFORE),
    "it is refused for certain": Case(BEFORE, may_land=False, locked=True, stock=BEFORE),
    "a stranger wrote, and it may land yet": Case(STRANGE, is_ended=False, stock=STRANGE),
    "a stranger wrote": Case(STRANGE, may_land=False, record=("in doubt", STRANGE), stock=STRANGE),
    "the product is gone, and it may land yet": Case(None, is_ended=False, stock=None),
    "the product is gone": Case(None, may_land=False, record=("in doubt", None), stock=None),
    "there was nothing to send": Case(STRANGE, after=BEFORE, goes_back=True, stock=STRANGE),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_dead_batch_is_ended_by_what_the_catalog_says(case: Case, patient: Settings, sandbox: Sandbox) -> None:
    dsn = patient.database_url or ""
    product = sandbox.product(BEFORE if case.found is None else case.found, locked=case.locked)
    if case.found is None:
        sandbox.forget(product)
    leave_behind(dsn, product, case.after, may_land=case.may_land)
    async with machinery(patient) as built:
        assert (await built.recovery.recover_once()).batches == 1
    owned = execute(
        dsn, "SELECT extract(epoch FROM lands_until - lease_until)::float FROM stock_claims WHERE after > 0"
    )
    assert bool(owned) is not case.is_ended
    if case.locked and owned:
        assert owned == [(patient.orders_write_horizon_s,)]  # it may have been sent as late as at the lease's end
    assert execute(dsn, "SELECT status, failure FROM orders") == [("Failed", "order_failed")]
    assert bool(execute(dsn, "SELECT FROM stock_returns")) is case.goes_back
    assert execute(dsn, "SELECT kind, found FROM stock_record") == ([case.record] if case.record else [])
    if case.stock is not None:
        assert sandbox.stock(product) == case.stock


async def test_a_put_that_is_sent_again_and_not_acknowledged_stays_in_doubt(
    patient: Settings, sandbox: Sandbox
) -> None:
    product, dsn = sandbox.product(BEFORE), patient.database_url or ""
    leave_behind(dsn, product, AFTER, may_land=False)
    sandbox.catalog_faults(late_rate=1, late_s=0.2)
    async with machinery(patient) as built:
        await built.recovery.recover_once()
        assert execute(dsn, "SELECT after, batch_id IS NULL FROM stock_claims") == [(AFTER, False)]
        wait_until(lambda: sandbox.stock(product) == AFTER, "it lands")
        execute(dsn, "UPDATE stock_claims SET lease_until = now() - interval '1 s'")
        await built.recovery.recover_once()
    assert execute(dsn, "SELECT kind FROM stock_record") == [("moved",)]


async def test_what_a_dead_batch_took_goes_back(patient: Settings, sandbox: Sandbox) -> None:
    product = sandbox.product(AFTER)
    leave_behind(patient.database_url or "", product, AFTER, may_land=False)
    async with machinery(patient) as built:
        assert await built.recovery.recover_once() == Recovered(1, 0, 0)
        assert await built.recovery.recover_once() == Recovered(0, 1, 0)
        await built.placement.drain()
    assert sandbox.stock(product) == BEFORE


async def test_a_catalog_that_is_silent_leaves_it_for_the_next_round(patient: Settings, sandbox: Sandbox) -> None:
    product = sandbox.product(AFTER)
    leave_behind(patient.database_url or "", product, AFTER, may_land=False)
    sandbox.catalog_faults(error_rate=1)
    async with machinery(patient) as built:
        await built.recovery.recover_once()
        assert execute(built.database.dsn, "SELECT after FROM stock_claims") == [(AFTER,)]
        sandbox.heal()
        execute(built.database.dsn, "UPDATE stock_claims SET lease_until = now() - interval '1 s'")
        assert (await built.recovery.recover_once()).batches == 1
    assert execute(patient.database_url or "", "SELECT kind FROM stock_record") == [("moved",)]


async def test_a_key_is_free_again_when_nothing_can_run_for_it(settings: Settings) -> None:
    dsn, lease_s = settings.database_url or "", settings.orders_lease_s
    for key, age_s in (("old", 2.5 * lease_s), ("running", 1.5 * lease_s)):
        statement = "INSERT INTO idempotency_keys VALUES (%s, '', %s)"
        execute(dsn, statement, (key, str(uuid7())))
        aged = "UPDATE idempotency_keys SET created_at = now() - %s * interval '1 s' WHERE key = %s"
        execute(dsn, aged, (age_s, key))
    async with machinery(settings) as built:
        await built.recovery.recover_once()
    assert execute(dsn, "SELECT key FROM idempotency_keys") == [("running",)]


def test_a_round_that_found_anything_was_not_idle() -> None:
    assert not Recovered(0, 0, 0)
    assert all((Recovered(1, 0, 0), Recovered(0, 1, 0), Recovered(0, 0, 1)))


def test_a_claim_that_recovery_has_ended_is_quiet_for_the_horizon_and_no_lease(dsn: str) -> None:
    dead, ours, connection = uuid7(), uuid7(), connect(dsn)
    execute(
        dsn,
        """INSERT INTO stock_claims (product_id, batch_id, lease_until, before, after, lands_until)
           VALUES (7, %s, now() - interval '1 s', 5, 4, now() + interval '1 s')""",
        (str(dead),),
    )
    assert [orphan.product_id for orphan in orphans_sql.take_over(connection, dead, ours, LEASE_S)] == [7]
    orphans_sql.intend_again(
        connection, ours, HORIZON_S, [7]
    )  # the same value is sent again: as late as the lease's end
    orphans_sql.end_claims(connection, ours, HORIZON_S, Ended(landed=[7]))  # it was acknowledged: nothing more is sent
    connection.close()
    quiet = (
        "SELECT batch_id, lands_until > now() + interval '1 s', lands_until <= now() + interval '2 s' FROM stock_claims"
    )
    assert execute(dsn, quiet) == [(None, True, True)]
