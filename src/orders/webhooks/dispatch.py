"""Sends what is due. Each endpoint with work has a task of its own, so that none waits for another.

Any replica does it: deliveries are taken under a lease. Nothing is lost if the process ends.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from uuid import UUID

from orders.events.feed import Positions
from orders.order.statuses import Workflow
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.webhooks.model import Endpoint, Message, Result
from orders.webhooks.sending import Sender, Sent
from orders.webhooks.signing import Sealing
from orders.webhooks.tick_sql import endpoints_to_tick
from orders.webhooks.turn import Turn, Turns
from orders.webhooks.work import Work

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""Maximum pause between two looks for endpoints with work: a retry may be that late. News of the feed ends it."""

CLOSE_S = 3.0
"""Timeout for attempts that are under way at a shutdown. Those that take longer count as lost, and are repeated."""


class Dispatch:
    """Sends what is due to all endpoints.

    `sealing` is None if there is no ORDERS_SECRET: then nothing is sent. `retries`: the pauses before each attempt, in
    seconds.
    """

    def __init__(
        self,
        database: Database,
        positions: Positions,
        workflow: Workflow,
        sender: Sender,
        sealing: Sealing | None,
        retries: Sequence[float],
    ) -> None:
        self.sealing = sealing
        self._turns = None if sealing is None else Turns(workflow, sealing, retries)
        self._database = database
        self._positions = positions
        self._sender = sender
        self._seen = 0
        self._works: dict[UUID, tuple[Work, asyncio.Task[None]]] = {}
        self._told: set[str] = set()
        self._is_closing = False

    async def look_once(self) -> None:
        """Wait for news of the feed, but not for long, and see to it that every endpoint with work has its task."""
        await self._wait_for_news()
        waiting = await self._database.run(endpoints_to_tick, Lane.WEBHOOKS)
        if self._turns is None:
            if waiting:
                self._tell_once("ORDERS_SECRET is not set: nothing is sent to webhooks, whose secrets can't be read")
            return
        for webhook_id in waiting:
            self._wake(webhook_id, self._turns)

    async def send_once(self, endpoint: Endpoint, message: Message) -> Sent | None:
        """Send this message now, and record nothing. None: the endpoint's secrets can't be read.

        Raises DatabaseUnavailable.
        """
        if (turns := self._turns) is None:
            return None
        ready = await self._database.run(lambda c: turns.prepare(c, endpoint, message), Lane.WEBHOOKS)
        if ready is None or ready.body is None:
            return None
        return await self._sender.send(endpoint.url, message, ready.body, ready.keys)

    async def close(self) -> None:
        """Take nothing more, and record attempts that are nearly done."""
        self._is_closing = True
        tasks = [task for _, task in self._works.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sender.close()

    async def _wait_for_news(self) -> None:
        news = self._positions.news
        if self._positions.last == self._seen:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await news.wait()
        self._seen = self._positions.last

    def _wake(self, webhook_id: UUID, turns: Turns) -> None:
        if self._is_closing:
            return
        if webhook_id not in self._works:
            work = Work(webhook_id, lambda results: self._take_turn(turns, webhook_id, results), self._sender)
            self._works[webhook_id] = work, asyncio.create_task(self._run(webhook_id, work))
        self._works[webhook_id][0].news.set()

    async def _run(self, webhook_id: UUID, work: Work) -> None:
        try:
            await work.run()
        except Exception:
            log.exception("sending to webhook %s failed", webhook_id)
        finally:
            del self._works[webhook_id]  # at once: news that comes now starts another task

    async def _take_turn(self, turns: Turns, webhook_id: UUID, results: Sequence[Result]) -> Turn:
        takes_more = not self._is_closing
        turn = await self._database.run(
            lambda c: turns.take(c, webhook_id, results, takes_more=takes_more), Lane.WEBHOOKS
        )
        if not turn.has_keys:
            self._tell_once(
                f"the secret of webhook {webhook_id} can't be read: ORDERS_SECRET is another one than before"
            )
        return turn

    def _tell_once(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            log.error("%s", sentence)
