"""The table of statuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.order import FINAL, LINE_OF_LIFE, NOT_PLACED, Line, Status, allowed_statuses, merge_lines, parse_status

FORWARD = {(a, b) for i, a in enumerate(LINE_OF_LIFE) for b in LINE_OF_LIFE[i + 1 :]}
ASIDE = {
    *((s, t) for s in ("Ordered", "Confirmed", "Paid", "Processing") for t in ("On Hold", "Cancelled")),
    *((s, t) for s in ("Shipped", "Delivered") for t in ("Returned", "Refunded")),
    ("On Hold", "Cancelled"),
    ("Returned", "Refunded"),
}


@pytest.mark.parametrize("now", Status)
@pytest.mark.parametrize("then", Status)
def test_every_pair_that_is_not_in_the_table_is_refused(now: Status, then: Status) -> None:
    assert (then in allowed_statuses(now)) == ((now, then) in FORWARD | ASIDE)


def test_on_hold_goes_back_to_where_it_was() -> None:
    assert allowed_statuses("On Hold", "Paid") == (Status.PAID, Status.CANCELLED)


def test_final_is_final() -> None:
    assert all(allowed_statuses(status) == () for status in FINAL)


def test_an_adopted_order_in_a_status_that_is_none_of_ours_can_go_anywhere_but_back_to_being_placed() -> None:
    for status in ("Awaiting Pickup", "Pending"):
        assert set(allowed_statuses(status, adopted=True)) == set(Status) - set(NOT_PLACED)


@pytest.mark.parametrize("text", ["on hold", "On_Hold", "ON  HOLD", " on hold "])
def test_case_and_spacing_do_not_matter(text: str) -> None:
    assert parse_status(text) is Status.ON_HOLD


def test_an_unknown_status_is_none() -> None:
    assert parse_status("teleported") is None


@given(st.lists(st.builds(Line, st.integers(1, 5), st.integers(1, 9))))
def test_merging_keeps_every_unit_and_sorts_by_product(lines: list[Line]) -> None:
    merged = merge_lines(lines)
    assert [line.product_id for line in merged] == sorted({line.product_id for line in lines})
    for line in merged:
        assert line.quantity == sum(each.quantity for each in lines if each.product_id == line.product_id)
