"""HTTP to a neighbour: GET and PUT with a time-out, retries for GET, and a rest for a neighbour that keeps failing.

A bad answer that came while other calls were under way may be another call's: it is asked for again alone before
anybody is told. What replies mean is for `catalog` and `cart`.
"""

import asyncio
import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import stamina
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState
from purgatory.service._async.circuitbreaker import AsyncCircuitBreaker
from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError

from orders.neighbours.capacity import Capacity
from orders.neighbours.reply import (
    MAX_REPLY_BYTES,
    CircuitOpen,
    MalformedReply,
    MixedUp,
    NoAnswer,
    NotSent,
    Reply,
    TimedOut,
    TooLarge,
    header,
    read_body,
    reason,
    was_not_sent,
)

T = TypeVar("T")

LOOKS = 3
"""Maximum number of times that one question is asked because its answer is bad."""

LOOK_AGAIN_S = 0.05
"""Pause before the last of them: a client that we don't know of may have been overlapped."""

LARGE_BYTES = 128 * 1024
"""Size from which a reply is read on a thread: larger ones would hold up the event loop for milliseconds."""


@dataclass(slots=True)
class Found(Generic[T]):
    """What a reply says. `is_good`: it is what was asked for. Not found and empty are not: they are asked for again
    before an order is refused for them. `is_checked`: it names what was asked for, so it is no other call's answer;
    of a bad answer: that it is given twice says something, because few of its kind are expected at once.
    """

    value: T
    is_good: bool = True
    is_checked: bool = True


Understand = Callable[[Reply], Found[T]]
"""Reads a reply. Raises MalformedReply."""


@dataclass(slots=True)
class _Asked(Generic[T]):
    """A question that was answered, and in which company."""

    found: Found[T] | MalformedReply
    was_alone: bool
    began_at: float

    @property
    def is_final(self) -> bool:
        """Whether nothing is won by asking again."""
        return isinstance(self.found, TooLarge)

    def result(self) -> T:
        """What was found. Raises MalformedReply."""
        if isinstance(self.found, MalformedReply):
            raise self.found
        return self.found.value


