"""The task of one endpoint that has work: turns at the database, and attempts that run at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

from orders.postgres.database import DatabaseUnavailable
from orders.webhooks.model import Result
from orders.webhooks.sending import Sender
from orders.webhooks.turn import Ready, Turn

log = logging.getLogger(__name__)

AGAIN_S = 0.5
"""Pause before a task goes on after it could not reach the database. The results are kept meanwhile."""

TakeTurn = Callable[[list[Result]], Awaitable[Turn]]


class Work:
    """What is being sent to one endpoint. `take_turn` records results, and takes what may be sent now."""

    def __init__(self, webhook_id: UUID, take_turn: TakeTurn, sender: Sender) -> None:
        self.news = asyncio.Event()
        """Set when there may be something to take, and when an attempt has ended."""
        self._webhook_id = webhook_id
        self._take_turn = take_turn
        self._sender = sender
        self._results: list[Result] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._behind_at: int | None = None

    async def run(self) -> None:
        """Go on until there is nothing to take, and nothing under way. If cancelled: end what is under way."""
        try:
            while await self._go_on():
                pass
        finally:
            for task in self._sending:
                task.cancel()

    async def _go_on(self) -> bool:
        self.news.clear()
        results, self._results = self._results, []
        try:
            turn = await self._take_turn(results)
        except DatabaseUnavailable as error:
            log.warning("webhook %s waits for the database: %s", self._webhook_id, error)
            self._results = results + self._results
            await asyncio.sleep(AGAIN_S)
            return True
        self._tell(turn)
        for ready in turn.ready:
            self._start(ready)
        is_moving = turn.behind_at is not None and turn.behind_at != self._behind_at
        self._behind_at = turn.behind_at
        if self._sending and not is_moving:
            await self.news.wait()
        return is_moving or bool(self._sending or self._results) or self.news.is_set()

    def _start(self, ready: Ready) -> None:
        task = asyncio.create_task(self._send(ready))
        self._sending.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self.news.set()

    async def _send(self, ready: Ready) -> None:
        if ready.body is None:
            self._results.append(Result(ready.message, datetime.now(UTC), 0, error="event_gone"))
            return
        sent = await self._sender.send(ready.endpoint.url, ready.message, ready.body, ready.keys)
        self._results.append(sent.result)

    def _tell(self, turn: Turn) -> None:
        for notice in turn.recorded.notices:
            log.warning("%s: webhook %s%s", notice, self._webhook_id, _because(turn))


def _because(turn: Turn) -> str:
    return f" ({turn.recorded.disabled})" if turn.recorded.disabled else ""
