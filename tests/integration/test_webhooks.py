"""Events go to endpoints: real receivers on loopback, whatever they do, and whoever dies."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from orders.background import rounds, run_forever
from orders.machinery import Machinery, machinery
from orders.postgres.database import Connection, connect
from orders.settings import Settings
from orders.webhooks.signing import SignatureKind, new_key
from tests.conftest import ask
from tests.integration.test_assigning import make_orders, touch
from tests.receiver import SECRET, Got, Receiver, add_webhook, require_signed

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
