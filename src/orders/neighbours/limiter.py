"""The limiter of calls to a neighbour: it admits as many at once as allowed, some of them alone, flow by flow."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

DRY_RUN = "dry run"
"""The flow of all dry runs."""

DRY_RUN_SHARE = 8
"""Divisor of the limit for dry runs: they get one call in eight, and at least one. Placing orders comes first."""


@dataclass(slots=True)
class Call:
    """A call that is under way.

    After `Limiter.leave`, `was_alone` says whether no other call was under way meanwhile, `was_full` whether the limit
    was reached.
    """

    flow: Hashable
    number: int
    was_alone: bool
    was_full: bool = False


_Waiting = tuple[asyncio.Future[Call], bool]
"""A call that waits for its turn, and whether it has to be alone."""

_NO_FLOW = object()


class Limiter:
    """Admits up to `limit()` calls at once.

    The calls of one request or batch are a flow. Flows take turns, so a flow of a thousand calls delays another flow's
    two calls by two. A call that has to be alone waits until no other is under way, and all others wait for it.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._under_way = 0
        self._dry_runs = 0
        self._admitted = 0
        self._is_closed = False  # a call that has to be alone is under way
        self._flows: OrderedDict[Hashable, deque[_Waiting]] = OrderedDict()  # the first flow has the next turn

    def enter_now(self, flow: Hashable = None, *, alone: bool = False, first: bool = False) -> Call | None:
        """Like `enter`, but returns None if the call would have to wait."""
        if (self._flows and not first) or not self._has_room(flow, alone=alone):
            return None
        return self._admit(flow, alone=alone)

    async def enter(self, flow: Hashable = None, *, alone: bool = False, first: bool = False) -> Call:
        """Wait for the turn. Pass the returned call to `leave`.

        With `first`, the call goes before all that wait. Use this for one call at a time, or those that wait would
        starve.
        """
        if call := self.enter_now(flow, alone=alone, first=first):
            return call
        future: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        waiting = (future, alone)
        self._queue(flow, waiting, first=first)
        self._open()  # a dry run that waits for its share delays nobody else
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave(future.result())
            else:
                self._forget(flow, waiting)
                self._open()  # the others may have waited for this call
            raise

    def leave(self, call: Call) -> None:
        """Note that the call has ended, in whatever way."""
        call.was_alone = call.was_alone and self._admitted == call.number
        call.was_full = self._under_way >= self._limit()
        self._under_way -= 1
        self._dry_runs -= call.flow == DRY_RUN
        self._is_closed = False
        if self._flows:
            self._open()

    def _has_room(self, flow: Hashable, *, alone: bool) -> bool:
        if not self._under_way:
            return True
        if self._is_closed or alone or self._under_way >= self._limit():
            return False
        return flow != DRY_RUN or self._dry_runs < max(1, self._limit() // DRY_RUN_SHARE)

    def _admit(self, flow: Hashable, *, alone: bool) -> Call:
        self._admitted += 1
        call = Call(flow, self._admitted, was_alone=not self._under_way)
        self._under_way += 1
        self._dry_runs += flow == DRY_RUN
        self._is_closed = alone
        return call

    def _open(self) -> None:
        """Admit calls in turn while there is room."""
        while (flow := self._next_flow()) is not _NO_FLOW:
            waiting = self._flows[flow]
            future, alone = waiting.popleft()
            while future.done():  # its caller has given up
                future, alone = waiting.popleft()
            if waiting:
                self._flows.move_to_end(flow)  # other flows have their turn first
            else:
                del self._flows[flow]
            future.set_result(self._admit(flow, alone=alone))

    def _next_flow(self) -> Hashable:
        """The first flow whose next call may go. Only dry runs are passed over. A call that has to be alone is never
        passed over: it would wait for as long as others come.
        """
        for flow, waiting in self._flows.items():
            alone = next((alone for future, alone in waiting if not future.done()), None)
            if alone is None:  # all callers of this flow have given up
                continue
            if self._has_room(flow, alone=alone):
                return flow
            if flow != DRY_RUN or alone:
                break
        return _NO_FLOW

    def _queue(self, flow: Hashable, waiting: _Waiting, *, first: bool) -> None:
        calls = self._flows.setdefault(flow, deque())
        if first:
            calls.appendleft(waiting)
            self._flows.move_to_end(flow, last=False)
        else:
            calls.append(waiting)

    def _forget(self, flow: Hashable, waiting: _Waiting) -> None:
        """Remove a call whose caller no longer waits."""
        calls = self._flows.get(flow, deque())
        if waiting in calls:
            calls.remove(waiting)
            if not calls:
                del self._flows[flow]
