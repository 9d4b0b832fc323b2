"""The assigner on a real PostgreSQL: transactions of every length and order, several assigners, walks."""

import contextlib
import itertools
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import hypothesis
import psycopg2.extensions
import pytest
from alembic import command
from hypothesis import strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orders.events.assign_sql import assign
from orders.events.feed_sql import read_feed, read_head
from orders.events.wanted import Wanted
from orders.postgres import database
from orders.postgres.database import Connection, connect
from orders.principal import Seer
from orders.startup import install_functions
from tests.conftest import ask

Feed = list[tuple[int, UUID, int]]


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(dsn)) as connection:
        yield connection


def make_orders(connection: Connection, count: int, events: int = 0) -> list[str]:
    """Orders with the version 1 and no event, or with the first so many events."""
    orders = sorted(str(uuid4()) for _ in range(count))
    ask(
        connection,
        """INSERT INTO orders (id, customer_id, status, total, placed_at, version)
           SELECT id, 1, 'Ordered', 1, now(), %s FROM unnest(%s::uuid[]) id""",
        (events + 1, orders),
    )
    ask(
        connection,
        """INSERT INTO order_events (order_id, number, type, actor)
           SELECT id, number, 'changed', 'test' FROM unnest(%s::uuid[]) id, generate_series(2, %s) number""",
        (orders, events + 1),
    )
    return orders


TOUCH = "UPDATE orders SET version = version + 1, updated_at = %s WHERE id = %s"
"""A change that a trigger writes an event of, like those of an older replica, and of a person in psql."""


def touch(connection: Connection, order: str, at: datetime | None = None) -> None:
    ask(connection, TOUCH, (at or datetime.now(UTC), order))


def feed(connection: Connection) -> Feed:
    rows = ask(connection, "SELECT position, order_id, number FROM events ORDER BY position")
    return [(position, UUID(order), number) for position, order, number in rows]


def assign_all(connection: Connection, **sizes: int) -> int:
    """Rounds until there is no more to do; how many there were. The round that ends a walk does not look behind it."""
    for count in itertools.count(1):
        ((was_walking,),) = ask(connection, "SELECT walked_order IS NOT NULL FROM events_head")
        done = assign(connection, **sizes)
        assert done is not None
        if not (done.is_walking or done.given or was_walking):
            return count
    raise AssertionError


def check(connection: Connection) -> None:
    """The feed has each committed event once, in dense positions, and each order's in their order."""
    found = feed(connection)
    positions = [position for position, _, _ in found]
    assert positions == list(range(positions[0], positions[0] + len(found))) if found else True
    events = ask(connection, "SELECT order_id, number FROM order_events")
    assert sorted((order, number) for _, order, number in found) == sorted((UUID(o), n) for o, n in events)
    assert_each_in_order(found)


def assert_each_in_order(found: Feed) -> None:
    latest: dict[UUID, int] = {}
    for _, order, number in found:
        assert number > latest.get(order, 0), f"{order}: {number} behind {latest[order]}"
        latest[order] = number


def test_an_idle_round_writes_nothing(connection: Connection) -> None:
    make_orders(connection, 3, events=2)
    assign_all(connection)
    before = ask(connection, "SELECT ctid, xmin, position FROM events_head")
    ask(connection, "SELECT pg_current_xact_id()")  # somebody else's transaction
    assert assign_all(connection) == 1
    assert ask(connection, "SELECT ctid, xmin, position FROM events_head") == before


def test_a_transaction_that_stays_open_delays_only_its_own_events(dsn: str, connection: Connection) -> None:
    early, later = make_orders(connection, 2)
    assign_all(connection)
    with contextlib.closing(psycopg2.connect(dsn)) as slow:
        touch(slow, early)
        for count in range(1, 4):
            touch(connection, later)
            assign_all(connection)
            assert [number for _, order, number in feed(connection)] == list(range(2, 2 + count))
        slow.commit()
    assign_all(connection)
    assert feed(connection)[-1][1:] == (UUID(early), 2)
    check(connection)


def test_who_took_a_number_first_and_commits_last_is_found(dsn: str, connection: Connection) -> None:
    """Sorted by the transaction's number, event 3 of the order would come before event 2."""
    first, order = make_orders(connection, 2)
    assign_all(connection)
    with contextlib.closing(psycopg2.connect(dsn)) as bulk:
        touch(bulk, first)  # has its number now
        touch(connection, order)
        touch(bulk, order)
        bulk.commit()
    assign_all(connection)
    assert [number for _, of, number in feed(connection) if of == UUID(order)] == [2, 3]
    check(connection)


