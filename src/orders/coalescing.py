"""A data loader: calls that arrive while one load runs share the next load. Nothing waits for a timer."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Coalescer(Generic[K, V]):
    """Answers `get(key)` from `load(keys)`, which gets all keys that have gathered.

    At most `parallel` loads run at once, each of at most `size` keys. If `load` leaves a key out, its answer is None.
    """

    def __init__(self, load: Callable[[Sequence[K]], Awaitable[dict[K, V]]], parallel: int, size: int = 200) -> None:
        self._load = load
        self._size = size
        self._idle = parallel
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def get(self, key: K) -> V | None:
        """The value for `key`, or None. Raises what the `load` with this key raised."""
        future: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        self._start()
        return await future

    def _start(self) -> None:
        if self._idle and self._waiting:
            self._idle -= 1
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self) -> None:
        keys = list(self._waiting)[: self._size]
        batch = {key: self._waiting.pop(key) for key in keys}
        try:
            values = await self._load(keys)
        except BaseException as error:
            for future in _still_waiting(batch):
                future.set_exception(error)  # raised in every caller of this load
            if not isinstance(error, Exception):
                raise
        else:
            for key, futures in batch.items():
                for future in _still_waiting({key: futures}):
                    future.set_result(values.get(key))
        finally:
            self._idle += 1
            self._start()


def _still_waiting(batch: dict[K, list[asyncio.Future[V | None]]]) -> Iterator[asyncio.Future[V | None]]:
    """The futures of callers that still wait. A cancelled caller's future is already done."""
    return (future for futures in batch.values() for future in futures if not future.done())
