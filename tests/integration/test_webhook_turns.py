"""Ticks and records of endpoints at a real PostgreSQL: what is taken, what becomes of it, and who is told."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from orders.events.assign_sql import assign
from orders.postgres.database import Connection, connect
from orders.webhooks import tick_sql
from orders.webhooks.model import DisabledReason, Message, Result
from orders.webhooks.purge_sql import purge
from orders.webhooks.record_sql import record
from orders.webhooks.schedule import PROBE_AFTER
from orders.webhooks.secrets_sql import keep_secret, signing_keys
from orders.webhooks.signing import Sealing, SignatureKind, new_key
from orders.webhooks.tick_sql import endpoints_to_tick, read_enabled, tick
from tests.conftest import ask
from tests.integration.test_assigning import make_orders, touch
from tests.receiver import SECRET, add_webhook

RETRIES = (0.0, 0.0, 3600.0)


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(dsn)) as connection:
        yield connection


def fed(connection: Connection, orders: int, events: int = 1, **columns: Any) -> tuple[UUID, list[str]]:
    """An endpoint, and some orders whose events are in the feed behind its position."""
    assign_all(connection)
    ((position,),) = ask(connection, "SELECT coalesce(max(position), 0) FROM events")
    made = make_orders(connection, orders, events)
    assign_all(connection)
    return add_webhook(connection, "https://shop.example/", position=position, **columns), made


def assign_all(connection: Connection) -> None:
    while (done := assign(connection)) is None or done.given or done.is_walking:
        pass


def ended(message: Message, status: int | None = 200, **more: Any) -> Result:
    return Result(message, datetime.now(UTC), 5, status, **more)


def row(connection: Connection, webhook_id: UUID, columns: str) -> tuple[Any, ...]:
    return ask(connection, f"SELECT {columns} FROM webhooks WHERE id = %s", (str(webhook_id),))[0]


def delivery(connection: Connection, message: Message, columns: str) -> tuple[Any, ...]:
    return ask(connection, f"SELECT {columns} FROM webhook_deliveries WHERE id = %s", (message.delivery_id,))[0]


def test_of_each_order_one_event_at_a_time_is_taken(connection: Connection) -> None:
    webhook_id, orders = fed(connection, 3, events=2)
    first = tick(connection, webhook_id)
    assert sorted((str(one.order_id), one.number) for one in first) == [(order, 2) for order in orders]
    assert tick(connection, webhook_id) == []
    record(connection, webhook_id, [ended(first[0]), ended(first[1], 500)], RETRIES)
    second = tick(connection, webhook_id)
    assert sorted((one.order_id, one.number, one.attempt) for one in second) == sorted(
        [(first[0].order_id, 3, 1), (first[1].order_id, 2, 2)]
    )


def test_without_ordering_as_many_as_fit_are_taken(connection: Connection) -> None:
    webhook_id, _ = fed(connection, 1, events=10, ordering="none", concurrency=4)
    first = tick(connection, webhook_id)
    assert len(first) == 4
    assert tick(connection, webhook_id) == []
    record(connection, webhook_id, [ended(one) for one in first[:3]], RETRIES)
    assert len(tick(connection, webhook_id)) == 3


def test_after_the_last_attempt_the_next_event_of_the_order_goes(connection: Connection) -> None:
    webhook_id, _ = fed(connection, 1, events=2)
    for attempt in (1, 2):
        (message,) = tick(connection, webhook_id)
        assert (message.number, message.attempt) == (2, attempt)
        record(connection, webhook_id, [ended(message, 500, reply="no")], RETRIES[:2])
    assert delivery(connection, message, "state, attempts, last_status, last_reply") == ("failed", 2, 500, "no")
    assert [one.number for one in tick(connection, webhook_id)] == [3]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["*"], ["order.changed", "order.failed", "order.moved"]),
        (["order.*"], ["order.changed", "order.moved"]),
        (["order.moved", "order.placed"], ["order.moved"]),
        (["webhook.*"], []),
    ],
)
def test_an_endpoint_gets_the_types_that_it_wants(
    types: list[str], expected: list[str], connection: Connection
) -> None:
    assign_all(connection)
    webhook_id, (order,) = fed(connection, 1, 0, types=types, ordering="none")
    for number, kind in enumerate(("failed", "moved", "changed"), 2):
        ask(
            connection,
            "INSERT INTO order_events (order_id, number, type, actor) VALUES (%s, %s, %s, 'test')",
            (order, number, kind),
        )
    assign_all(connection)
    assert sorted(one.type for one in tick(connection, webhook_id)) == expected
    present = read_enabled(connection, webhook_id)
    assert present
    assert not present.is_behind


def test_an_endpoint_of_a_channel_gets_that_channels_events(connection: Connection) -> None:
    webhook_id, orders = fed(connection, 3, channel="web")
    ask(connection, "UPDATE orders SET channel = 'web' WHERE id = %s", (orders[1],))
    assert {str(one.order_id) for one in tick(connection, webhook_id)} == {orders[1]}


def test_events_wait_in_the_feed_while_too_many_deliveries_wait(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick_sql, "STRIDE", 3)
    monkeypatch.setattr(tick_sql, "MAX_WAITING", 5)
    webhook_id, _ = fed(connection, 10, concurrency=1)
    first = [one for _ in range(5) for one in tick(connection, webhook_id)]
    assert ask(connection, "SELECT count(*) FROM webhook_deliveries") == [(6,)]
    record(connection, webhook_id, [ended(one) for one in first], RETRIES)
    seen = list(first)
    while taken := tick(connection, webhook_id):
        seen += taken
        record(connection, webhook_id, [ended(one) for one in taken], RETRIES)
    assert len({one.id for one in seen}) == 10


def test_while_another_replica_is_at_it_nothing_is_taken(dsn: str, connection: Connection) -> None:
    webhook_id, _ = fed(connection, 1)
    with contextlib.closing(connect(dsn)) as other:
        ask(other, "BEGIN; SELECT FROM webhooks FOR NO KEY UPDATE")
        assert tick(connection, webhook_id) == []
        ask(other, "COMMIT")
    assert len(tick(connection, webhook_id)) == 1


def test_a_lost_attempt_is_due_again_and_its_late_failure_counts_no_more(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_id, _ = fed(connection, 1)
    monkeypatch.setattr(tick_sql, "LEASE_S", 0.0)
    (lost,) = tick(connection, webhook_id)
    monkeypatch.setattr(tick_sql, "LEASE_S", 60.0)
    (again,) = tick(connection, webhook_id)
    assert (again.id, again.attempt) == (lost.id, 2)
    record(connection, webhook_id, [ended(lost, 500)], RETRIES)
    assert delivery(connection, again, "state, attempts") == ("sending", 2)
    assert row(connection, webhook_id, "failed_in_row, failing_since") == (0, None)
    record(connection, webhook_id, [ended(again)], RETRIES)
    assert delivery(connection, again, "state") == ("delivered",)


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_lost_attempt_that_succeeded_counts_whenever_that_is_known(
    is_alone: bool, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_id, _ = fed(connection, 2)
    monkeypatch.setattr(tick_sql, "LEASE_S", 0.0)
    lost, other = tick(connection, webhook_id)
    monkeypatch.setattr(tick_sql, "LEASE_S", 60.0)
    again = next(one for one in tick(connection, webhook_id) if one.id == lost.id)
    record(connection, webhook_id, [ended(lost)] if is_alone else [ended(lost), ended(other, 500)], RETRIES)
    record(connection, webhook_id, [ended(again, 500)], RETRIES)
    assert delivery(connection, lost, "state, last_status") == ("delivered", 200)


@pytest.mark.parametrize("state", ["waiting", "failed"])
def test_a_late_success_counts_whatever_became_of_the_delivery_meanwhile(state: str, connection: Connection) -> None:
    webhook_id, _ = fed(connection, 1)
    (lost,) = tick(connection, webhook_id)
    ask(connection, "UPDATE webhook_deliveries SET state = %s", (state,))
    record(connection, webhook_id, [ended(lost, 204)], RETRIES)
    assert delivery(connection, lost, "state, last_status") == ("delivered", 204)
    assert tick(connection, webhook_id) == []


def test_recording_twice_is_recording_once(connection: Connection) -> None:
    webhook_id, _ = fed(connection, 3)
    results = [ended(one, 500, reply="no") for one in tick(connection, webhook_id)]
    for _ in range(2):
        record(connection, webhook_id, results, RETRIES)
    assert row(connection, webhook_id, "failed_in_row") == (3,)
    assert ask(connection, "SELECT count(*), min(status), max(reply) FROM webhook_attempts") == [(3, 500, "no")]


def test_a_deleted_endpoint_takes_its_deliveries_with_it(connection: Connection) -> None:
    webhook_id, _ = fed(connection, 2)
    one, other = tick(connection, webhook_id)
    ask(connection, "DELETE FROM webhooks")
    record(connection, webhook_id, [ended(one)], RETRIES)
    record(connection, webhook_id, [ended(other, 500)], RETRIES)
    assert tick(connection, webhook_id) == []
    assert read_enabled(connection, webhook_id) is None
    assert ask(connection, "SELECT FROM webhook_deliveries") == []


def test_a_failing_endpoint_is_probed_with_one_delivery_at_a_time(connection: Connection) -> None:
    webhook_id, _ = fed(connection, 20)
    first = tick(connection, webhook_id)
    record(connection, webhook_id, [ended(one, 500) for one in first], RETRIES)
    assert tick(connection, webhook_id) == []
    assert endpoints_to_tick(connection) == []
    failed_in_row, is_slow = row(connection, webhook_id, "failed_in_row, slow_until > now()")
    assert failed_in_row >= PROBE_AFTER
    assert is_slow
    ask(connection, "UPDATE webhooks SET slow_until = now()")
    assert endpoints_to_tick(connection) == [webhook_id]
    (probe,) = tick(connection, webhook_id)
    assert tick(connection, webhook_id) == []
    record(connection, webhook_id, [ended(probe)], RETRIES)
    assert row(connection, webhook_id, "failed_in_row, failing_since, told_until") == (0, None, None)
    assert len(tick(connection, webhook_id)) == 8


def test_a_pause_that_was_asked_for_holds_while_others_succeed(connection: Connection) -> None:
    webhook_id, _ = fed(connection, 20)
    one, other, *rest = tick(connection, webhook_id)
    record(connection, webhook_id, [ended(one, 429, retry_after_s=100.0)], RETRIES)
    record(connection, webhook_id, [ended(other)], RETRIES)
    record(connection, webhook_id, [ended(rest[0]), ended(rest[1], 500)], RETRIES)
    ((paused_s,),) = ask(connection, "SELECT extract(epoch FROM slow_until - now())::float8 FROM webhooks")
    assert 90 < paused_s <= 100
    assert tick(connection, webhook_id) == []


def make_failing(
    connection: Connection, webhook_id: UUID, failing: timedelta, told: timedelta, failed: int = 30
) -> None:
    ask(
        connection,
        """UPDATE webhooks SET failed_in_row = %s, failing_since = now() - %s, told_until = now() - %s,
                               slow_until = now()
           WHERE id = %s""",
        (failed, failing, told, str(webhook_id)),
    )


def notices(connection: Connection) -> list[tuple[str, str]]:
    rows = ask(connection, "SELECT webhook_id::text, type FROM webhook_deliveries WHERE notice IS NOT NULL ORDER BY 1")
    return [(webhook_id, kind) for webhook_id, kind in rows]


@pytest.mark.parametrize(
    ("failing", "told", "is_told"),
    [
        (timedelta(minutes=59), timedelta(minutes=1), False),
        (timedelta(minutes=61), timedelta(minutes=2), True),
        (timedelta(minutes=70), timedelta(minutes=2), False),
        (timedelta(hours=24, minutes=1), timedelta(minutes=2), True),
        (timedelta(hours=25), timedelta(hours=24, minutes=30), True),
        (timedelta(hours=30), timedelta(minutes=2), False),
    ],
)
def test_the_others_are_told_once_after_an_hour_and_once_after_a_day(
    failing: timedelta, told: timedelta, is_told: bool, connection: Connection
) -> None:
    webhook_id, _ = fed(connection, 3, types=["*", "webhook.*"])
    listener = add_webhook(connection, "https://a.example/", types=["webhook.*"], position=10**9)
    exact = add_webhook(connection, "https://b.example/", types=["webhook.failing"], position=10**9)
    add_webhook(connection, "https://c.example/", types=["order.*", "webhook.disabled"], position=10**9)
    add_webhook(connection, "https://d.example/", types=["webhook.*"], position=10**9, channel="web")
    off = add_webhook(connection, "https://e.example/", types=["webhook.*"], position=10**9)
    ask(connection, "UPDATE webhooks SET status = 'disabled', disabled_reason = 'asked' WHERE id = %s", (str(off),))
    make_failing(connection, webhook_id, failing, told)
    (probe,) = tick(connection, webhook_id)
    done = record(connection, webhook_id, [ended(probe, 500)], RETRIES)
    assert done.notices == (("webhook.failing",) if is_told else ())
    expected = [(str(one), "webhook.failing") for one in (listener, exact)] if is_told else []
    assert notices(connection) == sorted(expected)
    ask(connection, "UPDATE webhooks SET slow_until = now()")
    (probe,) = tick(connection, webhook_id)
    record(connection, webhook_id, [ended(probe, 500)], RETRIES)
    assert notices(connection) == sorted(expected), "told once"


@pytest.mark.parametrize(
    ("failing", "failed", "reason"),
    [
        (timedelta(hours=71), 500, None),
        (timedelta(hours=73), 5, None),
        (timedelta(hours=73), 19, DisabledReason.FAILING),
    ],
)
def test_an_endpoint_that_failed_for_three_days_is_disabled_and_loses_nothing(
    failing: timedelta, failed: int, reason: DisabledReason | None, connection: Connection
) -> None:
    webhook_id, _ = fed(connection, 3)
    listener = add_webhook(connection, "https://a.example/", types=["webhook.*"], position=10**9, channel=None)
    make_failing(connection, webhook_id, failing, timedelta(0), failed)
    (probe,) = tick(connection, webhook_id)
    assert record(connection, webhook_id, [ended(probe, 500)], RETRIES).disabled == reason
    is_disabled = reason is not None
    assert row(connection, webhook_id, "status, disabled_reason") == (
        ("disabled", "failing") if is_disabled else ("enabled", None)
    )
    assert notices(connection) == ([(str(listener), "webhook.disabled")] if is_disabled else [])
    assert ask(
        connection,
        "SELECT count(*) FROM webhook_deliveries WHERE webhook_id = %s AND state = 'waiting'",
        (str(webhook_id),),
    ) == [(3,)]
    if is_disabled:
        (notice,) = tick(connection, listener)
        assert (notice.type, notice.order_id, notice.attempt) == ("webhook.disabled", None, 1)
        data = json.loads(notice.notice or "")
        assert data["webhook_id"] == str(webhook_id)
        assert data["disabled_reason"] == "failing"
        assert "url" not in data


def test_two_endpoints_that_tell_of_each_other_do_not_wait_for_each_other(dsn: str, connection: Connection) -> None:
    one, _ = fed(connection, 1)
    other = add_webhook(connection, "https://a.example/", position=10**9)
    with contextlib.closing(connect(dsn)) as second:
        ask(second, "BEGIN; SET LOCAL lock_timeout = '3s'")
        ask(second, "SELECT FROM webhooks WHERE id = %s FOR NO KEY UPDATE", (str(other),))
        notice = "INSERT INTO webhook_deliveries (webhook_id, type, notice) VALUES (%s, 'webhook.failing', '{}')"
        ask(second, notice, (str(one),))
        ask(connection, "SET lock_timeout = '3s'")
        make_failing(connection, one, timedelta(hours=80), timedelta(0))
        (probe,) = tick(connection, one)
        record(connection, one, [ended(probe, 410)], RETRIES)
        ask(second, "ROLLBACK")
    assert notices(connection) == [(str(other), "webhook.disabled")]


def test_old_deliveries_are_purged_but_never_what_waits(connection: Connection) -> None:
    webhook_id, _ = fed(connection, 4, events=2)
    one, other, *_ = tick(connection, webhook_id)
    record(connection, webhook_id, [ended(one), ended(other, 500)], RETRIES[:1])
    assert purge(connection, 30) is False
    assert len(ask(connection, "SELECT FROM webhook_deliveries")) == 8
    ask(connection, "UPDATE webhook_deliveries SET created_at = now() - interval '31 days'")
    assert purge(connection, 30) is False
    assert len(ask(connection, "SELECT FROM webhook_deliveries")) == 8, "they ended a moment ago"
    ask(connection, "UPDATE webhook_deliveries SET last_at = created_at")
    assert purge(connection, 30) is False
    assert ask(connection, "SELECT state, count(*)::integer FROM webhook_deliveries GROUP BY 1 ORDER BY 1") == [
        ("sending", 2),
        ("waiting", 4),
    ]
    assert ask(connection, "SELECT FROM webhook_attempts") == []


def test_several_secrets_sign_during_a_rotation_and_only_then(connection: Connection) -> None:
    webhook_id, _ = fed(connection, 0)
    sealing = Sealing(SECRET)
    second, third = new_key(SignatureKind.V1), new_key(SignatureKind.V1A)
    (first,) = signing_keys(connection, [webhook_id], sealing)[webhook_id]
    with connection.cursor() as cursor:
        keep_secret(cursor, webhook_id, second, sealing, timedelta(hours=1))
        assert signing_keys(connection, [webhook_id], sealing)[webhook_id] == [second, first]
        keep_secret(cursor, webhook_id, third, sealing, timedelta(0))
    assert signing_keys(connection, [webhook_id], sealing)[webhook_id] == [third, first]
    ask(connection, "UPDATE webhook_secrets SET signs_until = now() WHERE signs_until IS NOT NULL")
    assert signing_keys(connection, [webhook_id], sealing)[webhook_id] == [third]
    assert signing_keys(connection, [webhook_id], Sealing("another secret of this service")) == {}


def test_an_endpoint_passes_by_what_it_does_not_want(connection: Connection) -> None:
    webhook_id, (order,) = fed(connection, 1, types=["order.placed"])
    touch(connection, order)
    assign_all(connection)
    before = row(connection, webhook_id, "position")
    assert tick(connection, webhook_id) == []
    assert row(connection, webhook_id, "position") > before
    assert endpoints_to_tick(connection) == []