class Neighbour:
    """One neighbouring service: its address, the shared client, how much it can take, and the circuit breaker."""

    def __init__(
        self,
        name: str,
        base_url: str,
        client: Client,
        breaker_failures: int,
        breaker_rest_s: float,
        capacity: Capacity | None = None,
    ) -> None:
        self.name = name
        self.base_url = base_url
        self.capacity = capacity or Capacity(name)
        self._client = client
        self._breakers = AsyncCircuitBreakerFactory(default_threshold=breaker_failures, default_ttl=breaker_rest_s)
        self._breaker: AsyncCircuitBreaker | None = None
        self._confirming = asyncio.Lock()

    # GET --------------------------------------------------------------------------------------------------------

    async def get(
        self,
        path: str,
        understand: Understand[T],
        *,
        flow: Hashable = None,
        surely: bool = False,
        max_bytes: int = MAX_REPLY_BYTES,
    ) -> T:
        """GET, and what `understand` finds in the reply. Tried up to three times with growing, jittered pauses; a bad
        answer is asked for again alone. `flow` is on whose behalf: flows take turns. `surely`: a bad answer counts only
        when it came LOOKS times.

        Raises NotSent, CircuitOpen or NoAnswer; MalformedReply also where the reply is larger than `max_bytes`.
        """
        asked = await self._ask(path, understand, flow, max_bytes)
        if self._is_settled(asked, surely):
            return asked.result()
        again = asked
        for look in range(1, LOOKS):
            if look > 1:
                await asyncio.sleep(LOOK_AGAIN_S)
            async with self._confirming:
                if self._is_settled(again, surely):  # since others were confirmed
                    return again.result()
                again = await self._ask(path, understand, flow, max_bytes, confirms=True)
            if self._is_settled(again, surely):
                break
        self._compare(path, asked, again)
        return again.result()

    def _is_settled(self, asked: _Asked[T], surely: bool) -> bool:
        """Whether this answer counts."""
        if isinstance(asked.found, MixedUp):  # also alone: a stranger, or another replica, called
            self.capacity.note_wrong(str(asked.found), asked.began_at)
        if isinstance(asked.found, Found) and asked.found.is_good:
            return asked.found.is_checked or asked.was_alone or self.capacity.is_proven
        return asked.is_final or (not surely and self.capacity.believes(was_alone=asked.was_alone))

    def _compare(self, path: str, asked: _Asked[T], again: _Asked[T]) -> None:
        """What the second answer says of the first one."""
        was_bad = isinstance(asked.found, MalformedReply) or not asked.found.is_good
        is_bad = isinstance(again.found, MalformedReply) or not again.found.is_good
        if was_bad and not is_bad:
            self.capacity.note_wrong(path, asked.began_at)
        elif was_bad and isinstance(asked.found, Found) and isinstance(again.found, Found):
            self.capacity.note_confirmed(was_alone=asked.was_alone, is_checked=asked.found.is_checked)

    async def _ask(
        self, path: str, understand: Understand[T], flow: Hashable, max_bytes: int, *, confirms: bool = False
    ) -> _Asked[T]:
        """One answer. `confirms`: the question is asked again, so alone. It goes first: behind all that wait, and are
        asked again in their turn, it would never be confirmed what the neighbour can take.
        """
        began_at = asyncio.get_running_loop().time()
        try:
            return await self._ask_once(path, understand, flow, max_bytes, confirms, first=confirms)
        except CircuitOpen:
            raise
        except (NotSent, NoAnswer) as error:
            failed = error
        # Only now: passing every call through the retrier cost as much CPU as the call itself (77 µs, measured).
        in_company = isinstance(failed, NoAnswer) and not isinstance(failed, TimedOut) and not failed.was_alone
        retry = stamina.AsyncRetryingCaller(attempts=2, wait_initial=0.05, wait_max=0.5, timeout=None)
        asked = await retry.on(_worth_a_retry)(
            self._ask_once, path, understand, flow, max_bytes, confirms or in_company
        )
        if in_company and self.capacity.allows_one:  # two at once were too many
            self.capacity.note_wrong(path, began_at)
        return asked

    async def _ask_once(
        self, path: str, understand: Understand[T], flow: Hashable, max_bytes: int, alone: bool, first: bool = False
    ) -> _Asked[T]:
        began_at = asyncio.get_running_loop().time()
        try:
            exchange = functools.partial(self._exchange, "GET", path, b"", {}, float("inf"), max_bytes)
            answered = await self.capacity.call(exchange, flow, alone=alone, first=first)
        except TooLarge as error:
            return _Asked(error, was_alone=True, began_at=began_at)
        reply = answered.reply
        try:
            is_large = len(reply.body) > LARGE_BYTES
            found = await asyncio.to_thread(understand, reply) if is_large else understand(reply)
        except MalformedReply as error:
            return _Asked(error, answered.was_alone, answered.began_at)
        if found.is_good or self.capacity.is_proven:  # "no cart" is right, too, until it is disproved
            self.capacity.note_right(answered, is_checked=found.is_checked)
        return _Asked(found, answered.was_alone, answered.began_at)

    # PUT --------------------------------------------------------------------------------------------------------

    async def put(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        not_after: float = float("inf"),
        *,
        flow: Hashable = None,
        alone: bool = False,
    ) -> Reply:
        """PUT, sent once, and not at all once the event loop's time is `not_after`. Alone, unless calls are proven to
        overlap well: what a PUT has done can't be seen in its answer.

        Raises NotSent, CircuitOpen, NoAnswer or MalformedReply: only the caller knows whether it may be repeated.
        """
        headers = {"Content-Type": "application/json", **(headers or {})}
        alone = alone or not self.capacity.is_proven
        exchange = functools.partial(self._exchange, "PUT", path, body, headers, not_after, MAX_REPLY_BYTES)
        answered = await self.capacity.call(exchange, flow, alone=alone)
        answered.reply.was_alone, answered.reply.is_proven = answered.was_alone, self.capacity.is_proven
        return answered.reply

    # Both -------------------------------------------------------------------------------------------------------

    async def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], not_after: float, max_bytes: int
    ) -> Reply:
        self._breaker = self._breaker or await self._breakers.get_breaker(self.name)
        if asyncio.get_running_loop().time() >= not_after:  # not a failure of the neighbour's
            raise NotSent(f"it is too late for {method} {path}")
        try:
            async with self._breaker:
                return await self._send(method, path, body, headers, max_bytes)
        except OpenedState:
            raise CircuitOpen(f"{self.name} keeps failing and is given a rest") from None

    async def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str], max_bytes: int) -> Reply:
        request = self._client.request(method, f"{self.base_url}{path}").headers(headers)
        try:
            async with (request.body_bytes(body) if body else request).build_streamed() as response:
                reply = Reply(response.status, await read_body(response, max_bytes), header(response, "etag"))
        except PyreqwestError as error:
            if was_not_sent(error):
                raise NotSent(f"{self.name} can't be reached: {reason(error)}") from None
            kind = TimedOut if isinstance(error, RequestTimeoutError) else NoAnswer
            raise kind(f"{self.name} did not answer {method} {path}: {reason(error)}") from None
        if reply.status >= 500 or reply.status == 408:
            raise NoAnswer(f"{self.name} answered {reply.status} to {method} {path}")
        return reply


def _worth_a_retry(error: Exception) -> bool:
    return isinstance(error, NotSent | NoAnswer) and not isinstance(error, CircuitOpen)
