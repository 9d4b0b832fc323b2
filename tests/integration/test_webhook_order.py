"""A search for a course of things in which an order's events are taken out of their order, or lost."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orders.events.assign_sql import assign
from orders.postgres.database import Connection, connect
from orders.webhooks.model import Message, Result
from orders.webhooks.record_sql import record
from orders.webhooks.tick_sql import tick
from tests.conftest import ask, empty
from tests.integration.test_assigning import make_orders, touch
from tests.receiver import add_webhook

ATTEMPTS = 3
LEASES_END = "UPDATE webhook_deliveries SET due_at = now() WHERE state = 'sending'"


class Sending(RuleBasedStateMachine):
    """One endpoint. Attempts are under way as long as chance wants, also beyond their lease."""

    connection: Connection

    @initialize(concurrency=st.integers(1, 4))
    def begin(self, concurrency: int) -> None:
        empty(self.connection)
        ask(self.connection, "SELECT 1")
        self.orders = make_orders(self.connection, 3, events=1)
        self.webhook_id = add_webhook(self.connection, "https://shop.example/", concurrency=concurrency)
        self.under_way: list[Message] = []
        self.expired: set[tuple[int, int]] = set()
        self.given_up: set[int] = set()
        self.arrived: list[Message] = []
        self.is_disabled = False

    @rule(order=st.integers(0, 2))
    def change(self, order: int) -> None:
        touch(self.connection, self.orders[order])

    @rule()
    def give_positions(self) -> None:
        assign(self.connection)

    @rule()
    def take(self) -> None:
        ask(self.connection, "UPDATE webhooks SET slow_until = NULL")
        taken = tick(self.connection, self.webhook_id)
        assert not (taken and self.is_disabled), "nothing is started after it was disabled"
        for message in taken:
            self.require_its_turn(message)
        self.under_way += taken

    def require_its_turn(self, message: Message) -> None:
        """All earlier events of the order have arrived, or were given up."""
        earlier = ask(
            self.connection,
            """SELECT id FROM webhook_deliveries WHERE order_id = %s AND position < %s
               AND state NOT IN ('delivered', 'failed')""",
            (str(message.order_id), message.position),
        )
        assert earlier == []
        others = [one for one in self.under_way if one.order_id == message.order_id and self.is_leased(one)]
        assert others == [], "of an order, one event is under way"

    def is_leased(self, message: Message) -> bool:
        return (message.delivery_id, message.attempt) not in self.expired

    @precondition(lambda self: self.under_way)
    @rule(which=st.lists(st.integers(0, 20), min_size=1, max_size=4), outcome=st.sampled_from(["ok", "fails", "lost"]))
    def end(self, which: list[int], outcome: str) -> None:
        """Some end together. Lost: it arrived, and the answer did not."""
        ended = [self.under_way.pop(n % len(self.under_way)) for n in which if self.under_way]
        if outcome != "fails":
            self.arrived += ended
        status = {"ok": 200, "fails": 500, "lost": None}[outcome]
        results = [Result(one, datetime.now(UTC), 1, status, None if status else "timed_out") for one in ended]
        record(self.connection, self.webhook_id, results, (0.0,) * ATTEMPTS)
        self.given_up |= {
            one for (one,) in ask(self.connection, "SELECT id FROM webhook_deliveries WHERE state = 'failed'")
        }

    @precondition(lambda self: self.under_way)
    @rule()
    def die(self) -> None:
        """The replica dies after its requests have arrived."""
        self.arrived += self.under_way
        self.under_way = []

    @rule()
    def leases_end(self) -> None:
        self.expired |= {(one.delivery_id, one.attempt) for one in self.under_way}
        ask(self.connection, LEASES_END)

    @rule()
    def disable_or_enable(self) -> None:
        self.is_disabled = not self.is_disabled
        ask(
            self.connection,
            "UPDATE webhooks SET status = %s, disabled_reason = %s",
            ("disabled", "asked") if self.is_disabled else ("enabled", None),
        )

    @invariant()
    def each_event_has_one_delivery(self) -> None:
        if hasattr(self, "webhook_id"):
            rows = ask(
                self.connection,
                """SELECT (SELECT count(*) FROM events e, webhooks w WHERE e.position <= w.position),
                          (SELECT count(*) FROM webhook_deliveries), (SELECT max(attempts) FROM webhook_deliveries)""",
            )
            assert rows[0][0] == rows[0][1]

    def teardown(self) -> None:
        """In the end everything arrives, in the order of each order."""
        if not hasattr(self, "webhook_id"):
            return
        ask(self.connection, "UPDATE webhooks SET status = 'enabled', disabled_reason = NULL")
        while (done := assign(self.connection)) is None or done.given or done.is_walking:
            pass
        self.finish()
        failed = ask(self.connection, "SELECT order_id::text, number FROM webhook_deliveries WHERE state = 'failed'")
        first = list(dict.fromkeys((str(one.order_id), one.number) for one in self.arrived))
        events = ask(self.connection, "SELECT order_id::text, number FROM order_events")
        assert {*first, *failed} == set(events)
        # An attempt at what was given up may arrive at any time.
        expected = [one for one in self.arrived if one.delivery_id not in self.given_up]
        for order in self.orders:
            numbers = list(dict.fromkeys(one.number for one in expected if str(one.order_id) == order))
            assert numbers == sorted(numbers, key=lambda n: n or 0)

    def finish(self) -> None:
        while (
            ask(self.connection, "SELECT FROM webhook_deliveries WHERE state IN ('waiting', 'sending')")
            or self.behind()
        ):
            ask(self.connection, LEASES_END)
            ask(self.connection, "UPDATE webhooks SET slow_until = NULL")
            taken = tick(self.connection, self.webhook_id)
            self.arrived += taken
            record(self.connection, self.webhook_id, [Result(one, datetime.now(UTC), 1, 200) for one in taken], (0.0,))

    def behind(self) -> list[Any]:
        return ask(self.connection, "SELECT FROM webhooks WHERE position < (SELECT max(position) FROM events)")


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(dsn)) as connection:
        yield connection


def test_no_course_of_things_mixes_up_or_loses_an_event(connection: Connection) -> None:
    class Here(Sending):
        pass

    Here.connection = connection
    settings = hypothesis.settings(
        max_examples=25,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(Here, settings=settings)  # type: ignore[no-untyped-call]
