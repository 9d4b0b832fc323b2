"""The verdict can fail: each way to break an invariant is seen, under that invariant and no other."""

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.evidence import ClaimState, Evidence, FeedEvent, Order, Put, Quiet, Return
from tests.chaos.load import NO_ANSWER, Attempt, Shopper
from tests.chaos.verdict import judge

BATCH = "019ab1e2-7c3d-7a41-9b52-0d6c3f1e8a77"
PLACED = Attempt(1.0, 2.0, "placed", 201, "A")
REFUSED = Attempt(3.0, 4.0, "insufficient_inventory", 400)
LOST = Attempt(1.0, 2.0, NO_ANSWER)
ORDER = Order("A", 1000, None, "Ordered", is_placed=True, updated_at=2.0, lines={7: 2})
PUT = Put(1, 7, 8, "orders", arrived_at=1.2, landed_at=1.3, before=10, answered_at=1.4, status=200)


def shopper(*attempts: Attempt, **more: Any) -> Shopper:
    return Shopper(
        **{"customer_id": 1000, "lines": {7: 2}, "from_cart": False, "key": "", **more}, attempts=[*attempts]
    )


def world(**changes: Any) -> Evidence:
    """The evidence after customer 1000 ordered two of product 7, of which there were ten."""
    clean = Evidence(
        initial={7: 10},
        put_in={},
        contested=frozenset(),
        final={7: 8},
        shoppers=[shopper(PLACED)],
        orders=[ORDER],
        returns=[],
        drifted=[],
        keys={},
        open_carts=frozenset(),
        claims=[
            ClaimState(1.1, 7, BATCH, before=10, after=8, lands_until=8.0),
            ClaimState(1.5, 7, None, before=None, after=None, lands_until=None),
        ],
        carried={},
        puts=[PUT],
        catalog_killed_at=[],
        sleeps=[],
        quiet=Quiet(0.5, [], 0.3, allowed_s=9.0),
        events=frozenset({("A", 1), ("A", 2), ("B", 1)}),
        feed=FEED,
        feed_refusals=[],
    )
    return replace(clean, **changes)


def broken(evidence: Evidence) -> list[str]:
    return [row.name for row in judge(evidence) if row.broken]


CANCELLED = {
    "shoppers": [shopper(PLACED, cancellations=["Cancelled"])],
    "orders": [replace(ORDER, status="Cancelled")],
    "final": {7: 10},
}
CART = replace(ORDER, cart_id=3)
UNPLACED = {"orders": [], "final": {7: 10}, "puts": [], "claims": []}
TWICE = {"orders": [ORDER, replace(ORDER, id="B")], "final": {7: 6}}
FEED = [FeedEvent(1, "A", 1), FeedEvent(2, "B", 1), FeedEvent(3, "A", 2)]
QUIET = ClaimState(1.5, 7, None, before=None, after=None, lands_until=9.0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"put_in": {7: 5}, "final": {7: 13}},
        {**CANCELLED, "returns": [Return("A", 7, 2, is_done=True)]},
        {"shoppers": [shopper(LOST)]},
        {"shoppers": [shopper(REFUSED)], **UNPLACED},
        {"shoppers": [shopper(LOST, REFUSED, key="k")], **UNPLACED},
        {"shoppers": [shopper(PLACED, replace(PLACED, is_replayed=True), key="k")], "keys": {"k": "A"}},
        {"shoppers": [shopper(PLACED, from_cart=True)], "orders": [CART]},
        {"shoppers": [shopper(PLACED, from_cart=True, cart_is_certain=False)], "orders": [replace(CART, lines={7: 2})]},
        {
            "claims": [*world().claims[:1], QUIET],
            "puts": [PUT, replace(PUT, id=2, arrived_at=2, landed_at=3, before=8)],
        },
        {"puts": [PUT, replace(PUT, id=2, quantity=9, user_agent="outside", arrived_at=2, landed_at=3)]},
        {"puts": [replace(PUT, landed_at=None), replace(PUT, id=2)]},
        {"quiet": Quiet(1.0, ["A"], 60.0, allowed_s=9.0)},
        {"final": {7: 7}, "drifted": [7], "contested": frozenset({7})},  # understated, and reported as a drift
    ],
)
def test_what_is_well_is_not_called_broken(changes: dict[str, Any]) -> None:
    assert broken(world(**changes)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"final": {7: 7}},
        {"final": {7: 9}},
        {"final": {}},
        {"put_in": {7: 1}},
        {"final": {7: 7}, "drifted": [7]},  # no writer but us
        {"final": {7: 7}, "contested": frozenset({7})},
        {"final": {7: 9}, "drifted": [7], "contested": frozenset({7})},  # oversold
        CANCELLED,  # nothing says that its stock went back
        {**CANCELLED, "returns": [Return("A", 7, 2, is_done=False)]},
        {"returns": [Return("A", 7, 2, is_done=True)]},  # it was not cancelled
    ],
)
def test_i1_stock_that_does_not_add_up(changes: dict[str, Any]) -> None:
    assert broken(world(**changes)) == ["I1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"puts": [replace(PUT, quantity=-1)]},
        {"puts": [replace(PUT, quantity=None)]},
        {"puts": [replace(PUT, quantity=9)]},  # this was not intended
        {"puts": [replace(PUT, arrived_at=1.0)]},  # before the intent was durable
        {"puts": [replace(PUT, arrived_at=2.0, landed_at=2.1)]},  # after the claim had ended
        {"puts": [replace(PUT, before=11)]},  # somebody else's stock was replaced
        {"claims": [ClaimState(1.1, 7, BATCH, before=7, after=8, lands_until=8.0)], "puts": []},  # nothing was due back
    ],
)
def test_i2_puts_that_should_not_be(changes: dict[str, Any]) -> None:
    assert broken(world(**changes)) == ["I2"]


