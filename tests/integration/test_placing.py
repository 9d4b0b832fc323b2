"""Corners of placing that the crash loop does not turn: two statements at once, strangers, and many who wait."""

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
import uvloop
from uuid_utils.compat import uuid7

from orders.errors import Code, OrderError
from orders.machinery import machinery
from orders.neighbours.catalog import Product, Written
from orders.order.idempotency import Answer
from orders.order.model import Line
from orders.placing import batch, settling
from orders.placing.checkout import Checkout, CheckoutRequest
from orders.placing.entry import OrderRequest
from orders.postgres.database import Connection, DatabaseUnavailable, Query, connect
from orders.principal import SEES_EVERYTHING
from orders.settings import Settings
from orders.stock import claim_sql, orphans_sql
from orders.stock.abandon_sql import abandon
from orders.stock.batch_lost_sql import BatchLost
from orders.stock.claim_sql import Claimed
from orders.stock.intend_sql import Intent, NewOrder, Taken, intend
from orders.stock.plan import Adjustment
from orders.stock.settle_sql import settle
from tests.conftest import Sandbox, execute

wish = functools.partial(CheckoutRequest, SEES_EVERYTHING)
order_request = functools.partial(OrderRequest, SEES_EVERYTHING)

ORDER = NewOrder(uuid7(), 42, 3, 10, ((Line(1, 1), "Whispers", 10),))
INTENT = Intent({1: Adjustment(5, 4)}, [ORDER], [], {}, [], [])


def raising(error: Exception) -> Callable[..., Any]:
    """A function that only raises this."""

    def fail(*_: Any) -> Any:
        raise error

    return fail


def test_an_undo_waits_for_an_intend_whose_answer_was_lost(dsn: str) -> None:
    batch, ours, lost = uuid7(), connect(dsn), connect(dsn)
    claim_sql.claim(ours, batch, 10, [1], {}, {})
    lost.autocommit = False
    intend(lost, batch, 1, INTENT)  # it has run, and is not committed yet
    undo = threading.Thread(target=abandon, args=(ours, batch, {}))
    undo.start()
    time.sleep(0.3)
    assert undo.is_alive()
    lost.commit()
    undo.join(5)
    assert execute(dsn, "SELECT status FROM orders") == [("Failed",)]
    assert execute(dsn, "SELECT * FROM stock_claims") == []


def test_an_intend_after_its_undo_is_refused(dsn: str) -> None:
    batch, connection = uuid7(), connect(dsn)
    claim_sql.claim(connection, batch, 10, [1], {}, {})
    abandon(connection, batch, {})
    with pytest.raises(BatchLost):
        intend(connection, batch, 1, INTENT)
    assert execute(dsn, "SELECT * FROM orders") == []


def test_an_intend_after_its_lease_is_refused(dsn: str) -> None:
    batch, connection = uuid7(), connect(dsn)
    claim_sql.claim(connection, batch, 0.01, [1], {}, {})
    time.sleep(0.05)
    with pytest.raises(BatchLost):
        intend(connection, batch, 1, INTENT)


def test_claims_that_cross_do_not_lock_each_other_out(dsn: str) -> None:
    """Quiet rows that have ended, and two batches that want them in different company."""
    connections = [connect(dsn) for _ in range(4)]
    failures: list[Exception] = []

    def fight(connection: psycopg2.extensions.connection, seed: int) -> None:
        for n in range(60):
            batch, products = uuid4(), sorted({(seed * n + i * 7) % 12 + 1 for i in range(5)})
            try:
                claimed = claim_sql.claim(connection, batch, 10, products, {f"{seed}-{n}": b"x"}, {})
                claim_sql.release(connection, batch, claimed.products, claimed.keys)
                execute(
                    dsn,
                    "INSERT INTO stock_claims (product_id, lands_until) VALUES (%s, now()) ON CONFLICT DO NOTHING",
                    (n % 12 + 1,),
                )
            except psycopg2.extensions.TransactionRollbackError:
                pass  # `Database` runs it again
            except Exception as error:
                failures.append(error)

    fights = [threading.Thread(target=fight, args=(c, seed)) for seed, c in enumerate(connections, 1)]
    for one in fights:
        one.start()
    for one in fights:
        one.join(30)
    assert not failures
    assert not any(one.is_alive() for one in fights)


