"""Sizes of values as they are stored and sent, and how names are cut to fit. Pure.

The maximum size of an order's document is 64 KiB and its lines' numbers. It consists of MAX_ATTACHED_BYTES,
MAX_NAMES_BYTES, and about 220 bytes for each of at most 500 lines.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

MAX_ATTACHED_BYTES = 24 * 1024
"""Maximum size of an order's metadata and notes together: two notes of 4,000 characters fit with metadata of 8 KiB, or
in Chinese without metadata.
"""

MAX_NAMES_BYTES = 40 * 1024
"""Maximum size of all product names of an order together: 500 names may have 80 bytes each."""

_CUT = "…"


def stored_bytes(value: Any) -> int:
    """The size of a JSON value in UTF-8 as PostgreSQL's jsonb writes it: with spaces, and with numbers written out
    (1e308 has 309 digits).

    Raises ValueError if a number is infinite or NaN, or a text has half of a surrogate pair.
    """
    if isinstance(value, Mapping):
        members = sum(stored_bytes(name) + 2 + stored_bytes(part) for name, part in value.items())
        return 2 + members + 2 * max(0, len(value) - 1)
    if isinstance(value, list):
        return 2 + sum(map(stored_bytes, value)) + 2 * max(0, len(value) - 1)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("must have no number that is infinite or none")
        return len(f"{Decimal(repr(value)):f}")
    try:
        return len(json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise ValueError("must be of whole characters: half of a surrogate pair is none") from None


def names_that_fit(names: Sequence[str]) -> list[str]:
    """The names, with the longest of them cut so that all fit into MAX_NAMES_BYTES."""
    if 6 * sum(map(len, names)) <= MAX_NAMES_BYTES:  # at most six bytes a character, as JSON
        return list(names)
    sizes = [stored_bytes(name) for name in names]
    if sum(sizes) <= MAX_NAMES_BYTES:
        return list(names)
    largest = _largest_size(sizes)
    return [name if size <= largest else _cut_to(name, largest) for name, size in zip(names, sizes, strict=True)]


def _largest_size(sizes: Sequence[int]) -> int:
    """The size to which the longest have to be cut so that all fit. Room that short ones leave is used by long ones."""
    left = MAX_NAMES_BYTES
    in_order = sorted(sizes)
    for n, size in enumerate(in_order):
        share = left // (len(in_order) - n)
        if size > share:
            return share
        left -= size
    return in_order[-1]


def _cut_to(name: str, size: int) -> str:
    """The longest beginning of this size, including the mark. The search relies on each character taking at least a
    byte.
    """
    length = bisect_right(range(size), size, key=lambda n: stored_bytes(name[:n] + _CUT)) - 1
    return name[: max(0, length)] + _CUT
