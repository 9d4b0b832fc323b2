"""What a principal may ask for: the bucket, the requests at once, and what is kept of whom. Time is made up."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from orders.access.limiting import Limits
from orders.access.limits import BURST_S, DEBT_S, Allowance, Allowances, Excess, Policy
from orders.errors import Code, OrderError
from orders.principal import ALL_SCOPES, LOCAL, CustomerMay, Principal, PrincipalKind
from orders.settings import Settings
from orders.wire.addresses import Target
from orders.wire.gate import Asked, Check
from orders.wire.operations import OPERATIONS
from tests.unit.test_one_gate import app_with, ask

SHOP = Principal(PrincipalKind.KEY, "key:shop", "key:shop", ALL_SCOPES)
ANNA = Principal(PrincipalKind.CUSTOMER, "customer:1", "customer:1", frozenset(), customer_may=frozenset(CustomerMay))
SOON = st.floats(0, 2)
COST = st.sampled_from([1, 1, 1, 10])
LATER = st.sampled_from([0, 0, 0.1, 2, 51, 1000])


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# The bucket ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.lists(st.tuples(SOON, COST, LATER), max_size=60))
def test_whatever_is_asked_no_more_is_let_in_than_the_rate_allows(
    rate: int, asked: list[tuple[float, int, float]]
) -> None:
    """Each request costs 1 at least, so their number is bounded by the time; the last one may be larger than what was
    left, and a debt is waited off.
    """
    allowance, now, admitted = Allowance(Policy(rate, 10**6)), 5.0, 0
    for pause, cost, later in asked:
        now += pause
        excess = allowance.take(cost, now)
        if excess is None:
            admitted += 1
            allowance.charge(later, now)
        else:
            assert excess.policy == "default"
            assert 1 <= excess.retry_after_s <= DEBT_S + 1
            now += excess.retry_after_s
            assert allowance.take(1, now) is None, "whoever waits as told is let in"
            admitted += 1
        assert admitted <= BURST_S * rate + (now - 5.0) * rate + 0.001


@given(st.integers(1, 20), st.lists(st.tuples(SOON, st.floats(0, 1)), max_size=60))
def test_what_is_spent_in_all_stays_within_the_rate_and_one_debt(rate: int, asked: list[tuple[float, float]]) -> None:
    allowance, now, spent = Allowance(Policy(rate, 10**6)), 0.0, 0.0
    for pause, share in asked:
        now += pause
        if allowance.take(1, now) is None:
            later = share * DEBT_S * rate  # what is beyond that is not paid for
            allowance.charge(later, now)
            spent += 1 + later
        assert spent <= (BURST_S + DEBT_S + now) * rate + 0.001


def test_a_principal_that_rested_may_burst_and_then_asks_at_its_rate() -> None:
    allowance = Allowance(Policy(10, 10**6))
    assert [allowance.take(1, 7.0) for _ in range(30)] == [None] * 30
    assert allowance.take(1, 7.0) == Excess("default", 1)
    assert [allowance.take(1, 8.0) is None for _ in range(11)] == [True] * 10 + [False]
    assert [allowance.take(1, 900.0) is None for _ in range(31)] == [True] * 30 + [False]


def test_a_large_request_is_answered_and_the_next_one_waits_for_it() -> None:
    allowance = Allowance(Policy(10, 10**6))
    assert allowance.take(1, 0.0) is None
    allowance.charge(50, 0.0)  # 500 lines
    assert allowance.take(1, 0.0) == Excess("default", 3)  # 30 - 51 = -21, and 22 are missing
    assert allowance.take(1, 2.2) is None


def test_a_debt_is_bounded() -> None:
    allowance = Allowance(Policy(1, 10**6))
    assert allowance.take(1, 0.0) is None
    allowance.charge(10_000, 0.0)
    assert allowance.take(1, 0.0) == Excess("default", DEBT_S + 1)


def test_another_rate_is_no_new_bucket() -> None:
    """Two keys of one family may have two rates; to take turns with them gains nothing."""
    allowances, slow, fast = Allowances(), Policy(1, 64), Policy(5, 64)
    taken = 0
    for _ in range(100):
        for policy in (slow, fast):
            taken += allowances.of("key:shop", policy, 0.0).take(1, 0.0) is None
    assert taken <= fast.size


# Requests at once ----------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 70),
    st.lists(st.tuples(st.sampled_from(["begin", "grow", "end"]), COST, st.integers(0, 99)), max_size=80),
)
def test_no_more_is_under_way_than_allowed_and_all_room_comes_back(
    concurrency: int, steps: list[tuple[str, int, int]]
) -> None:
    policy = Policy(0, concurrency)
    allowance, under_way = Allowance(policy), list[int]()
    for step, cost, number in steps:
        which = number % len(under_way) if under_way else 0
        if step == "begin" and allowance.take(cost, 0.0) is None:
            under_way.append(cost)
        elif step == "grow" and under_way:
            if allowance.take_more(under_way[which], number, 0.0) is None:
                under_way[which] += number
            else:
                assert len(under_way) > 1, "whatever is alone has room"
        elif step == "end" and under_way:
            allowance.give_back(under_way.pop(which))
        assert allowance.in_flight == sum(min(each, max(1, concurrency // 4)) for each in under_way) <= concurrency
    for cost in under_way:
        allowance.give_back(cost)
    assert allowance.in_flight == 0
    assert allowance.is_idle(0.0)


def test_room_is_refused_only_if_there_is_none() -> None:
    allowance = Allowance(Policy(0, 64))
    assert [allowance.take(1, 0.0) for _ in range(4)] == [None] * 4
    assert [allowance.take_more(1, 500, 0.0) for _ in range(4)] == [None] * 4  # a quarter each
    assert allowance.take(1, 0.0) == Excess("in-flight", 1)
    allowance.give_back(501)
    assert [allowance.take(1, 0.0) is None for _ in range(17)] == [True] * 16 + [False]
    assert allowance.take_more(1, 0.5, 0.0) == Excess("in-flight", 1)


def test_what_is_refused_for_being_too_many_takes_nothing_from_the_bucket() -> None:
    allowance = Allowance(Policy(1, 1))
    assert allowance.take(1, 0.0) is None
    assert [allowance.take(1, 0.0) for _ in range(9)] == [Excess("in-flight", 1)] * 9
    allowance.give_back(1)
    assert [allowance.take(1, 0.0) is None for _ in range(2)] == [True, False]
    allowance.give_back(1)
    assert allowance.take(1, 0.0) is None


# What is kept --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 30), SOON, st.booleans()), max_size=200))
def test_nobody_is_forgotten_who_has_something_under_way_or_spent(steps: list[tuple[int, float, bool]]) -> None:
    """Beside allowances that are never forgotten, the same steps have the same outcomes."""
    allowances, remembered, now = Allowances(), dict[str, Allowance](), 0.0
    policy, under_way = Policy(1, 2), list[tuple[Allowance, Allowance]]()
    for who, pause, ends in steps:
        now += pause
        if ends and under_way:
            for each in under_way.pop(0):
                each.give_back(1)
        one, other = allowances.of(str(who), policy, now), remembered.setdefault(str(who), Allowance(policy))
        outcome = one.take(1, now)
        assert outcome == other.take(1, now)
        under_way += [] if outcome else [(one, other)]


def test_what_is_kept_is_bounded_by_who_asked_lately() -> None:
    allowances, now = Allowances(), 0.0
    for n in range(20_000):
        now += 0.01
        allowance = allowances.of(f"customer:{n}", Policy(10, 8), now)
        assert allowance.take(1, now) is None
        allowance.give_back(1)
        assert len(allowances) < 40  # each is full again after a tenth of a second


# The check -----------------------------------------------------------------------------------------------------------


def asked_by(principal: Principal | None, operation: str = "get_order") -> Asked:
    state = {} if principal is None else {"principal": principal}
    return Asked({"state": state}, "GET", {}, Target(OPERATIONS[operation]), {})


def limits(clock: Callable[[], float] = Clock(), **given: Any) -> Limits:  # noqa: B008
    return Limits(Settings(_env_file=None, **given), clock)


def headers_of(asked: Asked) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in asked.answer_headers}


def end(asked: Asked) -> None:
    assert asked.at_end is not None
    asked.at_end()


@pytest.mark.parametrize("principal", [None, LOCAL])
def test_whoever_has_no_owner_has_no_limits(principal: Principal | None) -> None:
    check = limits(orders_rate=1, orders_concurrency=1).check
    for _ in range(100):
        asked = asked_by(principal)
        assert check(asked) is None
        assert asked.answer_headers == []
        assert asked.at_end is None
        assert "limits" not in asked.scope["state"]


def test_a_key_has_no_rate_unless_one_is_set() -> None:
    asked = asked_by(SHOP)
    assert limits().check(asked) is None
    assert headers_of(asked) == {"ratelimit-policy": '"in-flight";q=64;qu="concurrent-requests"'}


def test_a_customer_is_told_what_is_left() -> None:
    check = limits(orders_customer_concurrency=3).check
    seen = [asked_by(ANNA) for _ in range(3)]
    assert [check(asked) for asked in seen] == [None] * 3
    policy = '"default";q=30;w=3, "in-flight";q=3;qu="concurrent-requests"'
    assert headers_of(seen[2]) == {"ratelimit-policy": policy, "ratelimit": '"default";r=27;t=1'}
    refused = asked_by(ANNA)
    error = check(refused)
    assert isinstance(error, OrderError)
    assert (error.code, error.extra, error.retry_after_s) == (
        Code.RATE_LIMITED,
        {"violated_policies": ["in-flight"]},
        1,
    )
    assert refused.at_end is None  # it has no room to give back
    assert headers_of(refused)["ratelimit-policy"] == policy


def test_the_header_says_what_is_left_after_a_large_request() -> None:
    check = limits().check
    asked = asked_by(ANNA)
    asked.answer_headers.append((b"other", b"1"))
    assert check(asked) is None
    asked.scope["state"]["limits"].charge(50)
    assert headers_of(asked)["ratelimit"] == '"default";r=0;t=6'
    assert headers_of(asked)["other"] == "1"
    assert isinstance(check(asked_by(ANNA)), OrderError)
    assert check(asked_by(replace(ANNA, owner="customer:2"))) is None


def test_a_keys_own_rate_wins() -> None:
    check = limits(orders_rate=1000).check
    answers = [check(asked_by(replace(SHOP, rate=2))) for _ in range(7)]
    assert [answer is None for answer in answers] == [True] * 6 + [False]
    assert answers[6] is not None
    assert answers[6].extra == {"violated_policies": ["default"]}


def test_exports_and_reports_count_for_several() -> None:
    check = limits(orders_concurrency=64).check
    under_way = [asked_by(SHOP, ("export_csv", "report_sales")[n % 2]) for n in range(6)]
    assert [check(asked) for asked in under_way] == [None] * 6
    assert isinstance(check(asked_by(SHOP, "export_ndjson")), OrderError)
    assert [check(asked_by(SHOP)) is None for _ in range(5)] == [True] * 4 + [False]
    end(under_way[0])
    assert check(asked_by(SHOP, "export_ndjson")) is None


def test_a_small_limit_still_lets_one_export_in() -> None:
    check = limits(orders_concurrency=1).check
    asked = asked_by(SHOP, "export_csv")
    assert check(asked) is None
    assert isinstance(check(asked_by(SHOP)), OrderError)
    end(asked)
    assert check(asked_by(SHOP)) is None


def test_a_body_that_asks_for_much_is_refused_if_there_is_no_room_and_gives_all_back() -> None:
    check = limits(orders_concurrency=8).check
    under_way = [asked_by(SHOP, "place_order") for _ in range(5)]
    assert [check(asked) for asked in under_way] == [None] * 5
    for asked in under_way[:3]:
        asked.scope["state"]["limits"].take(50)  # 2 of 8 each
    with pytest.raises(OrderError) as refused:
        under_way[3].scope["state"]["limits"].take(50)
    assert (refused.value.code, refused.value.extra) == (Code.RATE_LIMITED, {"violated_policies": ["in-flight"]})
    for asked in under_way:
        end(asked)
    assert [check(asked_by(SHOP)) is None for _ in range(9)] == [True] * 8 + [False]


# In the application --------------------------------------------------------------------------------------------------


def by(principal: Principal) -> Check:
    def set_principal(asked: Asked) -> None:
        asked.scope["state"]["principal"] = principal

    return set_principal


def app_of(principal: Principal, **settings: Any) -> FastAPI:
    return app_with(by(principal), orders_access="open", **settings)


async def test_too_many_requests_are_answered_with_when_to_ask_again() -> None:
    app = app_of(replace(SHOP, rate=1))
    answers = [await ask(app, "GET", "/problems") for _ in range(4)]
    assert [answer.status for answer in answers[:3]] == [200] * 3
    refused = next(a for a in [*answers, *[await ask(app, "GET", "/problems") for _ in range(99)]] if a.status == 429)
    assert refused.headers[b"retry-after"] == b"1"
    assert refused.headers[b"ratelimit-policy"].startswith(b'"default";q=3;w=3, "in-flight";q=64')
    problem = json.loads(refused.body)
    assert (problem["code"], problem["violated_policies"]) == ("rate_limited", ["default"])


async def test_room_comes_back_whatever_happens() -> None:
    """Routes that break (there is no database here), that refuse, that are not there, and a client that is gone."""
    app = app_of(SHOP, orders_concurrency=1)
    for _ in range(3):
        for method, path in (
            ("GET", "/orders"),
            ("GET", "/orders?limit=x"),
            ("GET", "/nothing"),
            ("DELETE", "/"),
            ("GET", "/orders.csv"),
        ):
            answer = await ask(app, method, path)
            assert answer.status != 429, (method, path)

    async def gone(_: Any) -> None:
        raise OSError

    scope = {"type": "http", "http_version": "1.1", "scheme": "http", "method": "GET", "path": "/problems"}
    scope |= {"root_path": "", "query_string": b"", "headers": [(b"host", b"shop")]}
    for _ in range(3):
        with pytest.raises(OSError):  # noqa: PT011
            await app(dict(scope), None, gone)
    assert (await ask(app, "GET", "/problems")).status == 200


async def test_a_check_that_refuses_takes_no_room() -> None:
    app = app_with(
        by(SHOP), lambda _: OrderError(Code.NOT_PERMITTED, "No."), orders_access="open", orders_concurrency=1
    )
    assert [(await ask(app, "GET", "/problems")).status for _ in range(3)] == [403] * 3
