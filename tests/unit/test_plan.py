"""The plan, against everything that Hypothesis can think of."""

from hypothesis import given
from hypothesis import strategies as st

from orders.order.model import Line, merge_lines
from orders.stock.plan import Adjustment, Shortage, plan

PRODUCTS = st.integers(1, 4)
STOCK = st.dictionaries(PRODUCTS, st.integers(0, 10))
LINES = st.lists(st.builds(Line, PRODUCTS, st.integers(1, 6)), min_size=1, max_size=4).map(merge_lines)


def test_the_first_to_come_gets_the_last_unit() -> None:
    decided = plan({1: 1}, {}, [[Line(1, 1)], [Line(1, 1)]])
    assert decided.shortages == ((), (Shortage(1, 1, 0),))
    assert decided.changes == {1: Adjustment(1, 0)}


def test_an_order_that_needs_too_much_is_refused_and_takes_nothing() -> None:
    decided = plan({1: 5, 2: 1}, {}, [[Line(1, 5), Line(2, 2)], [Line(1, 5)]])
    assert decided.shortages == ((Shortage(2, 2, 1),), ())
    assert decided.changes == {1: Adjustment(5, 0)}


def test_every_line_that_falls_short_is_named() -> None:
    decided = plan({1: 0}, {}, [[Line(1, 1), Line(2, 3)]])
    assert decided.shortages == ((Shortage(1, 1, 0), Shortage(2, 3, 0, is_known=False)),)
    assert decided.changes == {}


def test_stock_that_is_due_back_is_there_for_the_first_order() -> None:
    assert plan({1: 0}, {1: 2}, [[Line(1, 2)]]).changes == {1: Adjustment(0, 0)}


def test_a_product_that_the_catalog_lost_gets_nothing_back() -> None:
    assert plan({}, {1: 2}, [[Line(1, 1)]]).shortages == ((Shortage(1, 1, 0, is_known=False),),)


@given(STOCK, STOCK, st.lists(LINES, max_size=6))
def test_what_is_placed_is_what_the_stock_loses(
    stock: dict[int, int], due: dict[int, int], orders: list[tuple[Line, ...]]
) -> None:
    decided = plan(stock, due, orders)
    placed = [lines for lines, shortages in zip(orders, decided.shortages, strict=True) if not shortages]
    for product_id, quantity in stock.items():
        sold = sum(line.quantity for lines in placed for line in lines if line.product_id == product_id)
        change = decided.changes.get(product_id, Adjustment(quantity, quantity))
        assert change.before == quantity
        assert change.after == quantity + due.get(product_id, 0) - sold >= 0
    assert not any(line.product_id not in stock for lines in placed for line in lines)


@given(STOCK, STOCK, st.lists(LINES, max_size=6))
def test_an_order_is_refused_only_for_a_line_that_falls_short_on_its_turn(
    stock: dict[int, int], due: dict[int, int], orders: list[tuple[Line, ...]]
) -> None:
    left = {product_id: quantity + due.get(product_id, 0) for product_id, quantity in stock.items()}
    for lines, shortages in zip(orders, plan(stock, due, orders).shortages, strict=True):
        short = [line for line in lines if line.quantity > left.get(line.product_id, 0)]
        assert [(s.product_id, s.requested) for s in shortages] == [(line.product_id, line.quantity) for line in short]
        if not short:
            for line in lines:
                left[line.product_id] -= line.quantity