async def test_a_stranger_after_an_unanswered_put_is_left_to_recovery(settings: Settings, sandbox: Sandbox) -> None:
    """A 412 after a PUT without an answer says nothing about which of the two was first."""
    sandbox.catalog_faults(etags=True)
    product = sandbox.product(5)
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)
        write, sent = built.catalog.write, 0

        async def write_then_a_stranger(item: Product, quantity: int, *more: Any, **named: Any) -> Written:
            nonlocal sent
            sent += 1
            if sent > 1:
                return await write(item, quantity, *more, **named)
            await write(item, quantity)
            sandbox.restock(product, 90)
            return Written.UNKNOWN

        built.catalog.write = write_then_a_stranger  # type: ignore[method-assign]
        with pytest.raises(OrderError) as caught:
            await checkout.check_out(wish(42, [Line(product, 2)], None), "/orders/42")
        assert caught.value.code is Code.ORDER_FAILED
        past = "now() - interval '1 s'"
        execute(settings.database_url or "", f"UPDATE stock_claims SET lease_until = {past}, lands_until = {past}")
        await built.recovery.recover_once()
    found = execute(
        settings.database_url or "", "SELECT product_id, before, after, found FROM stock_record WHERE kind = 'in doubt'"
    )
    assert found == [(product, 5, 3, 90)]
    assert sandbox.stock(product) == 90
    assert execute(settings.database_url or "", "SELECT * FROM stock_returns") == []


async def test_a_stranger_who_writes_first_is_planned_around(settings: Settings, sandbox: Sandbox) -> None:
    sandbox.catalog_faults(etags=True)
    product, other = sandbox.product(5), sandbox.product(5)
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)
        write, seen = built.catalog.write, []

        async def a_stranger_first(item: Product, quantity: int, *more: Any, **named: Any) -> Written:
            if item.id == product and not seen:
                sandbox.restock(product, 90)
            written = await write(item, quantity, *more, **named)
            seen.append(written)
            return written

        built.catalog.write = a_stranger_first  # type: ignore[method-assign]
        answer = await checkout.check_out(wish(42, [Line(product, 2), Line(other, 1)], "key-412"), "/orders/42")
        again = await checkout.check_out(wish(42, [Line(product, 2), Line(other, 1)], "key-412"), "/orders/42")
    assert Written.CHANGED in seen
    assert (answer.status, again.order_id, again.replayed) == (201, answer.order_id, True)
    assert (sandbox.stock(product), sandbox.stock(other)) == (88, 4)


async def test_a_key_that_was_answered_with_a_carts_order_stays_with_it(settings: Settings, sandbox: Sandbox) -> None:
    product, customer = sandbox.product(10), int(time.time())
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)
        sandbox.fill_cart(customer, (product, 1))
        first = await checkout.check_out(wish(customer, None, "key-a"), "/")
        repeated = await checkout.check_out(wish(customer, None, "key-b"), "/")
        sandbox.fill_cart(customer, (product, 2))
        assert (
            (await checkout.check_out(wish(customer, None, "key-b"), "/")).order_id
            == first.order_id
            == repeated.order_id
        )
        assert (await checkout.check_out(wish(customer, None, "key-c"), "/")).order_id != first.order_id
    assert sandbox.stock(product) == 7