def test_i2_stock_that_is_due_back_may_be_raised() -> None:
    raising = [ClaimState(1.1, 7, BATCH, before=7, after=8, lands_until=8.0)]
    put = replace(PUT, before=7)
    assert broken(world(claims=raising, puts=[put], carried={(BATCH, 7): 1})) == []


@pytest.mark.parametrize(
    "changes",
    [
        UNPLACED,  # a 201 without an order
        TWICE,
        {"shoppers": [shopper(REFUSED)]},
        {"shoppers": [shopper(LOST, REFUSED, key="k")]},  # the key's outcome is a refusal
        {"shoppers": [shopper(PLACED, lines={7: 1})]},
        {"shoppers": [shopper(PLACED)], "orders": [CART]},
        {"shoppers": []},
        {"shoppers": [shopper(PLACED, cancellations=["Cancelled"])]},
        {"orders": [replace(ORDER, status="Shipped")]},  # nobody asked for that
    ],
)
def test_i3_answers_that_are_not_true(changes: dict[str, Any]) -> None:
    assert broken(world(**changes)) == ["I3"]


@pytest.mark.parametrize(
    "changes",
    [
        {"shoppers": [shopper(PLACED, key="k")]},  # the key stands for nothing
        {"shoppers": [shopper(PLACED, key="k")], "keys": {"k": "B"}},
        {"shoppers": [shopper(PLACED, REFUSED, key="k")], "keys": {"k": "A"}},
        {"shoppers": [shopper(PLACED, from_cart=True)], "orders": [CART], "open_carts": frozenset({3})},
    ],
)
def test_i4_keys_and_carts_with_two_outcomes(changes: dict[str, Any]) -> None:
    assert broken(world(**changes)) == ["I4"]


def test_i4_another_cart_of_the_same_customer_may_be_open() -> None:
    ordered = {"shoppers": [shopper(PLACED, from_cart=True)], "orders": [CART]}
    assert broken(world(**ordered, open_carts=frozenset({4}))) == []


def test_i4_two_orders_for_one_key_or_one_cart_break_i3_as_well() -> None:
    both = [PLACED, replace(PLACED, order_id="B")]
    assert broken(world(shoppers=[shopper(*both, key="k")], keys={"k": "A"}, **TWICE)) == ["I3", "I4"]
    carts = [CART, replace(CART, id="B")]
    assert broken(world(shoppers=[shopper(*both, from_cart=True)], **{**TWICE, "orders": carts})) == ["I3", "I4"]


@pytest.mark.parametrize(
    "changes",
    [
        {"quiet": Quiet(1.2, ["A"], 9.0, allowed_s=0.5)},  # the order was decided after 0.8 s
        {"quiet": Quiet(1.2, [], 9.0, allowed_s=0.2)},  # the claim ended after 0.3 s
        {"quiet": Quiet(1.2, [], 9.0, allowed_s=9.0), "claims": world().claims[:1]},  # the claim never ended
        {"quiet": Quiet(1.2, [], None, allowed_s=9.0)},  # something was left
    ],
)
def test_i5_what_stays_half_done(changes: dict[str, Any]) -> None:
    assert broken(world(**changes)) == ["I5"]


