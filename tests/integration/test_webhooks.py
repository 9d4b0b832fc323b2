"""Events go to endpoints: real receivers on loopback, whatever they do, and whoever dies."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from orders.background import rounds, run_forever
from orders.machinery import Machinery, machinery
from orders.postgres.database import Connection, connect
from orders.settings import Settings
from orders.webhooks.model import Message
from orders.webhooks.signing import SignatureKind, new_key
from orders.webhooks.tick_sql import read_enabled
from tests.conftest import ask, free_port
from tests.integration.test_assigning import make_orders, touch
from tests.receiver import OK, SECRET, Got, Receiver, add_webhook, answer, require_signed

AT_ONCE = ",".join(["0s"] * 50)
"""Fifty attempts, one after the other."""


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(dsn)) as connection:
        yield connection


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "orders_secret": SECRET,
            "orders_webhook_allow": "127.0.0.1",
            "orders_webhook_retries": AT_ONCE,
            "orders_webhook_timeout_s": 5.0,
            "orders_events_interval_s": 0.02,
        }
    )


@pytest.fixture
def _probes_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orders.webhooks.schedule.MIN_PROBE_S", 0.01)
    monkeypatch.setattr("orders.webhooks.schedule.MAX_PROBE_S", 0.02)
    monkeypatch.setattr("orders.webhooks.dispatch.LOOK_S", 0.05)


@contextlib.asynccontextmanager
async def replica(settings: Settings) -> AsyncIterator[Machinery]:
    """A replica with its background work."""
    async with machinery(settings) as built:
        work = asyncio.create_task(run_forever(rounds(built, settings)))
        try:
            yield built
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def events_of(connection: Connection) -> list[tuple[str, int]]:
    rows = ask(connection, "SELECT order_id::text, number FROM order_events ORDER BY 1, 2")
    return [(order_id, number) for order_id, number in rows]


def states(connection: Connection) -> Counter[str]:
    return Counter(state for (state,) in ask(connection, "SELECT state FROM webhook_deliveries"))


async def until_all_are(connection: Connection, state: str, count: int) -> None:
    async with asyncio.timeout(30):
        while states(connection) != {state: count}:
            await asyncio.sleep(0.02)


def require_in_order(got: list[Got], expected: list[tuple[str, int]]) -> None:
    """Each event came at least once, and those of an order came one after the other."""
    first = list(dict.fromkeys(one.event for one in got))
    assert sorted(first) == expected
    for order_id in {order_id for order_id, _ in expected}:
        numbers = [number for other, number in first if other == order_id]
        assert numbers == sorted(numbers)
    bodies: dict[str, bytes] = {}
    for one in got:
        assert bodies.setdefault(one.id, one.body) == one.body, "the same bytes at every attempt"


async def test_every_event_arrives_once_and_signed(connection: Connection, settings: Settings) -> None:
    key = new_key(SignatureKind.V1)
    async with Receiver() as receiver, replica(settings):
        add_webhook(connection, receiver.url, key)
        orders = make_orders(connection, 20, events=3)
        for order in orders:
            touch(connection, order)
        expected = events_of(connection)
        await receiver.until(lambda: len(receiver.got) >= len(expected))
        await until_all_are(connection, "delivered", len(expected))
    assert sorted(one.event for one in receiver.got) == expected
    require_in_order(receiver.got, expected)
    for one in receiver.got:
        require_signed(one, key.text)
    assert receiver.most_at_once <= 8


@pytest.mark.parametrize(
    "fault",
    [
        lambda _: answer(500),
        lambda _: answer(301, "location: http://127.0.0.1:1/"),
        lambda _: answer(429, "retry-after: 0"),
        lambda _: None,
        lambda _: b"rubbish\r\n\r\n",
        lambda _: answer(503, "content-encoding: gzip", body=b"\x1f\x8b" * 5000),
    ],
)
@pytest.mark.usefixtures("_probes_are_quick")
async def test_what_was_not_taken_is_sent_again(fault: Any, connection: Connection, settings: Settings) -> None:
    tries: Counter[str] = Counter()

    def behave(got: Got) -> Any:
        tries[got.id] += 1
        return fault(got) if tries[got.id] <= 2 else OK

    async with Receiver(behave) as receiver, replica(settings):
        add_webhook(connection, receiver.url, ordering="order")
        make_orders(connection, 3, events=2)
        expected = events_of(connection)
        await until_all_are(connection, "delivered", len(expected))
    require_in_order(receiver.got, expected)
    assert set(tries.values()) == {3}
    assert ask(connection, "SELECT count(*) FROM webhook_attempts") == [(2 * len(expected),)]


@pytest.mark.usefixtures("_probes_are_quick")
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_fails_each_order_s_events_come_in_their_order(
    seed: int, connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replicas, changes all the while, and a receiver that fails as chance has it."""
    monkeypatch.setattr("orders.webhooks.tick_sql.LEASE_S", 2.0)
    chance = random.Random(seed)

    async def behave(_: Got) -> bytes | None:
        drawn = chance.random()
        await asyncio.sleep(chance.choice((0, 0, 0.01, 0.05)))
        return None if drawn < 0.1 else answer(500) if drawn < 0.25 else OK

    async with Receiver(behave) as receiver, replica(settings), replica(settings):
        add_webhook(connection, receiver.url)
        orders = make_orders(connection, 6, events=1)
        for _ in range(10):
            for order in chance.sample(orders, 4):
                await asyncio.to_thread(touch, connection, order)
        expected = events_of(connection)
        await until_all_are(connection, "delivered", len(expected))
    require_in_order(receiver.got, expected)


