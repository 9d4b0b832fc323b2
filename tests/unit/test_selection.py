"""Which entries go along in the next batch: in the order of turns, none for ever left behind."""

import asyncio
from collections.abc import Iterable

from orders.order.model import Details, Line
from orders.placing.entry import OrderRequest, PlaceOrder, queue_entry
from orders.placing.selection import MOST_PRODUCTS, PASSED_OVER, SMALL, Selection
from orders.principal import SEES_EVERYTHING


def entry(products: Iterable[int], turn_at: float = 0.0, reference: str | None = None) -> PlaceOrder:
    lines = tuple(Line(product_id, 1) for product_id in products)
    request = OrderRequest(SEES_EVERYTHING, 1, lines, 10.0, "/", details=Details(external_reference=reference))
    return queue_entry(request, asyncio.get_running_loop().create_future(), turn_at)


def select(entries: list[PlaceOrder], *, busy: set[int] | None = None, unsure: set[int] | None = None) -> Selection:
    selection = Selection(busy=set(busy or ()), unsure=set(unsure or ()), takes_large=True, size=8, now=1.0)
    for one in entries:
        selection.offer(one)
    return selection


async def test_whoever_was_left_waiting_too_often_has_its_products_kept_free() -> None:
    needs_both, needs_one = entry([1, 2]), entry([2])
    for _ in range(PASSED_OVER):
        assert select([needs_both, needs_one], busy={1}).chosen == [needs_one]
    assert select([needs_both, needs_one], busy={1}).chosen == []


async def test_nothing_is_kept_free_for_one_that_waits_for_what_nobody_knows() -> None:
    needs_both, needs_one = entry([1, 2]), entry([2])
    for _ in range(PASSED_OVER + 2):
        assert select([needs_both, needs_one], busy={1}, unsure={1}).chosen == [needs_one]


async def test_a_large_order_begins_a_batch_or_waits() -> None:
    large, small = entry(range(SMALL + 1)), entry([1000])
    assert select([large, small]).chosen == [large, small]
    assert select([small, large]).chosen == [small]


async def test_orders_whose_turn_has_not_come_share_a_small_batch_only() -> None:
    def of(turn_at: float) -> list[PlaceOrder]:
        return [entry(range(n * 40, (n + 1) * 40), turn_at) for n in range(8)]

    assert len(select(of(turn_at=0.5)).chosen) == MOST_PRODUCTS // 40
    assert len(select(of(turn_at=2.0)).chosen) == SMALL // 40


async def test_two_orders_of_one_reference_are_not_in_one_batch() -> None:
    first, second = entry([1], reference="r"), entry([2], reference="r")
    selection = select([first, second])
    assert (selection.chosen, selection.rest, second.is_hindered) == ([first], [second], True)
