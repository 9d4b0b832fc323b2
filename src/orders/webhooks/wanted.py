"""The types that an endpoint can ask for: which there are, and what is said of one that there is not. Pure."""

import re
from collections.abc import Sequence

from orders.errors import invalid
from orders.order.events import EventType
from orders.webhooks.model import ALL_OF_ORDERS, ALL_TYPES, NOTICES, OF_WEBHOOKS, TYPE_PREFIX

OF_ORDERS = tuple(TYPE_PREFIX + kind.value for kind in EventType)
"""The types of orders' events, as receivers know them."""

FOR_ENDPOINTS = (*OF_ORDERS, *NOTICES, ALL_OF_ORDERS, OF_WEBHOOKS, ALL_TYPES)
"""What an endpoint can ask for: types, and patterns of types."""

FOR_REPLAYS = (*OF_ORDERS, ALL_OF_ORDERS, ALL_TYPES)
"""What can be replayed. Notices are no part of the feed."""


def pattern_of(types: Sequence[str]) -> str:
    """The pattern that these match, and nothing else."""
    return f"^({'|'.join(map(re.escape, types))})$"


def known(types: Sequence[str], known_types: Sequence[str] = FOR_ENDPOINTS) -> tuple[str, ...]:
    """The types, each once. Raises OrderError (422) for the first that there is not, and names those that there are."""
    for n, name in enumerate(types):
        if name not in known_types:
            there_are = ", ".join(known_types)
            raise invalid(f"#/types/{n}", "unknown_type", f"There is no type {name[:60]!r}; there are {there_are}.")
    return tuple(dict.fromkeys(types))
