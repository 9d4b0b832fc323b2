"""Rounds of background work: each goes on whatever happens, pauses in between, and keeps no other from its work."""

import asyncio
from typing import Any

import pytest

from orders.background import Round, run_forever
from orders.postgres.database import DatabaseUnavailable

HOUR_S = 3600.0


class Work:
    """Rounds that end as they are told, one after another; then they say that they are through."""

    def __init__(self, *ends: Any) -> None:
        self.ends = list(ends)
        self.is_through = asyncio.Event()

    async def once(self) -> Any:
        if not self.ends:
            self.is_through.set()
            return False
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


async def run_until(is_through: asyncio.Event, *rounds: Round) -> None:
    running = asyncio.create_task(run_forever(rounds))
    await asyncio.wait_for(is_through.wait(), 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_goes_on_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(DatabaseUnavailable("it is away"), ValueError("a bug"), 3)
    await run_until(work.is_through, Round("recovery", work.once, 0.0))
    said = [record.getMessage() for record in caplog.records]
    assert said == ["recovery waits for the database: it is away", "a round of recovery failed"]


async def test_one_that_hangs_or_pauses_keeps_no_other_waiting() -> None:
    never, work = asyncio.Event(), Work(1, 2, 3)
    await run_until(work.is_through, Round("hangs", never.wait, 0.0), Round("works", work.once, 0.0))


async def test_without_more_to_do_it_pauses() -> None:
    rare, often = Work(False, False), Work(1, 2, 3)
    await run_until(often.is_through, Round("rare", rare.once, HOUR_S), Round("often", often.once, 0.0))
    assert len(rare.ends) == 1


async def test_where_there_is_more_it_pauses_for_a_shorter_time() -> None:
    work = Work(True, True)
    await run_until(work.is_through, Round("days", work.once, HOUR_S, more_pause_s=0.0))


async def test_news_end_a_pause_and_are_told_once() -> None:
    news, work = asyncio.Event(), Work(False)
    news.set()
    await run_until(work.is_through, Round("sharing", work.once, HOUR_S, news=news))
    assert not news.is_set()


async def test_without_news_it_goes_on_after_the_pause() -> None:
    work = Work(False)
    await run_until(work.is_through, Round("sharing", work.once, 0.01, news=asyncio.Event()))


async def test_however_much_news_there_is_it_rests_in_between() -> None:
    news, work = asyncio.Event(), Work(False, False, False)
    rest_s = 0.05
    began_at = asyncio.get_running_loop().time()

    async def once() -> object:
        news.set()
        return await work.once()

    await run_until(work.is_through, Round("giving positions", once, HOUR_S, news=news, rest_s=rest_s))
    assert asyncio.get_running_loop().time() - began_at >= 3 * rest_s
