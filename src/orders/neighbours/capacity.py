"""How much a neighbour can take: calls wait here for their turn, and what their answers were like is learnt from."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from orders.neighbours.concurrency import Concurrency, Learnt
from orders.neighbours.gate import Call, Gate
from orders.neighbours.reply import NoAnswer, NotSent, Reply
from orders.neighbours.turns import Turns
from orders.postgres.database import DatabaseUnavailable

log = logging.getLogger(__name__)

MAX_CALLS = 64
"""Maximum of calls at once where no other is set: connections are not free for a neighbour either."""


@dataclass(slots=True)
class Answered:
    """A call that was answered. `was_alone`: no other was under way meanwhile; `was_full`: as many were as may be.
    Times are the event loop's, in seconds.
    """

    reply: Reply
    was_alone: bool
    was_full: bool
    began_at: float
    latency_s: float


class Capacity:
    """How much the neighbour called `name` can take. `bound`: maximum of calls at once; `call_s`: time-out of a call.

    Without `turns`, calls of other replicas are taken for harmless. `on_news` is called when replicas have to be told.
    """

    def __init__(
        self, name: str, bound: int = MAX_CALLS, call_s: float = float("inf"), turns: Turns | None = None
    ) -> None:
        self.on_news: Callable[[], object] = lambda: None
        self._name = name
        self._bound = bound
        self._call_s = call_s
        self._turns = turns
        self._now = asyncio.get_running_loop().time
        self._concurrency = Concurrency(bound)
        self._gate = Gate(lambda: self._concurrency.limit(self._now()))

    @property
    def is_proven(self) -> bool:
        """Whether calls may overlap."""
        return self._concurrency.is_proven

    @property
    def allows_one(self) -> bool:
        """Whether calls must not overlap just now."""
        return self._concurrency.limit(self._now()) == 1

    def learnt(self) -> Learnt:
        """What was learnt so far."""
        return self._concurrency.learnt(self._now())

    def adopt(self, learnt: Learnt) -> None:
        """Go on from what another replica has learnt, or this one before a restart."""
        if learnt.is_fragile:
            log.warning("%s is known to mix up calls that overlap: it gets one at a time.", self._name)
        self._concurrency.adopt(learnt, self._now())

    def believes(self, *, was_alone: bool) -> bool:
        """Whether a bad answer counts; if not, it has to be asked for again alone."""
        return self._concurrency.believes(was_alone=was_alone)

    async def call(
        self, exchange: Callable[[], Awaitable[Reply]], flow: Hashable, *, alone: bool, first: bool = False
    ) -> Answered:
        """`exchange()`, once its turn has come, or before all that wait (`first`). Raises what it raises, NoAnswer with
        `was_alone`.
        """
        call = self._gate.enter_now(flow, alone=alone, first=first)
        call = call or await self._gate.enter(flow, alone=alone, first=first)
        began_at = self._now()
        failed: NoAnswer | None = None
        try:
            reply = await (exchange() if self._concurrency.is_proven else self._in_turn(exchange))
        except NoAnswer as error:
            failed = error
        finally:
            self._gate.leave(call)
        now = self._now()
        if failed:
            self._note_trouble(call, now, began_at)
            failed.was_alone = call.was_alone
            raise failed
        latency_s = now - began_at
        if reply.status == 429 or latency_s > self._call_s / 2:
            self._note_trouble(call, now, began_at)
        return Answered(reply, call.was_alone, call.was_full, began_at, latency_s)

    def _note_trouble(self, call: Call, now: float, began_at: float) -> None:
        if not call.was_alone:
            self._concurrency.on_trouble(now, began_at)

    async def _in_turn(self, exchange: Callable[[], Awaitable[Reply]]) -> Reply:
        """Where calls must not overlap, those of other replicas must not either."""
        if self._turns is None:
            return await exchange()
        try:
            await self._turns.enter()
        except DatabaseUnavailable as error:
            raise NotSent(f"whose turn it is to call {self._name} can't be found out: {error}") from None
        try:
            return await exchange()
        finally:
            self._turns.leave()

    def note_right(self, answered: Answered, *, is_checked: bool) -> None:
        """The answer was right. `is_checked`: it names what was asked for."""
        was_proven = self._concurrency.is_proven
        self._concurrency.on_right(
            self._now(),
            answered.latency_s,
            overlapped=not answered.was_alone,
            is_full=answered.was_full,
            is_checked=is_checked,
        )
        self._tell_if_proven(was_proven)

    def _tell_if_proven(self, was_proven: bool) -> None:
        if self._concurrency.is_proven != was_proven:
            log.info("%s answers calls that overlap rightly: it gets up to %d at once.", self._name, self._bound)
            self.on_news()

    def note_wrong(self, what: str, began_at: float) -> None:
        """An answer to a call that began then was mixed up. `what`: where that was seen."""
        now = self._now()
        if self._concurrency.on_wrong(now, began_at):
            log.warning(
                "%s mixes up calls that overlap (seen at %s): it gets one at a time; two are tried again in %.0f s.",
                self._name,
                what,
                self._concurrency.learnt(now).probe_in_s,
            )
            self.on_news()

    def note_confirmed(self, *, was_alone: bool, is_checked: bool) -> None:
        """A bad answer was given again alone. `was_alone`: so it was the first time."""
        was_proven = self._concurrency.is_proven
        self._concurrency.on_confirmed(self._now(), overlapped=not was_alone, is_checked=is_checked)
        self._tell_if_proven(was_proven)

    async def close(self) -> None:
        """Let another replica have its turn."""
        if self._turns:
            await self._turns.close()
