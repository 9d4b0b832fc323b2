"""What Debezium would read in the write-ahead log: each event once, in the feed's order."""

import contextlib
import json
import random
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from orders.events.assign_sql import assign
from orders.order.statuses import load_workflow
from orders.postgres import database
from orders.postgres.database import Connection, connect
from orders.startup import install_functions
from orders.webhooks.body_sql import bodies
from orders.webhooks.model import Message, Payload
from tests import servers
from tests.conftest import ask, execute
from tests.integration.test_assigning import feed, make_orders, touch

_COLUMN = re.compile(r"\"?(\w+)\"?\[[^\]]+\]:(?:'((?:[^']|'')*)'|(\S+))")


@pytest.fixture(scope="module")
def logical_dsn() -> Iterator[str]:
    """A server whose log has what Debezium needs. Ours alone: `wal_level` is the server's."""
    cluster = servers.Cluster(servers.EMBEDDED)
    try:
        cluster.initialize()
        cluster.start(fsync="off", wal_level="logical")
        database.migrate(cluster.dsn)
        install_functions(cluster.dsn)
        yield cluster.dsn
    finally:
        cluster.remove()


@pytest.fixture
def connection(logical_dsn: str) -> Iterator[Connection]:
    execute(logical_dsn, "SELECT pg_create_logical_replication_slot('debezium', 'test_decoding')")
    with contextlib.closing(connect(logical_dsn)) as connection:
        yield connection
    execute(logical_dsn, "SELECT pg_drop_replication_slot('debezium')")


def changes(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the slot has of the outbox: the operation, and the row."""
    for (line,) in ask(connection, "SELECT data FROM pg_logical_slot_get_changes('debezium', NULL, NULL)"):
        if found := re.match(r"table public\.outbox: (\w+): (.*)", line, re.DOTALL):
            row = {name: text.replace("''", "'") or plain for name, text, plain in _COLUMN.findall(found[2])}
            yield found[1], row


def write_and_assign_at_once(dsn: str, orders: list[str]) -> None:
    """Three write events, and two give them their positions, until all have one."""
    is_over = threading.Event()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with contextlib.closing(connect(dsn)) as own:
            for _ in range(40):
                touch(own, chance.choice(orders))

    def give_positions() -> None:
        with contextlib.closing(connect(dsn)) as own:
            while not is_over.is_set():
                assign(own, most=7, stride=5, fills_outbox=True)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    assigners = [threading.Thread(target=give_positions) for _ in range(2)]
    for thread in (*writers, *assigners):
        thread.start()
    for thread in writers:
        thread.join()
    is_over.set()
    for thread in assigners:
        thread.join()


def fill_outbox(connection: Connection) -> None:
    while (done := assign(connection, fills_outbox=True)) is None or done.given or done.is_walking:
        pass


def test_each_event_passes_through_the_outbox_once_in_the_order_of_the_feed(connection: Connection) -> None:
    write_and_assign_at_once(connection.dsn, make_orders(connection, 10, events=2))
    fill_outbox(connection)
    found = list(changes(connection))
    inserted = [row for operation, row in found if operation == "INSERT"]
    expected = feed(connection)
    assert len(expected) == 140
    assert [int(row["position"]) for row in inserted] == [position for position, _, _ in expected]
    assert [UUID(row["aggregateid"]) for row in inserted] == [order for _, order, _ in expected]
    assert {row["aggregatetype"] for row in inserted} == {"order"}
    assert {row["type"] for row in inserted} == {"order.changed"}
    assert len({UUID(row["id"]) for row in inserted}) == len(expected)
    assert all(UUID(row["id"]).version == 8 for row in inserted)
    assert sum(operation == "DELETE" for operation, _ in found) == len(expected)
    assert ask(connection, "SELECT count(*) FROM outbox") == [(0,)]


def test_the_payload_is_what_a_webhook_is_sent_without_the_order(connection: Connection) -> None:
    (order,) = make_orders(connection, 1)
    ask(connection, "UPDATE orders SET private_note = 'secret''s', version = version + 1 WHERE id = %s", (order,))
    fill_outbox(connection)
    ((_, row),) = [change for change in changes(connection) if change[0] == "INSERT"]
    assert "secret" not in row["payload"]
    ((position, number),) = ask(connection, "SELECT position, number FROM events WHERE order_id = %s", (order,))
    about = {"position": position, "order_id": UUID(order), "number": number}
    message = Message(1, uuid4(), "order.described", 1, datetime.now(UTC), **about)
    (body,) = bodies(connection, load_workflow(None), Payload.THIN, [message]).values()
    assert json.loads(row["payload"]) == json.loads(body)


def test_nothing_passes_through_the_outbox_unless_it_is_asked_for(connection: Connection) -> None:
    touch(connection, make_orders(connection, 1)[0])
    while (done := assign(connection)) is None or done.given or done.is_walking:
        pass
    assert list(changes(connection)) == []
