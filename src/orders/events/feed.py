"""The feed in this process: new events get their positions, and requests that wait for events are woken.

`Feed.follow` is for all who read on for long. It holds neither a thread nor a connection while nothing happens.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

from orders.coalescing import Coalescer
from orders.errors import Code, OrderError
from orders.events.assign_sql import assign
from orders.events.feed_sql import Head, Page, read_feed, read_head
from orders.events.wanted import Wanted
from orders.postgres.database import Connection, Database
from orders.postgres.lanes import Lane

PAGES = 20
"""Maximum number of pages that are read in one go. Other readers wait as long for the database thread."""


class Positions:
    """The last position that this process knows of. `news` is set when there is another one."""

    def __init__(self) -> None:
        self.last = 0
        self.news = asyncio.Event()

    def announce(self, position: int) -> None:
        """Note the last position, and wake everyone. It is smaller than before if the database has lost commits."""
        if position != self.last:
            self.last = position
            self.wake()

    def wake(self) -> None:
        """Wake everyone, whatever there is."""
        self.news.set()
        self.news = asyncio.Event()


class Feed:
    """The feed of a database. At most `places` requests wait for events at once."""

    def __init__(self, database: Database, places: int, *, fills_outbox: bool = False) -> None:
        """`fills_outbox`: whether events pass through the outbox when they get their positions."""
        self.positions = Positions()
        self._fills_outbox = fills_outbox
        self._database = database
        self._places = places
        self._is_closing = False
        # The lane has two threads: one is for the assigner, and one reads.
        self._pages: Coalescer[Wanted, Page] = Coalescer(self._load, parallel=1, size=PAGES)

    @property
    def is_closing(self) -> bool:
        """Whether this process ends once all requests are answered."""
        return self._is_closing

    async def assign_once(self) -> bool:
        """Give positions to all events that have none. Returns whether to go on at once: a walk goes on, or another
        replica is at it and will have news.
        """
        done = await self._database.run(lambda c: assign(c, fills_outbox=self._fills_outbox), Lane.EVENTS)
        if done is None:
            return True
        self.positions.announce(done.position)
        return done.is_walking

    async def read(self, wanted: Wanted) -> Page:
        """The next page. Readers who want the same at the same time share one query.

        Raises OrderError if the position is behind the end of the feed or before its beginning, or if another event is
        there than before.
        """
        page = await self._pages.get(wanted)
        assert page is not None  # every key is loaded
        if wanted.after > page.head:
            raise _position_ahead(f"The feed ends at position {page.head}; there is no {wanted.after}.", page)
        if wanted.after < page.forgotten:
            raise _position_gone(page.forgotten)
        if wanted.mark is not None and page.mark_before not in (wanted.mark, None):
            raise _position_ahead(f"Another event has the position {wanted.after} now.", page)
        return page

    async def read_head(self) -> Head:
        """Where the feed ends now."""
        return await self._database.run(read_head, Lane.EVENTS)

    async def wait(self, wanted: Wanted, wait_s: float) -> Page:
        """The next page, once there is one with events, or after `wait_s`. Raises OrderError.

        It may be empty before that, if there is more to read: what was not wanted was passed.
        """
        with self.place():
            return await self._next_page(wanted, asyncio.get_running_loop().time() + wait_s)

    async def follow(self, wanted: Wanted) -> AsyncIterator[Page]:
        """Every page after a position, until this process ends. Raises DatabaseUnavailable, or OrderError as `read`."""
        while not self._is_closing:
            page = await self._next_page(wanted, math.inf)
            yield page
            wanted = behind(wanted, page)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place among those who wait. Raises OrderError if all are taken."""
        if self._places <= 0:
            raise OrderError(Code.STREAMS_FULL, "Too many requests wait for events here.", retry_after_s=5)
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1

    def close(self) -> None:
        """Let nobody wait any more, because the process ends once all requests are answered. Safe to repeat."""
        self._is_closing = True
        self.positions.wake()

    async def _next_page(self, wanted: Wanted, until: float) -> Page:
        """The first page with events, or with more to read behind it. At `until`, or when closing, an empty one."""
        while True:
            news = self.positions.news  # before reading: what comes meanwhile is not missed
            page = await self.read(wanted)
            if page.events or page.goes_on or self._is_closing or not await _is_set(news, until):
                return page
            wanted = behind(wanted, page)

    async def _load(self, several: Sequence[Wanted]) -> dict[Wanted, Page]:
        def read(connection: Connection) -> dict[Wanted, Page]:
            return {wanted: read_feed(connection, wanted) for wanted in several}

        return await self._database.run(read, Lane.EVENTS)


def behind(wanted: Wanted, page: Page) -> Wanted:
    """What is wanted next."""
    return replace(wanted, after=page.end, mark=page.mark)


def _position_ahead(detail: str, page: Page) -> OrderError:
    return OrderError(Code.POSITION_AHEAD, detail, extra={"head": page.head})


def _position_gone(forgotten: int) -> OrderError:
    detail = f"Events up to position {forgotten} are not kept any more. Begin after it: after={forgotten}."
    return OrderError(Code.POSITION_GONE, detail, extra={"first": forgotten + 1})


async def _is_set(news: asyncio.Event, until: float) -> bool:
    """Wait for the news. False: they did not come until then."""
    try:
        async with asyncio.timeout_at(None if math.isinf(until) else until):
            await news.wait()
    except TimeoutError:
        return False
    return True
