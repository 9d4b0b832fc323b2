"""The tail: the newest events of the feed, read once for all streams of this process. Streams filter it themselves."""

import asyncio
import contextlib
import itertools
import json
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from orders.errors import OrderError
from orders.events.feed import Feed, behind
from orders.events.feed_sql import Page
from orders.events.wanted import PREFIX, Wanted
from orders.postgres.database import DatabaseUnavailable
from orders.principal import Seer

log = logging.getLogger(__name__)

KEPT = 1_000
"""Maximum number of events that are kept: five seconds of them at 200 orders per second. A stream that needs an older
one is too slow.
"""

AGAIN_S = 1.0
"""Pause before the tail is read again if the database was away."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event, as JSON, with what filters ask for."""

    position: int
    type: str
    order_id: str
    channel: str | None
    customer_id: int
    text: str

    def is_wanted(self, wanted: Wanted) -> bool:
        """Whether it passes the filters. Says the same as the query in `feed_sql`."""
        return (
            (wanted.types is None or self.type in wanted.types)
            and (wanted.order_id is None or self.order_id == str(wanted.order_id))
            and wanted.channel in (None, self.channel)
            and wanted.seer.channel in (None, self.channel)
            and wanted.seer.customer_id in (None, self.customer_id)
        )


def told(text: str) -> Told:
    """The event in this JSON."""
    event = json.loads(text)
    kind = event["type"].removeprefix(PREFIX)
    return Told(event["position"], kind, event["order_id"], event["channel"], event["customer_id"], text)


class Tail:
    """The newest events behind a position. It is read as long as it has streams, and is over when it can't go on."""

    def __init__(self, feed: Feed, seer: Seer, position: int) -> None:
        self.begin = self.end = position
        """All events behind `begin`, up to `end`, are kept."""
        self.is_over = False
        self.news = asyncio.Event()
        """Set when there are more events, or no more."""
        self._feed = feed
        self._wanted = Wanted(position, seer=seer)
        self._events: deque[Told] = deque()
        self._streams = 0
        self._reading: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Read the tail for one more stream."""
        self._streams += 1
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        try:
            yield
        finally:
            self._streams -= 1
            if self._streams == 0:
                self._reading.cancel()
                self._end()

    def after(self, position: int) -> list[Told]:
        """The events behind this position, which is not before `begin`."""
        newest_first = itertools.takewhile(lambda event: event.position > position, reversed(self._events))
        return list(newest_first)[::-1]

    def take(self, page: Page) -> None:
        """Add the events of a page, and forget the oldest."""
        self._events.extend(map(told, page.events))
        self.end = page.end
        self._wanted = behind(self._wanted, page)
        while len(self._events) > KEPT:
            self.begin = self._events.popleft().position
        self._wake()

    async def _read(self) -> None:
        """Read on until the process ends, or the feed does not go on from here."""
        try:
            while not self._feed.is_closing:
                with contextlib.suppress(DatabaseUnavailable):
                    async for page in self._feed.follow(self._wanted):
                        self.take(page)
                    return
                await asyncio.sleep(AGAIN_S)
        except OrderError as error:
            log.warning("streams of events are closed: %s", error)
        finally:
            self._end()

    def _end(self) -> None:
        self.is_over = True
        self._wake()

    def _wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Tails:
    """The tails of this process: one for streams that see private notes, and one for the others."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._tails: dict[bool, Tail] = {}

    def tail_for(self, seer: Seer, head: int) -> Tail:
        """The tail for streams of this seer. A new one begins at `head`."""
        tail = self._tails.get(seer.sees_private)
        if tail is None or tail.is_over:
            tail = Tail(self._feed, Seer(sees_private=seer.sees_private), head)
            self._tails[seer.sees_private] = tail
        return tail
