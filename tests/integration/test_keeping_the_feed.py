"""Old events leave the feed, from its beginning on; and no walk brings them back."""

import contextlib
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import hypothesis
import pytest
from hypothesis import strategies

from orders.errors import Code, OrderError
from orders.events.feed import Feed
from orders.events.feed_sql import read_feed
from orders.events.purge_sql import purge_feed
from orders.events.wanted import Wanted
from orders.order.statuses import load_workflow
from orders.postgres.database import Connection, Database, connect
from orders.relays.relays_sql import Taker, take
from tests.conftest import ask, empty
from tests.integration.test_assigning import assign_all, feed, make_orders, touch
from tests.receiver import add_webhook

OLD = datetime.now(UTC) - timedelta(days=40)


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(dsn)) as connection:
        yield connection


def make_events(connection: Connection, old: int, young: int) -> str:
    """An order with so many events of long ago, and then some of today, all in the feed."""
    (order,) = make_orders(connection, 1)
    for n in range(old):
        touch(connection, order, OLD + timedelta(seconds=n))
    for _ in range(young):
        touch(connection, order)
    assign_all(connection)
    return order


def positions(connection: Connection) -> list[int]:
    return [position for position, _, _ in feed(connection)]


def purge_all(connection: Connection, most: int = 3) -> None:
    while purge_feed(connection, keep_days=30, most=most):
        pass


def relay_at(connection: Connection, position: int) -> None:
    ask(connection, "INSERT INTO relays (name, url_hash, position) VALUES ('nats', 'x', %s)", (position,))


def test_what_is_old_leaves_the_feed_in_chunks(connection: Connection) -> None:
    order = make_events(connection, old=7, young=2)
    assert purge_feed(connection, keep_days=30, most=3)
    assert positions(connection) == [4, 5, 6, 7, 8, 9]
    purge_all(connection)
    assert positions(connection) == [8, 9]
    ((kept,),) = ask(connection, "SELECT count(*) FROM order_events WHERE order_id = %s", (order,))
    assert kept == 9


def test_an_old_event_behind_a_young_one_stays(connection: Connection) -> None:
    make_events(connection, old=2, young=1)
    make_events(connection, old=2, young=0)
    purge_all(connection)
    assert positions(connection) == [3, 4, 5]


def test_nothing_leaves_that_a_webhook_or_a_relay_has_not_passed(connection: Connection) -> None:
    make_events(connection, old=9, young=0)
    relay_at(connection, 6)
    add_webhook(connection, "https://shop.example/", position=4, status="disabled", disabled_reason="asked")
    purge_all(connection)
    assert positions(connection) == [5, 6, 7, 8, 9]
    ask(connection, "DELETE FROM webhook_secrets")
    ask(connection, "DELETE FROM webhooks")
    purge_all(connection)
    assert positions(connection) == [7, 8, 9]
    ask(connection, "DELETE FROM relays")
    purge_all(connection)
    assert positions(connection) == []


async def test_a_reader_is_told_where_the_feed_begins(connection: Connection, dsn: str) -> None:
    make_events(connection, old=5, young=2)
    purge_all(connection)
    database = Database(dsn, 1)
    reader = Feed(database, 1)
    try:
        for after in (0, 4):
            with pytest.raises(OrderError) as refused:
                await reader.read(Wanted(after))
            assert refused.value.code is Code.POSITION_GONE
            assert refused.value.extra == {"first": 6}
        assert len((await reader.read(Wanted(5))).events) == 2
    finally:
        database.close()


def test_positions_go_on_after_the_whole_feed_was_deleted(connection: Connection) -> None:
    order = make_events(connection, old=5, young=0)
    purge_all(connection)
    touch(connection, order)
    assign_all(connection)
    assert positions(connection) == [6]
    assert read_feed(connection, Wanted(5)).head == 6


def test_nothing_leaves_while_a_walk_goes_on(connection: Connection) -> None:
    make_events(connection, old=5, young=0)
    ask(
        connection,
        "UPDATE events_head SET walked_order = '00000000-0000-0000-0000-000000000000', walked_number = 0",
    )
    purge_all(connection)
    assert positions(connection) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("moved", ["too many are new", "another cluster"])
def test_a_walk_does_not_bring_back_what_has_left(connection: Connection, moved: str) -> None:
    order = make_events(connection, old=6, young=2)
    purge_all(connection)
    if moved == "another cluster":
        ask(connection, "UPDATE events_head SET cluster = 1")
    for _ in range(5):
        touch(connection, order)
    late = make_orders(connection, 1)[0]  # its history was imported: it is old, and new to the feed
    touch(connection, late, OLD - timedelta(days=1))
    assign_all(connection, most=3, stride=2)
    found = feed(connection)
    assert [position for position, _, _ in found] == list(range(7, 15))
    assert sorted(number for _, owner, number in found if str(owner) == order) == [8, 9, 10, 11, 12, 13, 14]


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(strategies.lists(strategies.sampled_from(["old", "young", "assign", "purge", "walk"]), max_size=30))
def test_each_event_has_one_position_ever(migrated_dsn: str, steps: list[str]) -> None:
    """Whatever comes in which order: positions are given without a gap, and none twice to the same event."""
    with contextlib.closing(connect(migrated_dsn)) as connection:
        empty(connection)
        (order,) = make_orders(connection, 1)
        seen: dict[int, tuple[str, int]] = {}
        minute = itertools.count()
        for step in [*steps, "assign", "purge", "walk", "assign"]:
            match step:
                case "old":
                    touch(connection, order, OLD + timedelta(minutes=next(minute)))
                case "young":
                    touch(connection, order)
                case "assign":
                    assign_all(connection)
                case "purge":
                    purge_all(connection)
                case "walk":
                    ask(connection, "UPDATE events_head SET cluster = 1 WHERE cluster IS NOT NULL")
            for position, owner, number in feed(connection):
                assert seen.setdefault(position, (str(owner), number)) == (str(owner), number)
        ((count,),) = ask(connection, "SELECT count(*) FROM order_events")
        assert sorted(seen) == list(range(1, count + 1))
        assert len(set(seen.values())) == count


def test_a_relay_that_begins_later_begins_with_what_is_kept(connection: Connection) -> None:
    make_events(connection, old=5, young=2)
    purge_all(connection)
    batch = take(connection, Taker("nats", "x", uuid4(), load_workflow(None), "/orders"))
    assert batch is not None
    assert (batch.begin, batch.end) == (5, 7)
    assert [event.position for event in batch.events] == [6, 7]
