"""What a broker is to a relay."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Protocol

from orders.relays.event import RelayedEvent

PUBLISH_S = 10.0
"""Timeout for the broker's acknowledgement of what was sent at once, and for connecting to it."""

CLOSE_S = 2.0
"""Timeout for closing a connection."""


class BrokerAway(Exception):
    """The broker can't be reached, does not acknowledge, or refuses. The message is for the log."""


class Sink(Protocol):
    """A place at a broker. It connects when it is first used, and again after `close`."""

    async def publish(self, events: Sequence[RelayedEvent]) -> None:
        """Publish these events of different orders. Returns when the broker has acknowledged all of them.

        Raises BrokerAway: some may have arrived, and some may not. It has to be closed then.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection, and send nothing that was not sent yet. Safe to repeat; raises nothing."""
        ...


async def acknowledged(answers: Iterable[Awaitable[Any]]) -> None:
    """Wait for all answers. Raises the first error, or TimeoutError. No answer is waited for afterwards."""
    waiting = [asyncio.ensure_future(answer) for answer in answers]
    try:
        async with asyncio.timeout(PUBLISH_S):
            await asyncio.gather(*waiting)
    finally:
        for answer in waiting:
            answer.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def reason(error: BaseException) -> str:
    """An error in a few words, on one line."""
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {PUBLISH_S:.0f} s"
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:300]
