"""When deliveries are tried again, and when endpoints are disabled."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.webhooks.schedule import (
    DISABLE_FAILURES,
    JITTER,
    MAX_PROBE_S,
    MAX_RETRY_AFTER_S,
    MIN_PROBE_S,
    PROBE_AFTER,
    Health,
    pause_s,
    probe_pause_s,
    retry_after_s,
)

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.integers(0, 20))
def test_each_pause_is_the_schedules_with_some_jitter(retries: list[float], attempts: int) -> None:
    pause = pause_s(retries, attempts)
    if attempts >= len(retries):
        assert pause is None
    else:
        assert pause == pytest.approx(retries[attempts], rel=JITTER + 1e-9)


@given(st.integers(PROBE_AFTER, 10**6), st.integers(0, 10**6), st.integers(0, 1000))
def test_probes_become_rarer_up_to_a_bound(failed: int, failing_s: int, later_s: int) -> None:
    health = Health(failed, NOW - timedelta(seconds=failing_s))
    later = NOW + timedelta(seconds=later_s)
    assert MIN_PROBE_S <= probe_pause_s(health, NOW) <= probe_pause_s(health, later) <= MAX_PROBE_S


def test_many_failures_at_once_are_followed_by_a_short_pause() -> None:
    assert probe_pause_s(Health(64, NOW), NOW) == MIN_PROBE_S
    assert probe_pause_s(Health(PROBE_AFTER - 1, NOW - timedelta(days=1)), NOW) == 0


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        (None, None),
        ("120", 120),
        (" 0 ", 0),
        ("999999999999", MAX_RETRY_AFTER_S),
        ("9" * 5000, MAX_RETRY_AFTER_S),
        ("Sat, 28 Nov 2026 12:01:00 GMT", 60),
        ("Sat, 28 Nov 2026 11:00:00 GMT", 0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("١٢", None),
        ("", None),
    ],
)
def test_retry_after_in_both_forms(header: str | None, pause: float | None) -> None:
    assert retry_after_s(header, NOW) == pause


def test_an_endpoint_is_disabled_after_three_days_and_twenty_failures() -> None:
    health = Health()
    for n in range(DISABLE_FAILURES):
        health = health.after_failure(NOW + timedelta(hours=n))
    assert not health.must_be_disabled(NOW + timedelta(hours=71))
    assert health.must_be_disabled(NOW + timedelta(hours=72))
    assert not Health(DISABLE_FAILURES - 1, NOW).must_be_disabled(NOW + timedelta(days=9))
    assert not Health().must_be_disabled(NOW)


def test_the_others_are_told_after_an_hour_and_after_a_day_once() -> None:
    health = Health(1, NOW)
    moments = [NOW + timedelta(minutes=20 * n) for n in range(100)]
    told = [health.notices(before, now) for before, now in itertools.pairwise(moments)]
    assert sum(told) == 2
    assert Health().notices(NOW, NOW + timedelta(days=9)) == 0
