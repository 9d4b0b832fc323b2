"""Products that are not free elsewhere, and when to ask for them again."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class _Pause:
    """The pause before a product is asked for again. It grows while the product stays held."""

    FIRST_S: ClassVar[float] = 0.008
    MOST_S: ClassVar[float] = 0.1

    until: float = 0.0
    length_s: float = FIRST_S

    def once_more(self, now: float) -> "_Pause":
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 (a pause is no secret)
        return _Pause(now + self.length_s * jitter, min(self.length_s * 2, self.MOST_S))


class Held:
    """The products that another replica holds, or that are quiet, by what CLAIM said."""

    def __init__(self) -> None:
        self._pauses: dict[int, _Pause] = {}

    def note(self, products: Iterable[int], now: float) -> None:
        """These are held. Each rests for a pause, a longer one each time."""
        self._pauses = {p: pause for p, pause in self._pauses.items() if pause.until > now - 1}
        for product_id in products:
            self._pauses[product_id] = self._pauses.get(product_id, _Pause()).once_more(now)

    def resting(self, now: float) -> set[int]:
        """The products that are not to be asked for yet."""
        return {product_id for product_id, pause in self._pauses.items() if pause.until > now}

    def next_end(self, now: float) -> float:
        """When the next pause ends; infinity: none is under way."""
        return min((pause.until for pause in self._pauses.values() if pause.until > now), default=float("inf"))