async def test_two_replicas_send_each_event_once(connection: Connection, settings: Settings) -> None:
    async with Receiver() as receiver, replica(settings), replica(settings), replica(settings):
        add_webhook(connection, receiver.url, concurrency=16)
        make_orders(connection, 40, events=5)
        expected = events_of(connection)
        await until_all_are(connection, "delivered", len(expected))
    assert sorted(one.event for one in receiver.got) == expected
    require_in_order(receiver.got, expected)
    assert receiver.most_at_once <= 16


async def test_without_ordering_the_events_of_an_order_go_at_once(connection: Connection, settings: Settings) -> None:
    all_are_there = asyncio.Event()

    async def behave(_: Got) -> bytes:
        await all_are_there.wait()
        return OK

    async with Receiver(behave) as receiver, replica(settings):
        add_webhook(connection, receiver.url, ordering="none", concurrency=5)
        make_orders(connection, 1, events=5)
        await receiver.until(lambda: receiver.at_once == 5)
        all_are_there.set()
        await until_all_are(connection, "delivered", 5)
    assert len({one.event for one in receiver.got}) == len(receiver.got) == 5


async def test_after_it_was_disabled_no_retry_comes(connection: Connection, settings: Settings) -> None:
    """Retries wait, and one attempt is under way."""
    disabled = asyncio.Event()

    async def behave(got: Got) -> bytes:
        if len(receiver.got) == 4:
            await disabled.wait()
        return answer(500)

    settings = settings.model_copy(update={"orders_webhook_retries": "0s,1s,1s,1s"})
    async with Receiver(behave) as receiver, Receiver() as other, replica(settings):
        webhook_id = add_webhook(connection, receiver.url)
        make_orders(connection, 4, events=1)
        await receiver.until(lambda: len(receiver.got) == 4)
        ask(
            connection,
            "UPDATE webhooks SET status = 'disabled', disabled_reason = 'asked' WHERE id = %s",
            (str(webhook_id),),
        )
        disabled.set()
        await until_all_are(connection, "waiting", 4)
        ask(connection, "UPDATE webhook_deliveries SET due_at = now()")
        add_webhook(connection, other.url)
        make_orders(connection, 3, events=1)
        await other.until(lambda: len(other.got) == 7)
        assert len(receiver.got) == 4
        receiver.behave = lambda _: OK
        ask(connection, "UPDATE webhooks SET status = 'enabled', disabled_reason = NULL, slow_until = NULL")
        await until_all_are(connection, "delivered", 14)
    require_in_order(receiver.got, events_of(connection))


async def test_who_says_that_it_is_gone_is_asked_no_more(connection: Connection, settings: Settings) -> None:
    async with Receiver(lambda _: answer(410)) as gone, Receiver() as other, replica(settings):
        webhook_id = add_webhook(connection, gone.url, concurrency=1)
        add_webhook(connection, other.url, types=["webhook.*"])
        make_orders(connection, 3, events=1)
        await other.until(lambda: other.got)
    (notice,) = other.got
    assert notice.message["type"] == "webhook.disabled"
    assert notice.data["webhook_id"] == str(webhook_id)
    assert notice.data["disabled_reason"] == "gone"
    assert len(gone.got) == 1