def test_an_older_replica_writes_beside_the_migration_and_after_it(empty_dsn: str) -> None:
    """It knows nothing of the feed. One of its transactions began before there was one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "upgrade", lambda config, _, upgrade=command.upgrade: upgrade(config, "0008"))
        database.migrate(empty_dsn)
    with contextlib.closing(connect(empty_dsn)) as connection, contextlib.closing(psycopg2.connect(empty_dsn)) as old:
        orders = make_orders(connection, 3, events=2)
        ask(old, "SELECT pg_current_xact_id()")
        database.migrate(empty_dsn)
        install_functions(empty_dsn)
        assign_all(connection, stride=2)
        assert len(feed(connection)) == 6
        touch(old, orders[0])
        touch(connection, orders[1])
        assign_all(connection)
        assert len(feed(connection)) == 7
        old.commit()
        assign_all(connection)
        check(connection)


def test_a_round_with_too_many_events_becomes_a_walk(connection: Connection) -> None:
    make_orders(connection, 50, events=3)
    assert assign_all(connection, most=20, stride=7) >= 150 // 7
    check(connection)


def test_what_is_committed_behind_a_walk_is_found_when_it_is_over(connection: Connection) -> None:
    orders = make_orders(connection, 20, events=1)
    ask(connection, "UPDATE events_head SET cluster = -1")
    while (done := assign(connection, stride=3)) and done.is_walking:
        touch(connection, orders[0])
        touch(connection, orders[-1])
    assign_all(connection)
    check(connection)


def test_a_snapshot_from_the_future_is_another_servers(connection: Connection) -> None:
    """A copy of the server's files has its name, and goes on with transactions of its own."""
    orders = make_orders(connection, 5)
    assign_all(connection)
    ask(connection, "UPDATE events_head SET seen = pg_snapshot (pg_snapshot_xmax(seen)::text::bigint + 1000 || ':'"
                    " || pg_snapshot_xmax(seen)::text::bigint + 1000 || ':')")  # fmt: skip
    touch(connection, orders[0])
    assert assign_all(connection) > 1
    check(connection)


def test_assigners_at_once_and_writers_in_each_others_way(dsn: str, connection: Connection) -> None:
    """Transactions of several orders and lengths, with savepoints, some rolled back; one is open all the while."""
    orders = make_orders(connection, 12)
    patient, *_ = make_orders(connection, 1)
    assign_all(connection)
    chance = random.Random(4)
    over = threading.Event()
    failures: list[BaseException] = []
    with contextlib.closing(psycopg2.connect(dsn)) as slow:
        touch(slow, patient)
        seeds = [chance.random() for _ in range(4)]
        writers = [_thread(failures, _write, dsn, orders, random.Random(seed)) for seed in seeds]
        others = [_thread(failures, _assign_until, dsn, over) for _ in range(2)]
        others.append(_thread(failures, _read_until, dsn, over))
        for writer in writers:
            writer.join()
        over.set()
        for other in others:
            other.join()
        assert failures == []
        assign_all(connection)
        check(connection)  # while it is still open
        slow.commit()
    assign_all(connection)
    check(connection)


def _thread(failures: list[BaseException], work: Any, *arguments: Any) -> threading.Thread:
    def run() -> None:
        try:
            work(*arguments)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _write(dsn: str, orders: list[str], chance: random.Random) -> None:
    with contextlib.closing(psycopg2.connect(dsn)) as connection:
        for _ in range(80):
            for order in sorted(chance.sample(orders, chance.randint(1, 5))):
                ask(connection, "SAVEPOINT here")
                touch(connection, order)
                if chance.random() < 0.2:
                    ask(connection, "ROLLBACK TO here")
            if chance.random() < 0.15:
                connection.rollback()
            else:
                connection.commit()


def _assign_until(dsn: str, over: threading.Event) -> None:
    with contextlib.closing(connect(dsn)) as connection:
        while not over.is_set():
            done = assign(connection)
            assert done is None or not done.is_walking


