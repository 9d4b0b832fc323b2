"""A process that dies, or loses an answer, at a chosen one of its outside effects."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

from orders.machinery import Machinery
from orders.neighbours.reply import NoAnswer
from orders.postgres.database import DatabaseUnavailable


class Died(BaseException):
    """kill -9: nothing catches it, and nothing that the process does afterwards has an effect."""


class How(Enum):
    DIE_BEFORE = "dies before"
    DIE_AFTER = "dies after"
    LOST = "loses the answer of"
    LATE = "gives up on, and it lands late"


def can_be_spoilt(how: How, effect: str) -> bool:
    """Whether this way to go wrong can befall this effect: only a PUT can land late."""
    return how is not How.LATE or effect.startswith("PUT")


class Saboteur:
    """Counts a process's effects (each commit, each HTTP call), and spoils the `at`-th of those that can be spoilt."""

    def __init__(self, at: int = 0, how: How = How.DIE_BEFORE, late_s: float = 0.3) -> None:
        self.effects: list[str] = []
        self.died = asyncio.Event()
        self._at = at
        self._chances = 0
        self._how = how
        self._late: list[asyncio.Task[None]] = []
        self._late_s = late_s

    def watch(self, built: Machinery) -> None:
        """From now on everything that this machinery does outside passes through here."""
        run = built.database.run
        built.database.run = lambda *query: self._effect("commit", lambda: run(*query), DatabaseUnavailable)  # type: ignore[method-assign]
        for neighbour in (built.catalog._neighbour, built.carts._neighbour):
            neighbour._send = self._wrap(neighbour._send)  # type: ignore[method-assign]

    def _wrap(self, send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wrapped(method: str, path: str, *more: Any) -> Any:
            return await self._effect(f"{method} {path}", lambda: send(method, path, *more), NoAnswer)

        return wrapped

    async def land(self) -> None:
        """Return when what was on its way has arrived."""
        await asyncio.gather(*self._late)

    async def _arrive(self, effect: Callable[[], Awaitable[Any]]) -> None:
        await asyncio.sleep(self._late_s)
        await effect()

    async def _effect(self, name: str, effect: Callable[[], Awaitable[Any]], no_answer: type[Exception]) -> Any:
        self._require_alive()
        self.effects.append(name)
        is_chance = can_be_spoilt(self._how, name)
        self._chances += is_chance
        is_it = is_chance and self._chances == self._at
        if is_it and self._how is How.DIE_BEFORE:
            self._die()
        if is_it and self._how is How.LATE:
            self._late.append(asyncio.create_task(self._arrive(effect)))
            raise no_answer(f"{name} was given up")
        result = await effect()
        self._require_alive()
        if is_it and self._how is How.DIE_AFTER:
            self._die()
        if is_it and self._how is How.LOST:
            raise no_answer(f"the answer to {name} was lost")
        return result

    def _die(self) -> None:
        self.died.set()
        raise Died

    def _require_alive(self) -> None:
        if self.died.is_set():
            raise Died