async def test_a_dead_endpoint_delays_no_other_and_is_asked_rarely(connection: Connection, settings: Settings) -> None:
    never = asyncio.Event()

    async def hang(_: Got) -> bytes:
        await never.wait()
        raise AssertionError

    async with Receiver(hang) as dead, Receiver() as alive, replica(settings):
        add_webhook(connection, dead.url, concurrency=2)
        add_webhook(connection, f"http://127.0.0.1:{free_port()}/", concurrency=64)
        add_webhook(connection, alive.url)
        for _ in range(5):
            made = make_orders(connection, 20, events=1)
            await alive.until(lambda made=made: {one.event[0] for one in alive.got} >= set(made), within_s=5)
        refused = "SELECT count(*)::integer FROM webhook_attempts WHERE error = 'connection_refused'"
        ((tries,),) = ask(connection, refused)
    assert len(dead.got) <= 4
    assert 5 <= tries <= 64 + 5


@pytest.mark.usefixtures("_probes_are_quick")
async def test_while_an_endpoint_is_probed_the_others_keep_their_attempts(
    connection: Connection, settings: Settings
) -> None:
    async with Receiver(lambda _: answer(500)) as receiver, replica(settings):
        add_webhook(connection, receiver.url)
        make_orders(connection, 60, events=1)
        await receiver.until(lambda: len(receiver.got) >= 20)
    ((untouched,),) = ask(connection, "SELECT count(*)::integer FROM webhook_deliveries WHERE attempts = 0")
    assert untouched >= 60 - 8 - (len(receiver.got) - 8)
    ((failed,),) = ask(connection, "SELECT failed_in_row FROM webhooks")
    assert failed >= 20


async def test_without_the_right_secret_no_attempt_is_lost(
    connection: Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    other = settings.model_copy(update={"orders_secret": "another secret than before"})
    none = settings.model_copy(update={"orders_secret": None})
    async with Receiver() as receiver:
        add_webhook(connection, receiver.url)
        make_orders(connection, 3, events=1)
        for wrong, sentence in ((other, "ORDERS_SECRET is another one"), (none, "ORDERS_SECRET is not set")):
            async with replica(wrong), asyncio.timeout(20):
                while sentence not in caplog.text:
                    await asyncio.sleep(0.02)
        assert receiver.got == []
        async with replica(settings):
            await until_all_are(connection, "delivered", 3)
    assert ask(connection, "SELECT DISTINCT attempts FROM webhook_deliveries") == [(1,)]


async def test_at_a_shutdown_what_is_under_way_is_recorded(connection: Connection, settings: Settings) -> None:
    is_closing = asyncio.Event()

    async def behave(_: Got) -> bytes:
        await is_closing.wait()
        return OK

    async with Receiver(behave) as receiver:
        async with replica(settings) as built:
            add_webhook(connection, receiver.url, concurrency=4)
            make_orders(connection, 10, events=1)
            await receiver.until(lambda: receiver.at_once == 4)
            closing = asyncio.create_task(built.webhooks.close())
            await asyncio.sleep(0)
            is_closing.set()
            await closing
        assert states(connection) == {"delivered": 4, "waiting": 6}
        assert len(receiver.got) == 4


async def test_an_endpoint_that_wants_little_passes_by_much_at_once(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.webhooks.tick_sql.STRIDE", 5)
    monkeypatch.setattr("orders.webhooks.dispatch.LOOK_S", 60.0)
    make_orders(connection, 100, events=2)
    async with Receiver() as receiver, replica(settings) as built:
        await built.feed.assign_once()
        add_webhook(connection, receiver.url, types=["order.described"])
        (order,) = make_orders(connection, 1, 0)
        ask(
            connection,
            "INSERT INTO order_events (order_id, number, type, actor) VALUES (%s, 2, 'described', 'test')",
            (order,),
        )
        await receiver.until(lambda: receiver.got)
    assert [one.event for one in receiver.got] == [(order, 2)]


async def test_a_message_is_sent_on_demand_and_shown(connection: Connection, settings: Settings) -> None:
    async with Receiver() as receiver, machinery(settings) as built:
        webhook_id = add_webhook(connection, receiver.url)
        present = read_enabled(connection, webhook_id)
        assert present
        message = Message(1, webhook_id, "webhook.test", 1, datetime.now(UTC), notice='{"hello": "world"}')
        sent = await built.webhooks.send_once(present.endpoint, message)
        assert sent
        assert sent.result.is_success
    (got,) = receiver.got
    assert got.body == sent.body
    assert got.data == {"hello": "world"}
    assert ask(connection, "SELECT FROM webhook_deliveries") == []
