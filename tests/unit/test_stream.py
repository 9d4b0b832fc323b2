"""Streams of events in one process: they share one tail, and those that are too slow are closed."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

import pytest

from orders.errors import OrderError
from orders.events import stream as stream_module
from orders.events.feed import Feed
from orders.events.feed_sql import Page
from orders.events.parameters import parse_last_event_id
from orders.events.stream import PART_BYTES, Stream
from orders.events.tail import KEPT, Tail, Tails
from orders.events.wanted import Wanted
from orders.postgres.database import DatabaseUnavailable
from orders.principal import SEES_EVERYTHING, Seer

ORDERS = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(3)]
CHANNELS = ("web", "app", None)


def event(position: int) -> dict[str, Any]:
    n = position % 3
    kind = "order.moved" if position % 2 else "order.placed"
    return {"position": position, "type": kind, "order_id": ORDERS[n], "channel": CHANNELS[n], "customer_id": n}


class FakeFeed(Feed):
    """A feed of made-up events, which counts the queries."""

    def __init__(self, head: int = 0) -> None:
        super().__init__(None, 100)  # type: ignore[arg-type]
        self.head = head
        self.queries = 0
        self.is_away = False

    async def _load(self, several: Sequence[Wanted]) -> dict[Wanted, Page]:
        self.queries += len(several)
        await asyncio.sleep(0)
        if self.is_away:
            raise DatabaseUnavailable("away")
        return {wanted: self._page(wanted) for wanted in several}

    def _page(self, wanted: Wanted) -> Page:
        end = min(self.head, wanted.after + wanted.limit)
        found = [event(n) for n in range(wanted.after + 1, end + 1) if self._is_shown(wanted, n)]
        return Page([json.dumps(one) for one in found], end, self.head)

    def _is_shown(self, wanted: Wanted, n: int) -> bool:
        one = event(n)
        asked = (
            (wanted.channel, one["channel"]),
            (wanted.seer.channel, one["channel"]),
            (wanted.order_id and str(wanted.order_id), one["order_id"]),
        )
        is_type = wanted.types is None or one["type"].removeprefix("order.") in wanted.types
        return is_type and all(want in (None, has) for want, has in asked)

    def happen(self, count: int = 1) -> None:
        self.head += count
        self.positions.announce(self.head)


class Client:
    """Someone who follows a stream, and may stop reading."""

    def __init__(self, feed: FakeFeed, tails: Tails, wanted: Wanted | None = None, may_go_on: bool = True) -> None:
        self.may_go_on = may_go_on
        self.positions: list[int] = []
        self.last_id = 0
        self.reads = asyncio.Event()
        self.reads.set()
        self._feed, self._tails, self._wanted = feed, tails, wanted or Wanted(feed.head)

    async def follow(self) -> None:
        first = await self._feed.read(self._wanted)
        tail = self._tails.tail_for(self._wanted.seer, first.head)
        with tail.joined():
            parts: AsyncGenerator[bytes] = Stream(self._feed, tail, self._wanted, first, self._may).parts()
            async for part in parts:
                self._take(part)
                await self.reads.wait()

    async def until(self, position: int) -> None:
        async with asyncio.timeout(20):
            while self.last_id < position:
                await asyncio.sleep(0.001)

    def _take(self, part: bytes) -> None:
        for line in part.decode().splitlines():
            if line.startswith("data: "):
                self.positions.append(json.loads(line[6:])["position"])
            if line.startswith("id: "):
                self.last_id = int(line[4:])

    async def _may(self) -> bool:
        return self.may_go_on


async def test_all_streams_share_one_query_whatever_they_filter() -> None:
    feed = FakeFeed(5)
    tails = Tails(feed)
    filters: list[dict[str, Any]] = [{}, {"types": ("moved",)}, {"channel": "web"}, {"order_id": UUID(ORDERS[2])}]
    seers = [SEES_EVERYTHING, Seer(channel="app", sees_private=True)]
    clients = [
        Client(feed, tails, Wanted(5, seer=seer, **more)) for seer in seers for more in filters for _ in range(9)
    ]
    following = [asyncio.create_task(client.follow()) for client in clients]
    await asyncio.gather(*(client.until(5) for client in clients))
    before = feed.queries
    for _ in range(50):
        feed.happen()
        await clients[0].until(feed.head)
    assert feed.queries - before <= 2 * 50
    for client in clients:
        wanted = client._wanted
        shown = [n for n in range(6, 56) if feed._is_shown(wanted, n)]
        await client.until(shown[-1] if shown else 0)
        assert client.positions == shown
    feed.close()
    await asyncio.gather(*following)


async def test_a_stream_begins_with_what_it_has_missed_without_a_seam() -> None:
    feed = FakeFeed(2345)
    tails = Tails(feed)
    clients = [Client(feed, tails, Wanted(after)) for after in (0, 17, 2344, 2345)]
    following = [asyncio.create_task(client.follow()) for client in clients]
    for _ in range(200):
        feed.happen(3)
        await asyncio.sleep(0)
    await asyncio.gather(*(client.until(feed.head) for client in clients))
    for client in clients:
        assert client.positions == list(range(client._wanted.after + 1, feed.head + 1))
    feed.close()
    await asyncio.gather(*following)


async def test_a_client_that_is_too_far_behind_is_closed_and_the_others_go_on() -> None:
    feed = FakeFeed()
    tails = Tails(feed)
    slow, fast = Client(feed, tails), Client(feed, tails)
    following = [asyncio.create_task(client.follow()) for client in (slow, fast)]
    feed.happen()
    await asyncio.gather(slow.until(1), fast.until(1))
    slow.reads.clear()
    feed.happen()
    await slow.until(2)
    for _ in range(KEPT + 1):
        feed.happen()
        await fast.until(feed.head)
    slow.reads.set()
    await asyncio.wait_for(following[0], 20)
    assert slow.positions == [1, 2]
    feed.happen()
    await fast.until(feed.head)
    assert fast.positions == list(range(1, feed.head + 1))
    again = Client(feed, tails, Wanted(slow.last_id))
    following.append(asyncio.create_task(again.follow()))
    await again.until(feed.head)
    assert slow.positions + again.positions == fast.positions
    feed.close()
    await asyncio.gather(*following)


async def test_the_tail_is_read_only_while_somebody_follows() -> None:
    feed = FakeFeed()
    tails = Tails(feed)
    client = Client(feed, tails)
    following = asyncio.create_task(client.follow())
    feed.happen()
    await client.until(1)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    before = feed.queries
    feed.happen()
    await asyncio.sleep(0.01)
    assert feed.queries == before


async def test_a_database_that_was_away_is_no_reason_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orders.events.tail.AGAIN_S", 0.001)
    feed = FakeFeed()
    tails = Tails(feed)
    client = Client(feed, tails)
    following = asyncio.create_task(client.follow())
    feed.happen()
    await client.until(1)
    feed.is_away = True
    feed.happen()
    await asyncio.sleep(0.01)
    feed.is_away = False
    await client.until(2)
    assert client.positions == [1, 2]
    feed.close()
    await following


async def test_a_feed_that_was_set_back_closes_the_streams() -> None:
    feed = FakeFeed(100)
    client = Client(feed, Tails(feed))
    following = asyncio.create_task(client.follow())
    await client.until(100)
    feed.head = 50
    feed.positions.announce(50)
    await asyncio.wait_for(following, 20)
    with pytest.raises(OrderError):
        await Client(feed, Tails(feed), Wanted(100)).follow()


async def test_who_may_no_longer_read_is_closed_and_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "LOOK_S", 0.001)
    monkeypatch.setattr(stream_module, "KEEP_ALIVE_S", 0.001)
    feed = FakeFeed(7)
    said: list[bytes] = []
    client = Client(feed, Tails(feed), Wanted(7, types=("placed",)))
    take = client._take
    client._take = lambda part: (said.append(part), take(part))[1]  # type: ignore[method-assign]
    following = asyncio.create_task(client.follow())
    await client.until(7)
    feed.happen(2)  # one of them is wanted
    await client.until(9)
    assert client.positions == [8]
    assert b": still here\nid: 9\n\n" in said
    client.may_go_on = False
    await asyncio.wait_for(following, 20)


async def test_parts_have_a_size_that_a_client_who_reads_nothing_may_cost() -> None:
    feed = FakeFeed()
    tail = Tail(feed, SEES_EVERYTHING, 0)
    large = [json.dumps({**event(n), "note": "n" * 1000}) for n in range(1, 501)]
    tail.take(Page(large, 500, 500))
    parts = list(stream_module._parts(tail.after(0)))
    assert max(map(len, parts)) < PART_BYTES + 2000
    assert b"".join(parts).count(b"\n\n") == 500


def test_the_tail_keeps_the_newest() -> None:
    tail = Tail(FakeFeed(), SEES_EVERYTHING, 10)
    for n in range(11, 11 + KEPT + 5):
        tail.take(Page([json.dumps(event(n))], n, n))
    assert (tail.begin, tail.end) == (15, 1015)
    assert [one.position for one in tail.after(1013)] == [1014, 1015]
    assert len(tail.after(15)) == KEPT


@pytest.mark.parametrize(("texts", "position"), [([], None), ([""], None), (["7"], 7), (["1", "2"], 2), ([" 3 "], 3)])
def test_last_event_id_is_a_position(texts: list[str], position: int | None) -> None:
    assert parse_last_event_id(texts) == position


@pytest.mark.parametrize("text", ["x", "-1", "1.0", "٣", "9" * 19, "1" * 5000])
def test_another_last_event_id_is_refused(text: str) -> None:
    with pytest.raises(OrderError):
        parse_last_event_id([text])
