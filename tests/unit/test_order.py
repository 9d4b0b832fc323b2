"""Lines."""

from hypothesis import given
from hypothesis import strategies as st

from orders.order.model import Line, merge_lines


@given(st.lists(st.builds(Line, st.integers(1, 5), st.integers(1, 9))))
def test_merging_keeps_every_unit_and_sorts_by_product(lines: list[Line]) -> None:
    merged = merge_lines(lines)
    assert [line.product_id for line in merged] == sorted({line.product_id for line in lines})
    for line in merged:
        assert line.quantity == sum(each.quantity for each in lines if each.product_id == line.product_id)
