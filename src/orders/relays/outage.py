"""An outage of a broker: how long to wait before it is tried again, and what the log is told of it. Pure."""

import math
import random

FIRST_PAUSE_S = 1.0
"""Pause after the first failure. It doubles with each one."""

LONGEST_PAUSE_S = 60.0
"""Longest pause between two tries: a broker that is back is found within a minute."""

TELL_S = 60.0
"""Time between two lines in the log while a broker is away."""


class Outage:
    """Failures in a row. Times are in seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self.count = 0
        self.due_at = -math.inf
        """When the broker may be tried again."""
        self._since = 0.0
        self._told_at = 0.0

    def fail(self, now: float) -> bool:
        """Note a failure. Returns whether the log is told."""
        if self.count == 0:
            self._since = now
        self.count += 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self.count - 1, 10))
        self.due_at = now + pause_s * random.uniform(0.5, 1)  # noqa: S311 (a pause is no secret)
        if self.count > 1 and now < self._told_at + TELL_S:
            return False
        self._told_at = now
        return True

    def end(self, now: float) -> float | None:
        """Note that it works. Returns how long it did not, in seconds; None: it did before."""
        if self.count == 0:
            return None
        self.count, self.due_at = 0, -math.inf
        return now - self._since