async def test_many_who_wait_for_one_product_do_not_stop_the_others(settings: Settings, sandbox: Sandbox) -> None:
    held, free = sandbox.product(10_000), sandbox.product(10)
    other_replica, other_batch = connect(settings.database_url or ""), uuid7()
    claim_sql.claim(other_replica, other_batch, 600, [held], {}, {})
    async with machinery(settings) as built:
        deadline = asyncio.get_running_loop().time() + 60  # far: nobody is helped by a deadline
        requests = [order_request(n + 1, (Line(held, 1),), deadline, "/") for n in range(1000)]
        waiting = [asyncio.create_task(built.placement.place(request)) for request in requests]
        await asyncio.sleep(0.3)
        answer = await built.placement.place(order_request(9999, (Line(free, 1),), deadline, "/"))
        assert answer.status == 201
        assert not any(task.done() for task in waiting)
        claim_sql.release(other_replica, other_batch, [held], [])
        placed = await asyncio.gather(*waiting)
    assert {answer.status for answer in placed} == {201}
    assert sandbox.stock(held) == 9_000


async def test_who_waits_for_a_held_product_is_told_so_at_the_deadline(settings: Settings, sandbox: Sandbox) -> None:
    held = sandbox.product(10)
    claim_sql.claim(connect(settings.database_url or ""), uuid7(), 600, [held], {}, {})
    async with machinery(settings) as built:
        deadline = asyncio.get_running_loop().time() + 0.5
        requests = [order_request(n + 1, (Line(held, 1),), deadline, "/") for n in range(100)]
        ends = await asyncio.gather(*map(built.placement.place, requests), return_exceptions=True)
    assert [end.code for end in ends if isinstance(end, OrderError)] == [Code.STOCK_BUSY] * 100


