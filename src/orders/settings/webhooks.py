"""Settings of webhooks: when a delivery is tried again, and which private addresses may be sent to."""

import re
from ipaddress import ip_address, ip_network

from orders.settings.tokens import listed

RETRIES = "0s,5s,5m,30m,2h,5h,10h,14h,20h,24h"
"""Default pauses before each attempt: the schedule of Standard Webhooks. The last attempt is after some three days."""

MAX_ATTEMPTS = 100
"""Maximum number of attempts of one delivery."""

_PAUSE = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)


def retries(text: str) -> str:
    """Pauses with commas. Raises ValueError."""
    pauses = listed(text)
    if not 1 <= len(pauses) <= MAX_ATTEMPTS or not all(_PAUSE.fullmatch(pause) for pause in pauses):
        raise ValueError(f"must be like 0s,5s,5m,2h, with at most {MAX_ATTEMPTS} pauses; s, m, h and d are the units")
    return text


def pauses_s(text: str) -> tuple[float, ...]:
    """The pauses in seconds."""
    found = (_PAUSE.fullmatch(pause) for pause in listed(text))
    return tuple(int(match[1]) * _SECONDS[match[2]] for match in found if match)


def allowed(text: str) -> str:
    """Networks and names with commas. Raises ValueError."""
    for entry in listed(text):
        if _is_like_a_network(entry):
            ip_network(entry)  # raises ValueError with the reason
        elif not _NAME.fullmatch(entry):
            raise ValueError(f"{entry!r} is neither a network like 10.1.0.0/16 nor a host's name")
    return text


def _is_like_a_network(entry: str) -> bool:
    try:
        ip_address(entry.partition("/")[0])
    except ValueError:
        return "/" in entry
    return True
