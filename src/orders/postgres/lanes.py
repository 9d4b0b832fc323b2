"""Lanes (bulkheads): each kind of work at the database has threads and a queue of its own."""

import itertools
from collections import Counter
from enum import StrEnum


class Lane(StrEnum):
    """A kind of work. Work in one lane never waits for work in another."""

    PLACING = "placing"
    """Placing orders, closing their carts, and recovery."""
    LISTS = "lists"
    """Work that may take seconds: lists, counts, events, the past, exports, reports, and summing days up."""
    READS = "reads"
    """Reading orders by their ID, and API keys."""
    CHANGES = "changes"
    """Moving, cancelling, returning and describing orders, one or many, and dry runs of these. Changing API keys."""
    EVENTS = "events"
    """Giving events their positions in the feed, and reading it. It has two threads, in addition to the others."""
    WEBHOOKS = "webhooks"
    """Recording and taking deliveries of webhooks. It has two threads, in addition to the others."""
    RELAYS = "relays"
    """Taking events for brokers, and recording what these have acknowledged. It has one thread, in addition to the
    others.
    """
    HEALTH = "health"
    """Asking whether the database answers. It has one thread, in addition to the others, and no other work."""


WRITING = (Lane.PLACING, Lane.CHANGES)
"""Lanes whose work changes orders, among other things."""

_IN_TURN = (Lane.PLACING, Lane.LISTS, Lane.READS, Lane.CHANGES)


def share_threads(threads: int) -> dict[Lane, int]:
    """Number of threads of each lane. They are dealt out in turn, so eight threads are two for each.

    With fewer than four threads some lanes get none. The work of these lanes is done in the lane for placing.
    """
    return {
        **Counter(itertools.islice(itertools.cycle(_IN_TURN), threads)),
        Lane.EVENTS: 2,
        Lane.WEBHOOKS: 2,
        Lane.RELAYS: 1,
        Lane.HEALTH: 1,
    }