async def test_who_waits_for_a_slow_catalog_is_answered_at_the_deadline(
    settings: Settings, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    product = sandbox.product(10)
    sandbox.catalog_faults(slow_s=8)
    patient = settings.model_copy(update={"orders_neighbour_timeout_s": 9})
    async with machinery(patient) as built:
        now = asyncio.get_running_loop().time
        begun_at = now()
        with pytest.raises(OrderError) as caught:
            await built.placement.place(order_request(42, (Line(product, 1),), begun_at + 0.5, "/"))
        assert now() - begun_at < 5
        assert caught.value.code is Code.ORDER_FAILED
    assert execute(settings.database_url or "", "SELECT * FROM stock_claims") == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_product_is_free_at_once_though_another_of_its_order_is_waited_for(
    settings: Settings, sandbox: Sandbox
) -> None:
    quick, slow = sandbox.product(5), sandbox.product(5)
    patient = settings.model_copy(update={"orders_request_deadline_s": 60, "orders_lease_s": 90})
    async with machinery(patient) as built:
        write, is_held, may_go = built.catalog.write, asyncio.Event(), asyncio.Event()

        async def held_up(item: Product, quantity: int, *more: Any, **named: Any) -> Written:
            if item.id == slow:
                is_held.set()
                await may_go.wait()
            return await write(item, quantity, *more, **named)

        built.catalog.write = held_up  # type: ignore[method-assign]
        now = asyncio.get_running_loop().time()
        of_both = order_request(1, (Line(quick, 1), Line(slow, 1)), now + 60, "/")
        both = asyncio.create_task(built.placement.place(of_both))
        await is_held.wait()
        answer = await built.placement.place(order_request(2, (Line(quick, 1),), now + 15, "/"))
        assert (answer.status, both.done()) == (201, False)
        leases = "SELECT product_id, lease_until > now() + interval '30 s' FROM stock_claims"
        assert execute(settings.database_url or "", leases) == [(slow, True)]  # what is waited for stays ours
        may_go.set()
        assert (await both).status == 201
    assert (sandbox.stock(quick), sandbox.stock(slow)) == (3, 4)


async def test_a_batch_whose_cart_is_taken_starts_over_and_answers(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, taken = sandbox.product(5), [Taken("orders_one_per_cart")]

    def taken_once(*given: Any) -> None:
        if taken:
            raise taken.pop()
        intend(*given)

    monkeypatch.setattr(batch, "intend", taken_once)
    async with machinery(settings) as built:
        deadline = asyncio.get_running_loop().time() + 10
        answer = await asyncio.wait_for(
            built.placement.place(order_request(42, (Line(product, 1),), deadline, "/")), 20
        )
    assert (answer.status, taken, sandbox.stock(product)) == (201, [], 4)


async def test_a_settle_whose_answer_was_lost_is_found_to_have_happened(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, lost = sandbox.product(5), [DatabaseUnavailable("the answer is lost")]

    def lost_once(*given: Any) -> Any:
        settled = settle(*given)
        if lost:
            raise lost.pop()
        return settled

    monkeypatch.setattr(settling, "settle", lost_once)
    async with machinery(settings) as built:
        deadline = asyncio.get_running_loop().time() + 10
        answer = await asyncio.wait_for(
            built.placement.place(order_request(42, (Line(product, 1),), deadline, "/")), 20
        )
    assert (answer.status, lost, sandbox.stock(product)) == (201, [], 4)


async def test_orders_that_arrive_together_share_one_read_and_one_write(settings: Settings, sandbox: Sandbox) -> None:
    product = sandbox.product(100)
    async with machinery(settings) as built:
        calls: list[str] = []
        send = built.catalog._neighbour._send

        async def counted(method: str, *more: object) -> object:
            calls.append(method)
            return await send(method, *more)  # type: ignore[arg-type]

        built.catalog._neighbour._send = counted  # type: ignore[method-assign, assignment]
        deadline = asyncio.get_running_loop().time() + 3
        answers = await asyncio.gather(
            *(built.placement.place(order_request(n + 1, (Line(product, 1),), deadline, "/")) for n in range(50))
        )
    assert {answer.status for answer in answers if isinstance(answer, Answer)} == {201}
    assert sandbox.stock(product) == 50
    assert calls == ["GET", "PUT"] * 2  # the first of them alone, the others together


@pytest.mark.parametrize(
    ("wrong", "key", "code"),
    [
        (DatabaseUnavailable("no answer"), None, Code.DATABASE_UNAVAILABLE),
        (RuntimeError("a bug"), None, Code.ORDER_FAILED),
        (RuntimeError("a bug"), "k", Code.STOCK_BUSY),  # the key could not be made to remember: nothing was decided
    ],
)
async def test_clients_do_not_wait_for_an_undo_that_gets_no_answer(
    settings: Settings, sandbox: Sandbox, wrong: Exception, key: str | None, code: Code
) -> None:
    product = sandbox.product(5)
    async with machinery(settings) as built:
        run, is_back, statements = built.database.run, asyncio.Event(), itertools.count(1)

        async def silent(query: Query[Any]) -> Any:
            number = next(statements)
            if number == 1:
                await run(query)
                raise wrong
            if number == 2:
                await is_back.wait()
            if number == 3:
                raise DatabaseUnavailable("no answer")
            return await run(query)

        built.database.run = silent  # type: ignore[method-assign]
        deadline = asyncio.get_running_loop().time() + 3
        with pytest.raises(OrderError) as caught:
            await asyncio.wait_for(
                built.placement.place(order_request(42, (Line(product, 2),), deadline, "/", key=key)), 20
            )
        assert caught.value.code is code
        is_back.set()
    assert execute(settings.database_url or "", "SELECT * FROM stock_claims") == []
    assert execute(settings.database_url or "", "SELECT * FROM idempotency_keys WHERE status IS NULL") == []


async def test_a_key_remembers_that_its_batch_was_undone(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "intend", raising(RuntimeError("a bug")))
    product = sandbox.product(5)
    async with machinery(settings) as built:
        with pytest.raises(OrderError) as caught:
            await built.placement.place(request_of(product, key="k", fingerprint=b"x"))
        known = await built.placement.find_outcome("k", b"x")
    assert caught.value.code is Code.ORDER_FAILED
    assert known
    assert (known.status, known.order_id) == (500, None)


# What becomes known between the first look at a key or a cart and CLAIM --------------------------------------------


def request_of(product: int, **given: Any) -> OrderRequest:
    """A request for one of the product, as `Checkout` hands it on when it has found neither key nor order."""
    deadline = asyncio.get_running_loop().time() + 5
    return order_request(given.pop("customer", 42), (Line(product, 1),), deadline, "/orders/42", **given)


async def test_a_key_that_has_its_outcome_by_now_is_answered_with_it(settings: Settings, sandbox: Sandbox) -> None:
    product = sandbox.product(5)
    async with machinery(settings) as built:
        first = await built.placement.place(request_of(product, key="k", fingerprint=b"x"))
        again = await built.placement.place(request_of(product, key="k", fingerprint=b"x"))
        assert again == dataclasses.replace(first, replayed=True)
        with pytest.raises(OrderError) as caught:
            await built.placement.place(request_of(product, key="k", fingerprint=b"of another request"))
    assert caught.value.code is Code.KEY_REUSED
    assert sandbox.stock(product) == 4


async def test_a_cart_that_is_an_order_by_now_is_answered_with_it(settings: Settings, sandbox: Sandbox) -> None:
    product = sandbox.product(5)
    async with machinery(settings) as built:
        first = await built.placement.place(request_of(product, cart_id=9))
        again = await built.placement.place(request_of(product, cart_id=9, key="k", fingerprint=b"x"))
        assert again == dataclasses.replace(first, replayed=True)
        assert await built.placement.find_outcome("k", b"x") == again
        assert (await built.placement.place(request_of(product, cart_id=10))).order_id != first.order_id
        assert (await built.placement.place(request_of(product, cart_id=9, customer=43))).order_id != first.order_id
    assert sandbox.stock(product) == 2


async def test_a_key_that_is_nobodys_when_it_is_looked_for_is_claimed_again(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLAIM did not get it, and was set free before the look at whose it is."""
    claim, batches = claim_sql.claim, list[UUID]()

    def lose_it_once(connection: Connection, batch: UUID, *given: Any) -> Claimed:
        claimed = claim(connection, batch, *given)
        batches.append(batch)
        if len(batches) > 1:
            return claimed
        claim_sql.release(connection, batch, [], claimed.keys)
        return dataclasses.replace(claimed, keys=frozenset())

    monkeypatch.setattr(claim_sql, "claim", lose_it_once)
    product = sandbox.product(5)
    async with machinery(settings) as built:
        first = await built.placement.place(request_of(product, key="k", fingerprint=b"x"))
        assert await built.placement.find_outcome("k", b"x") == dataclasses.replace(first, replayed=True)
    assert len(batches) == 2
    assert sandbox.stock(product) == 4


# What the mutants of batch.py asked for ----------------------------------------------------------------------------


async def test_a_product_whose_put_went_unanswered_keeps_quiet_and_no_other(
    settings: Settings, sandbox: Sandbox
) -> None:
    loud, plain = sandbox.product(5), sandbox.product(5)
    async with machinery(settings) as built:
        write, unanswered = built.catalog.write, {loud}

        async def first_without_answer(item: Product, quantity: int, *more: Any, **named: Any) -> Written:
            written = await write(item, quantity, *more, **named)
            if item.id in unanswered:
                unanswered.remove(item.id)
                return Written.UNKNOWN
            return written

        built.catalog.write = first_without_answer  # type: ignore[method-assign]
        deadline = asyncio.get_running_loop().time() + 3
        answer = await built.placement.place(order_request(42, (Line(loud, 1), Line(plain, 1)), deadline, "/"))
    assert (answer.status, sandbox.stock(loud), sandbox.stock(plain)) == (201, 4, 4)
    claims = execute(settings.database_url or "", "SELECT product_id, batch_id, after FROM stock_claims")
    assert claims == [(loud, None, None)]


async def test_who_waits_for_one_product_keeps_no_other_from_other_replicas(
    settings: Settings, sandbox: Sandbox
) -> None:
    held, free = sandbox.product(5), sandbox.product(5)
    other_replica = connect(settings.database_url or "")
    claim_sql.claim(other_replica, uuid7(), 600, [held], {}, {})
    async with machinery(settings.model_copy(update={"orders_lease_s": 90, "orders_request_deadline_s": 60})) as built:
        now = asyncio.get_running_loop().time()
        of_both = order_request(1, (Line(held, 1), Line(free, 1)), now + 60, "/", key="waits", fingerprint=b"f")
        waiting = asyncio.create_task(built.placement.place(of_both))
        await asyncio.sleep(0.3)
        for _ in range(100):  # it asks again now and then, and has it for that moment
            if free in claim_sql.claim(other_replica, uuid7(), 600, [free], {}, {}).products:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the product is kept from others")
        assert not waiting.done()
        waiting.cancel()


@contextlib.asynccontextmanager
async def two_in_one_batch(
    settings: Settings, product: int, step: str, *keys: str | None
) -> AsyncIterator[tuple[asyncio.Task[Answer], asyncio.Task[Answer]]]:
    """One that waits for 3 s, and one that waits for 60, while the catalog's `step` (read, write) does not end. At the
    end it does, and the second has to be placed.
    """
    other_replica, other_batch = connect(settings.database_url or ""), uuid7()
    claim_sql.claim(other_replica, other_batch, 600, [product], {}, {})
    patient = {"orders_lease_s": 90, "orders_request_deadline_s": 60, "orders_neighbour_timeout_s": 50}
    async with machinery(settings.model_copy(update=patient)) as built:
        call, may_go = getattr(built.catalog, step), asyncio.Event()

        async def held_up(*what: Any, **how: Any) -> Any:
            await may_go.wait()
            return await call(*what, **how)

        setattr(built.catalog, step, held_up)
        now = asyncio.get_running_loop().time()
        soon, late = (
            asyncio.create_task(
                built.placement.place(order_request(n, (Line(product, 1),), now + within_s, "/", key=key))
            )
            for n, within_s, key in zip((1, 2), (3, 60), keys, strict=True)
        )
        await asyncio.sleep(0.3)
        claim_sql.release(other_replica, other_batch, [product], [])  # both were waiting: they go together
        yield soon, late
        may_go.set()
        assert (await late).status == 201


@pytest.mark.parametrize(("step", "why", "left"), [("read", "answer", 4), ("write", "take the stock", 3)])
async def test_each_order_of_a_batch_is_answered_at_its_own_deadline(
    settings: Settings, sandbox: Sandbox, step: str, why: str, left: int
) -> None:
    product = sandbox.product(5)
    async with two_in_one_batch(settings, product, step, None, None) as (soon, late):
        with pytest.raises(OrderError, match=f"too long to {why}"):
            await asyncio.wait_for(soon, 20)
        assert not late.done()
    assert sandbox.stock(product) == left  # what was taken for the one that failed goes back with the next batch


async def test_clients_of_a_batch_that_was_taken_over_are_told(settings: Settings, sandbox: Sandbox) -> None:
    product = sandbox.product(5)
    async with machinery(settings.model_copy(update={"orders_lease_s": 90, "orders_request_deadline_s": 60})) as built:
        write, is_held, may_go = built.catalog.write, asyncio.Event(), asyncio.Event()

        async def held_up(item: Product, quantity: int, *more: Any, **named: Any) -> Written:
            is_held.set()
            await may_go.wait()
            return await write(item, quantity, *more, **named)

        built.catalog.write = held_up  # type: ignore[method-assign]
        deadline = asyncio.get_running_loop().time() + 60
        client = asyncio.create_task(built.placement.place(order_request(42, (Line(product, 1),), deadline, "/")))
        await is_held.wait()
        dsn = settings.database_url or ""
        execute(dsn, "UPDATE stock_claims SET lease_until = now() - interval '1 s'")
        [(dead,)] = execute(dsn, "SELECT batch_id FROM stock_claims")
        orphans_sql.take_over(connect(dsn), UUID(dead), uuid7(), 10)
        may_go.set()
        with pytest.raises(OrderError, match="interrupted"):
            await asyncio.wait_for(client, 20)
    assert execute(dsn, "SELECT status FROM orders") == [("Failed",)]


async def test_clients_of_a_batch_that_can_not_be_settled_are_told(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "settle", raising(RuntimeError("something that nobody thought of")))
    product = sandbox.product(5)
    async with machinery(settings) as built:
        deadline = asyncio.get_running_loop().time() + 30
        with pytest.raises(OrderError, match="could not be completed"):
            await asyncio.wait_for(built.placement.place(order_request(42, (Line(product, 1),), deadline, "/")), 20)


async def test_who_is_refused_at_the_deadline_has_a_key_that_remembers_it(settings: Settings, sandbox: Sandbox) -> None:
    product, dsn = sandbox.product(5), settings.database_url or ""
    async with two_in_one_batch(settings, product, "read", "key-1", "key-2") as (soon, _):
        with pytest.raises(OrderError, match="too long to answer"):
            await asyncio.wait_for(soon, 20)
        # Whatever becomes of the batch now, this is the key's outcome.
        assert execute(dsn, "SELECT key, status FROM idempotency_keys ORDER BY 1") == [("key-1", 500), ("key-2", None)]
    assert sandbox.stock(product) == 4


async def test_where_a_key_can_not_remember_nothing_was_decided(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "keep_outcomes", raising(DatabaseUnavailable("it went away")))
    monkeypatch.setattr(batch, "intend", raising(DatabaseUnavailable("it went away")))  # it would remember it, too
    product = sandbox.product(5)
    async with machinery(settings) as built:

        async def never(product_id: int, *_: object) -> Product | None:
            await asyncio.Event().wait()

        built.catalog.read = never  # type: ignore[method-assign, assignment]
        deadline = asyncio.get_running_loop().time() + 1
        with pytest.raises(OrderError) as caught:
            await asyncio.wait_for(
                built.placement.place(order_request(1, (Line(product, 1),), deadline, "/", key="k")), 20
            )
    assert caught.value.code in (
        Code.STOCK_BUSY,
        Code.DATABASE_UNAVAILABLE,
    )  # 503: with the same key it may be tried again


async def due_back(dsn: str, product: int) -> None:
    """One unit of the only order there is is to go back."""
    execute(dsn, "INSERT INTO stock_returns (order_id, product_id, quantity) SELECT id, %s, 1 FROM orders", (product,))


async def test_stock_goes_back_without_any_order_and_from_a_catalog_that_takes_its_time(
    settings: Settings, sandbox: Sandbox
) -> None:
    product = sandbox.product(5)
    async with machinery(settings) as built:
        deadline = asyncio.get_running_loop().time() + 3
        await built.placement.place(order_request(42, (Line(product, 1),), deadline, "/"))
        await due_back(settings.database_url or "", product)
        sandbox.catalog_faults(slow_s=0.1)
        built.placement.give_back([product])
        await built.placement.drain()
    assert sandbox.stock(product) == 5


async def test_a_batch_that_ends_in_doubt_is_recoverys_at_once(settings: Settings, sandbox: Sandbox) -> None:
    product, dsn = sandbox.product(5), settings.database_url or ""
    patient = settings.model_copy(update={"orders_lease_s": 90, "orders_request_deadline_s": 1})
    async with machinery(patient) as built:
        deadline = asyncio.get_running_loop().time() + 3
        await built.placement.place(order_request(42, (Line(product, 1),), deadline, "/"))
        await due_back(dsn, product)

        async def no_answer(item: Product, quantity: int, *more: Any, **named: Any) -> Written:
            sandbox.catalog_faults(error_rate=1)  # nor can it be read any more
            return Written.UNKNOWN

        built.catalog.write = no_answer  # type: ignore[method-assign]
        built.placement.give_back([product])
        await built.placement.drain()
    sandbox.heal()
    assert execute(dsn, "SELECT after, lease_until <= now() FROM stock_claims") == [(5, True)]


async def timers(settings: Settings) -> None:
    async with machinery(settings) as built:
        now = asyncio.get_running_loop().time()
        for when in (now, now + 1, now - 1, now - 1, math.inf):
            built.placement._next_wake_up = lambda when=when: when  # type: ignore[method-assign, misc]
            built.placement._set_timer()


def test_a_timer_that_is_due_at_once_can_be_put_forward(settings: Settings) -> None:
    """On the event loop that serves: what uvloop is asked to do at once has no time to compare."""
    uvloop.run(timers(settings))


async def test_under_overload_some_are_answered_in_time_and_the_rest_are_refused_early(
    settings: Settings, sandbox: Sandbox, dsn: str
) -> None:
    """Twice as many come as a slow catalog lets through, for twice as long as they may take."""
    settings = settings.model_copy(update={"orders_batch_size": 4, "orders_batches": 1})
    products = [sandbox.product(1000) for _ in range(8)]
    sandbox.catalog_faults(slow_s=0.1)
    took: dict[bool, list[float]] = {True: [], False: []}
    codes: set[Code] = set()
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)
        now = asyncio.get_running_loop().time

        async def buy(customer: int) -> None:
            began_at = now()
            try:
                await checkout.check_out(wish(customer, [Line(products[customer % 8], 1)], None), "/")
            except OrderError as error:
                codes.add(error.code)
                took[False].append(now() - began_at)
            else:
                took[True].append(now() - began_at)

        buyers = []
        for customer in range(1, 200):
            buyers.append(asyncio.create_task(buy(customer)))
            await asyncio.sleep(0.03)
        await asyncio.gather(*buyers)
    assert codes == {Code.OVERLOADED}
    assert max(took[True]) < settings.orders_request_deadline_s * 0.75
    assert max(took[False]) < 0.1  # before anything was taken
    assert len(took[True]) > 25
    assert len(took[False]) > 40
    assert execute(dsn, "SELECT count(*) FROM orders WHERE status = 'Ordered'") == [(len(took[True]),)]


async def test_a_full_queue_is_refused(settings: Settings, sandbox: Sandbox) -> None:
    settings = settings.model_copy(update={"orders_queue": 2})
    product = sandbox.product(9)
    sandbox.catalog_faults(slow_s=0.2)
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)
        orders = [asyncio.create_task(checkout.check_out(wish(n, [Line(product, 1)], None), "/")) for n in range(1, 5)]
        answers = await asyncio.gather(*orders, return_exceptions=True)
    assert [isinstance(answer, OrderError) and answer.code for answer in answers] == [
        False, False, False, Code.OVERLOADED,
    ]  # fmt: skip


async def test_orders_for_a_product_that_is_held_elsewhere_keep_nobody_else_out(
    settings: Settings, sandbox: Sandbox, dsn: str
) -> None:
    settings = settings.model_copy(update={"orders_batch_size": 4})
    held, free = sandbox.product(90), sandbox.product(90)
    execute(dsn, "INSERT INTO stock_claims VALUES (%s, gen_random_uuid(), now() + interval '1 min')", (held,))
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)

        async def buy(customer: int, product: int) -> bool:
            try:
                return (await checkout.check_out(wish(customer, [Line(product, 1)], None), "/")).status == 201
            except OrderError:
                return False

        crowd = [asyncio.create_task(buy(customer, held)) for customer in range(1, 13)]
        bought = []
        for customer in range(100, 120):
            await asyncio.sleep(0.1)
            bought.append(await buy(customer, free))
        assert all(bought)
        assert not any(await asyncio.gather(*crowd))
