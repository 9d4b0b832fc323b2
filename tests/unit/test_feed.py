"""The feed in one process: what is wanted, who is woken, and who waits for whom."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from orders.errors import Code, OrderError
from orders.events.feed import Feed
from orders.events.feed_sql import Page
from orders.events.parameters import FeedQuery
from orders.events.wanted import Wanted, parse_types
from orders.order.events import EventType


def test_all_types_but_failed_are_those_of_orders() -> None:
    assert parse_types("*") is None
    assert parse_types("order.placed, *") is None
    everything = {kind.value for kind in EventType}
    assert set(parse_types("order.*") or ()) == everything - {"failed"}
    assert set(parse_types("order.*,order.failed") or ()) == everything
    assert parse_types("order.moved,order.placed,order.moved") == ("moved", "placed")


@pytest.mark.parametrize("text", ["", "placed", "order.", "order.sold", "order.placed,", "ORDER.PLACED"])
def test_an_unknown_type_is_refused_and_the_known_are_named(text: str) -> None:
    with pytest.raises(OrderError) as refused:
        parse_types(text)
    assert "order.placed" in refused.value.detail


def test_the_next_address_has_the_same_parameters() -> None:
    query = FeedQuery(after=5, types="order.*,order.failed", limit=7)
    assert query.next_url(9, None) == "/events?after=9&limit=7&types=order.*,order.failed"
    assert FeedQuery(mark="0123abcd").next_url(1, "89abcdef") == "/events?after=1&mark=89abcdef"


class FakeDatabase:
    """A feed of events that are their positions. Every third is wanted if types are."""

    def __init__(self) -> None:
        self.head = 0
        self.loads: list[list[Wanted]] = []

    def page(self, wanted: Wanted) -> Page:
        new = [n for n in range(wanted.after + 1, self.head + 1) if wanted.types is None or n % 3 == 0]
        shown = new[: wanted.limit]
        return Page([str(n) for n in shown], shown[-1] if len(shown) == wanted.limit else self.head, self.head)


class FakeFeed(Feed):
    """A feed over the fake."""

    def __init__(self, places: int = 100) -> None:
        self.fake = FakeDatabase()
        super().__init__(self.fake, places)  # type: ignore[arg-type]

    async def _load(self, several: Any) -> dict[Wanted, Page]:
        self.fake.loads.append(list(several))
        await asyncio.sleep(0)
        return {wanted: self.fake.page(wanted) for wanted in several}

    def happen(self, count: int = 1) -> None:
        self.fake.head += count
        self.positions.announce(self.fake.head)


async def test_everyone_who_waits_is_woken_and_shares_one_query() -> None:
    feed = FakeFeed()
    waiting = [asyncio.create_task(feed.wait(Wanted(), 60)) for _ in range(50)]
    await asyncio.sleep(0.01)
    feed.happen()
    assert {tuple((await one).events) for one in waiting} == {("1",)}
    assert [len(load) for load in feed.fake.loads] == [1, 1]


async def test_what_comes_while_a_page_is_read_is_not_missed() -> None:
    feed = FakeFeed()
    page_before, feed.fake.page = feed.fake.page, lambda wanted: _meanwhile(feed, wanted)  # type: ignore[method-assign]

    def _meanwhile(feed: FakeFeed, wanted: Wanted) -> Page:
        page = page_before(wanted)
        feed.fake.page = page_before  # type: ignore[method-assign]
        feed.happen()
        return page

    async with asyncio.timeout(5):
        assert (await feed.wait(Wanted(), 60)).events == ["1"]


async def test_unwanted_events_are_passed_and_not_read_again() -> None:
    feed = FakeFeed()
    waiting = asyncio.create_task(feed.wait(Wanted(types=("moved",)), 60))
    for _ in range(3):
        await asyncio.sleep(0.01)
        feed.happen()
    assert (await waiting).events == ["3"]
    assert [load[0].after for load in feed.fake.loads] == [0, 0, 1, 2][: len(feed.fake.loads)]


async def test_at_the_end_of_the_wait_an_empty_page_says_how_far_it_was_read() -> None:
    feed = FakeFeed()
    feed.happen(2)
    page = await feed.wait(Wanted(types=("moved",)), 0.01)
    assert page == Page([], 2, 2)


async def test_each_place_is_one_readers() -> None:
    feed = FakeFeed(places=1)
    waiting = asyncio.create_task(feed.wait(Wanted(), 60))
    await asyncio.sleep(0.01)
    with pytest.raises(OrderError) as refused:
        await feed.wait(Wanted(), 60)
    assert refused.value.code is Code.STREAMS_FULL
    waiting.cancel()
    await asyncio.wait([waiting])
    feed.happen()
    assert (await feed.wait(Wanted(), 60)).events == ["1"]


async def test_closing_ends_all_waits() -> None:
    feed = FakeFeed()
    waiting = asyncio.create_task(feed.wait(Wanted(), 60))
    following = asyncio.create_task(_all(feed, Wanted()))
    await asyncio.sleep(0.01)
    feed.close()
    async with asyncio.timeout(5):
        assert (await waiting).events == []
        await following


async def _all(feed: Feed, wanted: Wanted) -> list[str]:
    return [event async for page in feed.follow(wanted) for event in page.events]


async def test_who_follows_gets_each_event_once() -> None:
    feed = FakeFeed()
    following = asyncio.create_task(_all(feed, Wanted(limit=2)))
    for count in (1, 5, 1, 3):
        feed.happen(count)
        await asyncio.sleep(0.005)
    feed.close()
    assert await following == [str(n) for n in range(1, 11)]


async def test_a_position_behind_the_end_is_refused() -> None:
    feed = FakeFeed()
    feed.happen(2)
    with pytest.raises(OrderError) as refused:
        await feed.read(replace(Wanted(), after=3))
    assert refused.value.code is Code.POSITION_AHEAD
    assert refused.value.extra == {"head": 2}


async def test_another_event_at_the_position_is_refused() -> None:
    feed = FakeFeed()
    feed.happen(3)
    page = Page([], 3, 3, mark="aaaaaaaa", mark_before="aaaaaaaa")
    feed.fake.page = lambda wanted: page  # type: ignore[method-assign]
    for mark in (None, "aaaaaaaa"):
        assert await feed.read(Wanted(2, mark)) is page
    with pytest.raises(OrderError) as refused:
        await feed.read(Wanted(2, "bbbbbbbb"))
    assert refused.value.code is Code.POSITION_AHEAD
    page = page._replace(mark_before=None)  # nothing is known of that position any more
    assert await feed.read(Wanted(2, "bbbbbbbb")) is page
