"""HTTP to a neighbour: GET and PUT with a timeout, retries for GET, and a circuit breaker.

A bad answer that came while other calls were under way may belong to another call. The question is asked again alone
before the caller gets the answer. `catalog` and `cart` know what replies mean.
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
"""Maximum number of times that one question is asked while its answer is bad."""

LOOK_AGAIN_S = 0.05
"""Pause before the last repetition: our call may have overlapped one of a client that we don't know of."""

LOOKS_IN_DOUBT = 20
"""Maximum number of times that one question is asked while no bad answer counts (`capacity.DOUBT_S`)."""

LOOK_IN_DOUBT_S = 0.2
"""Pause between these."""

LARGE_BYTES = 128 * 1024
"""Minimum size of a reply that is read on a thread: larger ones would block the event loop for milliseconds."""


@dataclass(slots=True)
class Found(Generic[T]):
    """The meaning of a reply.

    `is_good`: the reply holds what was asked for. "Not found" and "empty" are bad: the question is repeated before an
    order is refused for them.

    `is_checked`: a good reply names what was asked for, so it is not another call's answer. For a bad reply it means
    that a repetition is evidence, because few bad replies of this kind are expected at once.
    """

    value: T
    is_good: bool = True
    is_checked: bool = True


Understand = Callable[[Reply], Found[T]]
"""A function that reads a reply. Raises MalformedReply."""


@dataclass(slots=True)
class _Asked(Generic[T]):
    """An answered question, and whether its call was alone."""

    found: Found[T] | MalformedReply
    was_alone: bool
    began_at: float

    @property
    def is_final(self) -> bool:
        """Whether asking again is pointless."""
        return isinstance(self.found, TooLarge)

    def result(self) -> T:
        """The value that was found. Raises MalformedReply."""
        if isinstance(self.found, MalformedReply):
            raise self.found
        return self.found.value


class Neighbour:
    """One neighbour: its address, the shared client, its capacity, and the circuit breaker."""

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
        """GET, and what `understand` finds in the reply.

        Sends up to three times, with growing, jittered pauses. A bad answer is asked for again alone. `flow`: on whose
        behalf; flows take turns. `surely`: a bad answer counts only if it came LOOKS times.

        Raises NotSent, CircuitOpen or NoAnswer; MalformedReply also if the reply is larger than `max_bytes`.
        """
        asked = await self._ask(path, understand, flow, max_bytes)
        if self._is_settled(asked, surely):
            return asked.result()
        again = asked
        for look in range(1, LOOKS_IN_DOUBT):
            is_in_doubt = self.capacity.is_in_doubt(again.began_at)
            if look >= LOOKS and not is_in_doubt:
                break
            if look > 1:
                await asyncio.sleep(LOOK_IN_DOUBT_S if is_in_doubt else LOOK_AGAIN_S)
            async with self._confirming:
                if self._is_settled(again, surely):  # other bad answers were confirmed while this one waited
                    return again.result()
                again = await self._ask(path, understand, flow, max_bytes, confirms=True)
            if self._is_settled(again, surely):
                break
        self._compare(path, asked, again)
        return again.result()

    def _is_settled(self, asked: _Asked[T], surely: bool) -> bool:
        """Whether this answer counts."""
        # even if alone: an unknown client, or another replica, may have called meanwhile
        if isinstance(asked.found, MixedUp):
            self.capacity.note_wrong(str(asked.found), asked.began_at)
        if isinstance(asked.found, Found) and asked.found.is_good:
            return asked.found.is_checked or asked.was_alone or self.capacity.is_proven
        if surely or self.capacity.is_in_doubt(asked.began_at):
            return asked.is_final
        return asked.is_final or self.capacity.believes(was_alone=asked.was_alone)

    def _compare(self, path: str, asked: _Asked[T], again: _Asked[T]) -> None:
        """Learn from the second answer what the first one was."""
        was_bad = isinstance(asked.found, MalformedReply) or not asked.found.is_good
        is_bad = isinstance(again.found, MalformedReply) or not again.found.is_good
        if was_bad and not is_bad:
            self.capacity.note_wrong(path, asked.began_at)
        elif was_bad and isinstance(asked.found, Found) and isinstance(again.found, Found):
            self.capacity.note_confirmed(was_alone=asked.was_alone, is_checked=asked.found.is_checked)

    async def _ask(
        self, path: str, understand: Understand[T], flow: Hashable, max_bytes: int, *, confirms: bool = False
    ) -> _Asked[T]:
        """Ask once, with one retry. `confirms`: the question is repeated, so it is asked alone.

        A repetition goes before all that wait. Behind them, its turn would come so late that what the neighbour can
        take would never be confirmed.
        """
        began_at = asyncio.get_running_loop().time()
        try:
            return await self._ask_once(path, understand, flow, max_bytes, confirms, first=confirms)
        except CircuitOpen:
            raise
        except (NotSent, NoAnswer) as error:
            failed = error
        # The retrier is used only after a failure: passing every call through it cost as much CPU as the call (77 µs).
        in_company = isinstance(failed, NoAnswer) and not isinstance(failed, TimedOut) and not failed.was_alone
        retry = stamina.AsyncRetryingCaller(attempts=2, wait_initial=0.05, wait_max=0.5, timeout=None)
        asked = await retry.on(_worth_a_retry)(
            self._ask_once, path, understand, flow, max_bytes, confirms or in_company
        )
        if in_company and self.capacity.allows_one:  # two calls at once were too many
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
        if found.is_good or self.capacity.is_proven:  # "no cart" counts as right, too, until it is disproved
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
        """PUT, sent once. Nothing is sent once the event loop's time is `not_after`.

        The call is alone unless the neighbour is proven, because the effect of a PUT can't be seen in its answer.

        Raises NotSent, CircuitOpen, NoAnswer or MalformedReply. Only the caller knows whether the PUT may be repeated.
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
        if asyncio.get_running_loop().time() >= not_after:  # our delay, not a failure of the neighbour
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
