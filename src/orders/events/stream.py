"""One stream of events, as a client gets it (Server-Sent Events): first what it has missed, then what happens.

It knows no HTTP. Whoever takes its parts decides how fast it goes on.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence

from orders.errors import OrderError
from orders.events.feed import Feed, behind
from orders.events.feed_sql import Page
from orders.events.tail import KEPT, Tail, Told, told
from orders.events.wanted import PREFIX, Wanted
from orders.postgres.database import DatabaseUnavailable

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
"""Longest time in which a stream sends nothing: proxies end a silent connection after 30 s or later."""

LOOK_S = 2.0
"""Pause between two looks whether the client may still read events. A revocation has to hold within 5 s, and a key is
believed for a while itself.
"""

PART_BYTES = 32 * 1024
"""Size at which a part of a stream is sent. A client that reads nothing costs little more memory than the system's
buffers.
"""

MayGoOn = Callable[[], Awaitable[bool]]
"""Says whether the client may still read events."""


class Stream:
    """The parts of one stream, which begins with the page `first`."""

    def __init__(self, feed: Feed, tail: Tail, wanted: Wanted, first: Page, may_go_on: MayGoOn) -> None:
        self._feed = feed
        self._tail = tail
        self._wanted = wanted
        self._first = first
        self._may_go_on = may_go_on
        self._position = 0
        self._clock = asyncio.get_running_loop().time
        self._sent_at = self._looked_at = self._clock()

    async def parts(self) -> AsyncGenerator[bytes]:
        """The parts. They end when the process does, when the client may read no more, or when it is too slow."""
        try:
            async for page in self._missed():
                events = [told(text) for text in page.events]
                for part in _parts(events):
                    yield part
                self._position = page.end
                if not events or events[-1].position < page.end:
                    yield _progress(self._position)
            async for latest in self._live():
                for part in _parts(latest):
                    yield part
                if not latest:
                    yield b": still here\n" + _progress(self._position)
        except (DatabaseUnavailable, OrderError) as error:
            log.warning("a stream of events is closed: %s", error)

    async def _missed(self) -> AsyncIterator[Page]:
        """The pages up to where the tail begins."""
        page = self._first
        while await self._goes_on():
            yield page
            if self._position >= self._tail.begin:
                return
            self._wanted = behind(self._wanted, page)
            page = await self._feed.read(self._wanted)

    async def _live(self) -> AsyncIterator[Sequence[Told]]:
        """The events of the tail as they come. Nothing, when it is time to say so."""
        self._sent_at = self._clock()
        while await self._goes_on():
            if self._position < self._tail.begin:
                log.warning("a stream of events is closed: its client is more than %d events behind", KEPT)
                return
            news = self._tail.news
            events = [event for event in self._tail.after(self._position) if event.is_wanted(self._wanted)]
            self._position = max(self._position, self._tail.end)
            if events or self._clock() >= self._sent_at + KEEP_ALIVE_S:
                yield events
                self._sent_at = self._clock()
            else:
                await _wait(news, LOOK_S)

    async def _goes_on(self) -> bool:
        if self._tail.is_over or self._feed.is_closing:
            return False
        if self._clock() < self._looked_at + LOOK_S:
            return True
        self._looked_at = self._clock()
        return await self._may_go_on()


def _parts(events: Sequence[Told]) -> Iterator[bytes]:
    """The events as parts of a good size."""
    part = bytearray()
    for event in events:
        part += f"id: {event.position}\nevent: {PREFIX}{event.type}\ndata: {event.text}\n\n".encode()
        if len(part) >= PART_BYTES:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)


def _progress(position: int) -> bytes:
    """Tells a client how far it is, without an event: it goes on from there when it connects again."""
    return b"id: %d\n\n" % position


async def _wait(news: asyncio.Event, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await news.wait()
    except TimeoutError:
        return
