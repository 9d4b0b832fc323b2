"""Runs the calls to one neighbour: each waits for its turn, and its answer teaches how many calls may overlap."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from orders.neighbours.concurrency import Concurrency, Learnt
from orders.neighbours.limiter import Call, Limiter
from orders.neighbours.reply import NoAnswer, NotSent, Reply
from orders.neighbours.turns import Turns
from orders.postgres.database import DatabaseUnavailable

log = logging.getLogger(__name__)

MAX_CALLS = 64
"""Maximum number of calls at once if no other is set: connections are not free for a neighbour either."""

DOUBT_S = 2.5
"""Time after it was learnt that a neighbour mixes up calls, in which no bad answer counts. Other replicas learn it
within a second, and until then their calls overlap ours.
"""


@dataclass(slots=True)
class Answered:
    """A call that was answered. `was_alone`: no other call was under way meanwhile. `was_full`: the limit of calls was
    reached. Times are the event loop's, in seconds.
    """

    reply: Reply
    was_alone: bool
    was_full: bool
    began_at: float
    latency_s: float


class Capacity:
    """The calls to the neighbour called `name`. `bound`: maximum number of calls at once. `call_s`: timeout of a call.

    Without `turns`, calls of other replicas are assumed to do no harm. `on_news` is called when other replicas have to
    be told.
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
        self._doubted_until = float("-inf")
        self._concurrency = Concurrency(bound)
        self._limiter = Limiter(lambda: self._concurrency.limit(self._now()))

    @property
    def is_proven(self) -> bool:
        """Whether calls may overlap: the neighbour is proven."""
        return self._concurrency.is_proven

    @property
    def allows_one(self) -> bool:
        """Whether only one call at a time is allowed just now."""
        return self._concurrency.limit(self._now()) == 1

    def learnt(self) -> Learnt:
        """What this replica has learnt of the neighbour so far."""
        return self._concurrency.learnt(self._now())

    def adopt(self, learnt: Learnt) -> None:
        """Continue from what another replica has learnt, or this one before a restart."""
        if learnt.is_fragile:
            log.warning("%s is known to mix up calls that overlap: it gets one at a time.", self._name)
            self._doubted_until = self._now() + DOUBT_S
        self._concurrency.adopt(learnt, self._now())

    def believes(self, *, was_alone: bool) -> bool:
        """Whether a bad answer counts. If not, the question has to be asked again alone."""
        return self._concurrency.believes(was_alone=was_alone)

    def is_in_doubt(self, began_at: float) -> bool:
        """Whether a bad answer to a call that began at `began_at` can't count, because other replicas did not know yet
        that the neighbour mixes up calls.
        """
        return began_at < self._doubted_until

    async def call(
        self, exchange: Callable[[], Awaitable[Reply]], flow: Hashable, *, alone: bool, first: bool = False
    ) -> Answered:
        """Await the turn, then `exchange()`. With `first`, this call goes before all that wait.

        Raises what `exchange` raises. A NoAnswer then has its `was_alone`.
        """
        call = self._limiter.enter_now(flow, alone=alone, first=first)
        call = call or await self._limiter.enter(flow, alone=alone, first=first)
        began_at = self._now()
        failed: NoAnswer | None = None
        try:
            reply = await (exchange() if self._concurrency.is_proven else self._in_turn(exchange))
        except NoAnswer as error:
            failed = error
        finally:
            self._limiter.leave(call)
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
        """Make a call to a neighbour that is not proven. Its calls must not overlap those of other replicas either."""
        if self._turns is None:
            return await exchange()
        try:
            await self._turns.enter()
        except DatabaseUnavailable as error:
            raise NotSent(f"the turn to call {self._name} can't be taken: {error}") from None
        try:
            return await exchange()
        finally:
            self._turns.leave()

    def note_right(self, answered: Answered, *, is_checked: bool) -> None:
        """Note that the answer was right. `is_checked`: the answer names what was asked for."""
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
            log.info("%s does not mix up calls that overlap: it gets up to %d at once.", self._name, self._bound)
            self.on_news()

    def note_wrong(self, what: str, began_at: float) -> None:
        """Note that a call which began at `began_at` got a mixed-up answer. `what`: where that was seen."""
        now = self._now()
        if self._concurrency.on_wrong(now, began_at):
            self._doubted_until = now + DOUBT_S
            log.warning(
                "%s mixes up calls that overlap (seen at %s): it gets one at a time; two are tried again in %.0f s.",
                self._name,
                what,
                self._concurrency.learnt(now).probe_in_s,
            )
            self.on_news()

    def note_confirmed(self, *, was_alone: bool, is_checked: bool) -> None:
        """Note that a bad answer was given again alone. `was_alone`: the first call was alone, too."""
        was_proven = self._concurrency.is_proven
        self._concurrency.on_confirmed(self._now(), overlapped=not was_alone, is_checked=is_checked)
        self._tell_if_proven(was_proven)

    async def close(self) -> None:
        """Pass this replica's turn on."""
        if self._turns:
            await self._turns.close()
