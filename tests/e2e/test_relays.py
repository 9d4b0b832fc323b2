"""Events go to real brokers, whatever dies: NATS JetStream, RabbitMQ, and a mock of a Kafka cluster."""

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jsonschema
import pytest

from orders.events.assign_sql import assign
from orders.events.feed import Positions
from orders.events.message_schemas import message_schema
from orders.order.statuses import load_workflow
from orders.postgres.database import Connection, Database, connect
from orders.relays.relay import Relay
from orders.relays.relays_sql import read_standings
from orders.relays.sinks import sink_of
from orders.settings.relays import Broker as Kind
from orders.settings.relays import Target, targets
from tests import brokers
from tests.brokers import Got
from tests.conftest import ask
from tests.integration.test_assigning import assign_all, make_orders, touch

SOURCE = "https://orders.shop.example"
KINDS = {Kind.NATS: brokers.Nats, Kind.RABBITMQ: brokers.Rabbitmq, Kind.KAFKA: brokers.KafkaMock}


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(dsn)) as connection:
        yield connection


@pytest.fixture(autouse=True)
def _nobody_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orders.relays.outage.FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("orders.relays.outage.LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr("orders.relays.relay.LOOK_S", 0.05)
    monkeypatch.setattr("orders.relays.relay.OTHERS_S", 0.05)
    monkeypatch.setattr("orders.relays.relays_sql.MOST", 20)


@pytest.fixture(params=list(KINDS))
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param is Kind.RABBITMQ and not brokers.RABBITMQ.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("RabbitMQ is missing: apt-get install rabbitmq-server")
    with brokers.started(KINDS[request.param]()) as broker:
        if isinstance(broker, brokers.Rabbitmq):
            await broker.bind()
        yield broker


@contextlib.asynccontextmanager
async def relaying(dsn: str, target: Target) -> AsyncIterator[Relay]:
    """A replica that relays until it is stopped."""
    database = Database(dsn, 1)
    relay = Relay(database, Positions(), load_workflow(None), target, sink_of(target), SOURCE)

    async def go_on() -> None:
        while True:
            await relay.relay_once()

    work = asyncio.create_task(go_on())
    try:
        yield relay
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await relay.close()
        await asyncio.to_thread(database.close)


def target_of(url: str) -> Target:
    return targets(url)[0]


async def until_relayed(connection: Connection) -> None:
    """Until every event in the feed is acknowledged."""
    async with asyncio.timeout(90):
        while any(standing.behind for standing in read_standings(connection)) or not read_standings(connection):
            await asyncio.sleep(0.02)


def events_of(connection: Connection) -> list[tuple[str, int]]:
    return [(order, number) for order, number in ask(connection, "SELECT order_id::text, number FROM order_events")]


def require_whole(got: list[Got], expected: list[tuple[str, int]]) -> None:
    """Each event is there. Of each order, none came before an earlier one. What came twice is the same."""
    first = list(dict.fromkeys(one.event for one in got))
    assert sorted(first) == sorted(expected)
    latest: dict[str, int] = {}
    for order_id, number in first:
        assert number > latest.get(order_id, 0), f"{order_id}: {number} behind {latest[order_id]}"
        latest[order_id] = number
    bodies: dict[str, bytes] = {}
    for one in got:
        assert bodies.setdefault(one.id, one.body) == one.body
        assert one.key == one.event[0]


async def test_every_event_is_a_cloud_event(connection: Connection, dsn: str, broker: Any) -> None:
    for order in make_orders(connection, 5, events=2):
        touch(connection, order)
    assign_all(connection)
    async with relaying(dsn, target_of(broker.url)):
        await until_relayed(connection)
    got = await broker.read()
    require_whole(got, events_of(connection))
    assert len(got) == 15
    for one in got:
        order_id, number = one.event
        ((position, kind),) = ask(
            connection, "SELECT position, type FROM events WHERE order_id = %s AND number = %s", one.event
        )
        attributes = {name: value for name, value in one.attributes.items() if name != "time"}
        assert attributes == {
            "specversion": "1.0",
            "id": f"{order_id}-{number}",
            "source": SOURCE,
            "type": f"order.{kind}",
            "subject": order_id,
            "datacontenttype": "application/json",
            "dataschema": f"{SOURCE}/schemas/order.{kind}/1",
            "sequence": f"{position:020d}",
            "partitionkey": order_id,
        }
        message = json.loads(one.body)
        jsonschema.validate(message, message_schema(f"order.{kind}"))
        assert message["data"]["order"]["version"] == number


async def test_a_broker_that_dies_in_mid_stream_misses_nothing(
    connection: Connection, dsn: str, broker: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two replicas relay, and orders go on while the broker is away."""
    for module in ("sink", "nats_sink", "rabbitmq_sink", "kafka_sink"):
        monkeypatch.setattr(f"orders.relays.{module}.PUBLISH_S", 3.0)
    chance = random.Random(1)
    orders = make_orders(connection, 20, events=1)
    async with relaying(dsn, target_of(broker.url)), relaying(dsn, target_of(broker.url)):
        for n in range(300):
            touch(connection, chance.choice(orders))
            if n % 5 == 0:
                assign(connection)
                await asyncio.sleep(0)
            if n % 100 == 50:
                broker.kill()
            if n % 100 == 90:
                assign_all(connection)
                async with asyncio.timeout(30):
                    while not any(standing.error for standing in read_standings(connection)):
                        await asyncio.sleep(0.02)
                await asyncio.to_thread(broker.start)
        assign_all(connection)
        await until_relayed(connection)
        assert not any(standing.error for standing in read_standings(connection))
    require_whole(await broker.read(), events_of(connection))
    told = [record.message for record in caplog.records if record.name.startswith("orders.relays")]
    assert any("is away" in line for line in told)
    assert any("is back" in line for line in told)


async def test_a_replica_that_dies_is_followed_by_another(
    connection: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.relays.relay.PUBLISH_S", 0.2)
    monkeypatch.setattr("orders.relays.relay.LEASE_S", 1.0)
    with brokers.started(brokers.Nats()) as broker:
        target = target_of(broker.url)
        orders = make_orders(connection, 30, events=3)
        for _ in range(5):
            async with relaying(dsn, target):
                for order in orders:
                    touch(connection, order)
                assign_all(connection)
                ask(connection, "UPDATE relays SET lease_until = now() WHERE holder IS NOT NULL")  # the holder stalls
        async with relaying(dsn, target):
            await until_relayed(connection)
        require_whole(await broker.read(), events_of(connection))


async def test_a_relay_goes_on_where_it_is_told_to(connection: Connection, dsn: str) -> None:
    with brokers.started(brokers.KafkaMock()) as broker:
        make_orders(connection, 10, events=1)
        assign_all(connection)
        async with relaying(dsn, target_of(broker.url)) as relay:
            await until_relayed(connection)
            await relay.go_on_after(4)
            await until_relayed(connection)
        got = await broker.read()
        assert len(got) == 16
        assert len({one.id for one in got}) == 10


async def test_no_private_note_leaves(connection: Connection, dsn: str) -> None:
    with brokers.started(brokers.KafkaMock()) as broker:
        (order,) = make_orders(connection, 1)
        ask(connection, "UPDATE orders SET private_note = 'secret', version = version + 1 WHERE id = %s", (order,))
        assign_all(connection)
        async with relaying(dsn, target_of(broker.url)):
            await until_relayed(connection)
        (got,) = await broker.read()
        assert b"secret" not in got.body
        assert got.data["data"]["order"]["notes"]["private"] is None