def _read_until(dsn: str, over: threading.Event) -> None:
    """A reader who goes on from where it was meets every position, and each order's events in their order."""
    with contextlib.closing(connect(dsn)) as connection:
        ((position,),) = ask(connection, "SELECT position FROM events_head")
        seen: Feed = []
        while not over.is_set():
            page = ask(connection, "SELECT position, order_id, number FROM events WHERE position > %s"
                                   " ORDER BY position LIMIT 50", (position,))  # fmt: skip
            assert [place for place, _, _ in page] == list(range(position + 1, position + 1 + len(page)))
            seen += page
            position += len(page)
        assert_each_in_order(seen)


def test_no_interleaving_loses_or_doubles_an_event(dsn: str) -> None:
    """Hypothesis searches: three writers in all states, among them prepared transactions where the server has them."""
    machine = type("Assigning", (_Interleaving,), {"dsn": dsn})
    run_state_machine_as_test(
        machine,
        settings=hypothesis.settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
        ),
    )


WRITERS = strategies.integers(0, 2)
ORDERS = strategies.integers(0, 3)
TIMES = strategies.integers(-5, 5).map(lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes))


class _Interleaving(RuleBasedStateMachine):
    """Writers that hold transactions open, and an assigner that comes at any moment."""

    dsn: str

    @initialize()
    def begin(self) -> None:
        self.assigner = connect(self.dsn)
        self.writers = [psycopg2.connect(self.dsn) for _ in range(3)]
        self.orders = make_orders(self.assigner, 4)
        self.locked: dict[int, int] = {}  # order: the writer that has it
        self.savepoints: dict[int, set[int]] = {}  # writer: the orders it had locked at the savepoint
        self.prepared: dict[str, set[int]] = {}  # name: its orders
        self.names = (f"{uuid4()}" for _ in itertools.count())
        ((most,),) = ask(self.assigner, "SHOW max_prepared_transactions")
        self.can_prepare = int(most) > 0

    def teardown(self) -> None:
        for writer in self.writers:
            writer.close()
        for name in self.prepared:
            ask(self.assigner, f"ROLLBACK PREPARED '{name}'")
        self.assigner.close()

    @rule(writer=WRITERS, order=ORDERS, at=TIMES)
    def write(self, writer: int, order: int, at: datetime) -> None:
        if self.locked.setdefault(order, writer) == writer:
            touch(self.writers[writer], self.orders[order], at)

    @rule(writer=WRITERS)
    def take_a_transaction_number(self, writer: int) -> None:
        ask(self.writers[writer], "SELECT pg_current_xact_id()")

    @rule(writer=WRITERS)
    def save(self, writer: int) -> None:
        ask(self.writers[writer], "SAVEPOINT here")
        self.savepoints[writer] = self._of(writer)

    @rule(writer=WRITERS)
    def go_back(self, writer: int) -> None:
        if writer in self.savepoints:
            ask(self.writers[writer], "ROLLBACK TO here")
            self._free(self._of(writer) - self.savepoints[writer])

    @rule(writer=WRITERS, keep=strategies.booleans())
    def end(self, writer: int, keep: bool) -> None:
        self.writers[writer].commit() if keep else self.writers[writer].rollback()
        self.savepoints.pop(writer, None)
        self._free(self._of(writer))

    @precondition(lambda self: self.can_prepare and len(self.prepared) < 5)
    @rule(writer=WRITERS)
    def prepare(self, writer: int) -> None:
        if self.writers[writer].info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_INTRANS:
            return
        name = next(self.names)
        ask(self.writers[writer], f"PREPARE TRANSACTION '{name}'")
        self.writers[writer].reset()
        self.savepoints.pop(writer, None)
        self.prepared[name] = self._of(writer)
        for order in self.prepared[name]:
            self.locked[order] = -1

    @precondition(lambda self: self.prepared)
    @rule(keep=strategies.booleans())
    def end_prepared(self, keep: bool) -> None:
        name, orders = self.prepared.popitem()
        ask(self.assigner, f"{'COMMIT' if keep else 'ROLLBACK'} PREPARED '{name}'")
        self._free(orders)

    @rule()
    def find_the_server_changed(self) -> None:
        ask(self.assigner, "UPDATE events_head SET cluster = -1")

    @rule(most=strategies.integers(1, 4), stride=strategies.integers(1, 4))
    def assign_one_round(self, most: int, stride: int) -> None:
        assert assign(self.assigner, most, stride) is not None

    @rule()
    def assign_until_all_have_a_position(self) -> None:
        assign_all(self.assigner, most=5, stride=200)
        check(self.assigner)

    @invariant()
    def each_order_is_in_order(self) -> None:
        if hasattr(self, "assigner"):
            assert_each_in_order(feed(self.assigner))

    def _of(self, writer: int) -> set[int]:
        return {order for order, by in self.locked.items() if by == writer}

    def _free(self, orders: set[int]) -> None:
        for order in orders:
            del self.locked[order]


