"""A comparison: the service and something else are measured in turn, for several rounds, with a ratio in each round."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Pace:
    """The duration of measurements. `scale` multiplies the seconds of each."""

    rounds: int
    scale: float
    many_orders: int  # comparison 7
    memory_orders: int  # comparison 9
    memory_s: float  # timeout for placing them; a slower machine places fewer, and the table says how many
    curve: tuple[float, ...]  # offered load, in capacities


FULL = Pace(3, 1.0, 10_000_000, 200_000, 240, (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0))
QUICK = Pace(2, 0.3, 1_000_000, 10_000, 15, (1.0, 2.0))


@dataclass(frozen=True)
class Goal:
    """The minimum or maximum of the ratio or, if there is nothing to compare with, of the value itself."""

    at_least: float | None = None
    at_most: float | None = None

    def is_reached(self, value: float) -> bool:
        """Whether this value reaches the goal."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most

    def __str__(self) -> str:
        if self.at_least is None and self.at_most is None:
            return "reported"
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass(frozen=True)
class Result:
    """A row of the table. `ours` and `other` have a value per round; without `other` the goal is about `ours`."""

    number: int
    label: str  # a few words, for the plot
    work: str
    unit: str
    ours: Sequence[float]
    other: Sequence[float] = ()
    against: str = ""
    goal: Goal = field(default_factory=Goal)
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Ratios of ours to the other's, round by round: a disturbance of the machine disturbs both."""
        return [a / b for a, b in zip(self.ours, self.other, strict=True)] if self.other else []

    @property
    def is_reached(self) -> bool:
        """Whether the median reaches the goal."""
        return self.goal.is_reached(median(self.ratios or self.ours))

    def document(self) -> dict[str, Any]:
        """The result as the JSON file has it."""
        return {
            **asdict(self),
            "goal": str(self.goal),
            "ratios": self.ratios,
            "is_reached": self.is_reached,
        }


def in_turn(rounds: int, **sides: Callable[[], float]) -> dict[str, list[float]]:
    """Measure each side once per round. The order changes from round to round."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for n in range(rounds):
        names = list(sides)
        for name in names if n % 2 == 0 else reversed(names):
            began_at = time.perf_counter()
            found[name].append(sides[name]())
            took_s = time.perf_counter() - began_at
            print(f"    round {n + 1} of {rounds}: {name:<14} {found[name][-1]:>10.2f}   ({took_s:.0f} s)", flush=True)
    return found
