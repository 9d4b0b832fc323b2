"""When a delivery is tried again, and when an endpoint is failing. Pure. Times are in seconds."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

JITTER = 0.2
"""Part of a pause by which it is made longer or shorter, so that endpoints that came back are not flooded."""

MAX_RETRY_AFTER_S = 24 * 3600.0
"""Maximum pause that an endpoint can ask for with `Retry-After`."""

PROBE_AFTER = 5
"""Number of failures in a row after which an endpoint gets one delivery at a time. The others keep their attempts."""

MIN_PROBE_S = 5.0
"""Pause before the first probe of a failing endpoint. It nearly doubles with each probe."""

MAX_PROBE_S = 300.0
"""Maximum pause between two probes of a failing endpoint."""

DISABLE_AFTER = timedelta(hours=72)
"""Time without a success after which a failing endpoint is disabled."""

DISABLE_FAILURES = 20
"""Minimum number of failed attempts in a row before a failing endpoint is disabled."""

NOTICES_AFTER = (timedelta(hours=1), timedelta(hours=24))
"""Times without a success after which the others are told that an endpoint is failing."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint: failed attempts in a row, and since when."""

    failed_in_row: int = 0
    failing_since: datetime | None = None

    def after_failure(self, now: datetime) -> "Health":
        """The health after one more failed attempt."""
        return Health(self.failed_in_row + 1, self.failing_since or now)

    def must_be_disabled(self, now: datetime) -> bool:
        """Whether the endpoint has failed for too long, and often enough."""
        since = self.failing_since
        return since is not None and now - since >= DISABLE_AFTER and self.failed_in_row >= DISABLE_FAILURES

    def notices(self, before: datetime, now: datetime) -> int:
        """How many of NOTICES_AFTER have become due since `before`."""
        since = self.failing_since
        return sum(since is not None and before < since + after <= now for after in NOTICES_AFTER)


def pause_s(retries: Sequence[float], attempts: int) -> float | None:
    """The pause after this number of attempts, with jitter. None: that was the last attempt."""
    if attempts >= len(retries):
        return None
    return retries[attempts] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 (no secret)


def probe_pause_s(health: Health, now: datetime) -> float:
    """The pause before a failing endpoint is asked again: as long as it has been failing, within limits. 0 if it is not
    failing.

    It is no matter of the number of failures: of those many come at once when a receiver is restarted.
    """
    if health.failed_in_row < PROBE_AFTER or health.failing_since is None:
        return 0.0
    failing_s = (now - health.failing_since).total_seconds()
    return min(max(failing_s, MIN_PROBE_S), MAX_PROBE_S)


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """The pause that `Retry-After` asks for, as seconds or as a date (RFC 9110, 10.2.3). None: none, or rubbish."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_S)
    try:
        until = _http_date(text)
    except ValueError:
        return None
    return min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _http_date(text: str) -> datetime:
    return datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