# The cost of a round, and pages of the feed ----------------------------------------------------------------------


@pytest.mark.parametrize("postgres", ["embedded_server"], indirect=True)
def test_a_round_reads_no_more_when_there_are_many_events_and_many_rounds_before(dsn: str) -> None:
    """A transaction is open that keeps every version of the head from being cleaned away."""
    with contextlib.closing(connect(dsn)) as connection, contextlib.closing(psycopg2.connect(dsn)) as patient:
        orders = make_orders(connection, 2000, events=5)
        assign_all(connection)
        ask(connection, "ANALYZE order_events; ANALYZE events; ANALYZE events_head")
        patient.set_session(isolation_level="REPEATABLE READ")
        ask(patient, "SELECT count(*) FROM events_head")
        for _ in range(500):
            touch(connection, orders[0])
            assign(connection)
        before = blocks_read(connection)
        for _ in range(20):
            touch(connection, orders[1])
            assign(connection)
        assert blocks_read(connection) - before < 20 * 60


def blocks_read(connection: Connection) -> int:
    ask(connection, "SELECT pg_stat_force_next_flush()")
    ask(connection, "SELECT pg_stat_clear_snapshot()")
    ((count,),) = ask(
        connection,
        """SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit) FROM pg_statio_user_tables
           WHERE relname IN ('events', 'events_head', 'order_events')""",
    )
    return int(count)


def test_a_large_page_ends_early_and_loses_nothing(connection: Connection) -> None:
    (order,) = make_orders(connection, 1, events=30)
    ask(connection, "UPDATE order_events SET note = repeat('x', 300000) WHERE order_id = %s", (order,))
    assign_all(connection)
    wanted = Wanted(limit=1000)
    ((start,),) = ask(connection, "SELECT min(position) - 1 FROM events")
    numbers: list[int] = []
    wanted, pages = replace(wanted, after=start), 0
    while (page := read_feed(connection, wanted)).events:
        assert sum(map(len, page.events)) <= 4 * 1024 * 1024
        numbers += [json.loads(event)["number"] for event in page.events]
        wanted, pages = replace(wanted, after=page.end), pages + 1
    assert numbers == list(range(2, 32))
    assert pages == 3


def test_a_reader_sees_the_events_of_its_channel_and_no_private_note(connection: Connection) -> None:
    web, other = make_orders(connection, 2, events=1)
    ask(connection, "UPDATE orders SET channel = 'web' WHERE id = %s", (web,))
    notes = '{"notes": {"public": "a", "private": "b"}}'
    ask(connection, "UPDATE order_events SET before = %s, note = 'why', actor = 'anna'", (notes,))
    assign_all(connection)
    ((start,),) = ask(connection, "SELECT min(position) - 1 FROM events")
    everything = [json.loads(event) for event in read_feed(connection, Wanted(start)).events]
    assert {event["order_id"] for event in everything} == {web, other}
    assert {event["before"]["notes"]["private"] for event in everything} == {"b"}
    bound = Wanted(start, seer=Seer(channel="web", sees_private=False))
    page = read_feed(connection, bound)
    (event,) = map(json.loads, page.events)
    assert (event["order_id"], event["channel"]) == (web, "web")
    assert event["before"]["notes"] == {"public": "a", "private": None}
    assert (event["note"], event["actor"]) == (None, "shop")
    assert page.end == page.head == start + 2
    assert read_feed(connection, replace(bound, seer=Seer(customer_id=2))).events == []
    assert len(read_feed(connection, Wanted(start, channel="web")).events) == 1


def test_the_head_says_how_late_the_feed_is(connection: Connection) -> None:
    (order,) = make_orders(connection, 1)
    assign_all(connection)
    assert read_head(connection).lag_s == 0
    touch(connection, order, datetime.now(UTC) - timedelta(seconds=100))
    late = read_head(connection).lag_s
    assert late is not None
    assert 100 <= late < 1000
    ask(connection, "UPDATE events_head SET cluster = -1")
    assign(connection)
    assert read_head(connection).lag_s is None
    assign_all(connection)
    assert read_head(connection).lag_s == 0