def meeting(**changes: Any) -> Evidence:
    """Evidence of two PUTs, both intended in their turn. The second comes while the first may still land."""
    first = replace(PUT, **{"arrived_at": 1.2, "landed_at": 2.5, "before": 10, **changes})
    second = replace(PUT, id=2, quantity=6, arrived_at=2.2, landed_at=2.3, before=8)
    then = ClaimState(2.1, 7, BATCH, before=8, after=6, lands_until=9.0)
    return world(puts=[first, second], claims=[*world().claims, then])


@pytest.mark.parametrize(
    ("changes", "is_broken"),
    [
        ({}, True),
        ({"landed_at": 2.1}, False),  # it was over
        ({"landed_at": None, "before": None, "answered_at": 2.1, "status": 500}, False),
        ({"landed_at": None, "before": None, "answered_at": 2.4, "status": 500}, True),
        ({"landed_at": None, "before": None, "answered_at": 2.4, "status": 412}, False),  # the ETag refused it
        ({"landed_at": None, "before": None, "answered_at": None, "status": None}, True),
    ],
)
def test_i6_two_values_at_once(changes: dict[str, Any], is_broken: bool) -> None:
    assert broken(meeting(**changes)) == (["I6"] if is_broken else [])


@pytest.mark.parametrize(("killed_at", "is_broken"), [(1.0, True), (2.0, False), (2.25, True)])
def test_i6_a_put_dies_with_its_catalog(killed_at: float, is_broken: bool) -> None:
    unfinished = meeting(landed_at=None, before=None, answered_at=None, status=None)
    assert broken(replace(unfinished, catalog_killed_at=[killed_at])) == (["I6"] if is_broken else [])


@pytest.mark.parametrize(
    "changes",
    [
        {"feed": FEED[:2]},  # one never came
        {"feed": [*FEED, replace(FEED[1], position=4)]},  # one came twice
        {"feed": [*FEED, FeedEvent(4, "C", 1)]},  # one that never happened
        {"feed": [FEED[0], replace(FEED[1], position=3), replace(FEED[2], position=4)]},  # a gap
        {"feed": [replace(FEED[2], position=1), FEED[1], replace(FEED[0], position=3)]},  # the wrong way round
        {"feed_refusals": ["/events?after=3: there is no 3"]},
    ],
)
def test_i7_the_feed(changes: dict[str, Any]) -> None:
    assert broken(world(**changes)) == ["I7"]


def sleepwalking(*sleeps: tuple[float, float], arrivals: tuple[float, ...] = (6.1,)) -> Evidence:
    """Evidence of PUTs that came when their claim had ended, each of a product of its own, and that undid an order."""
    products = dict(enumerate(arrivals, 7))
    return world(
        initial=dict.fromkeys(products, 10),
        final=dict.fromkeys(products, 8),
        shoppers=[shopper(PLACED, lines=dict.fromkeys(products, 3))],
        orders=[replace(ORDER, lines=dict.fromkeys(products, 3))],
        claims=[replace(state, product_id=product_id) for product_id in products for state in world().claims],
        puts=[replace(PUT, product_id=p, arrived_at=at, landed_at=at, before=7) for p, at in products.items()],
        sleeps=sleeps,
    )


@pytest.mark.parametrize(
    ("evidence", "names"),
    [
        (sleepwalking((1.2, 6.0)), []),
        (sleepwalking((1.2, 6.0), arrivals=(6.1, 6.2)), []),  # one batch, two products
        (sleepwalking((1.2, 6.0), (1.3, 9.0), arrivals=(6.1, 9.1)), ["limit"]),  # once is chance
        (sleepwalking(), ["I1", "I2"]),  # no replica slept: a bug
        (sleepwalking((1.2, 4.0)), ["I1", "I2"]),  # the replica that slept had been awake for long
        (sleepwalking((1.6, 6.0)), ["I1", "I2"]),  # the claim had ended before
    ],
)
def test_the_known_limit_is_told_from_a_bug(evidence: Evidence, names: list[str]) -> None:
    assert broken(evidence) == names
