"""Who waits for whom at the database: each kind of work has threads and a queue of its own, its lane."""

import itertools
from collections import Counter
from enum import StrEnum


class Lane(StrEnum):
    """A kind of work. What is in one lane never waits for what is in another."""

    PLACING = "placing"
    """Placing orders, closing their carts, and recovery."""
    LISTS = "lists"
    """Whatever may take seconds: lists, counts, events, the past, exports, reports, and summing days up."""
    READS = "reads"
    """Orders by their ID."""
    CHANGES = "changes"
    """Moving, cancelling, returning and describing orders, one or many, and dry runs of it."""
    HEALTH = "health"
    """Whether the database answers. It has one thread more, and does nothing else."""


_IN_TURN = (Lane.PLACING, Lane.LISTS, Lane.READS, Lane.CHANGES)


def share_threads(threads: int) -> dict[Lane, int]:
    """How many of these threads each lane gets. They are dealt out in turn, so that eight are two for each; a lane
    that gets none (of less than four) is not there, and its work is placing's.
    """
    return {**Counter(itertools.islice(itertools.cycle(_IN_TURN), threads)), Lane.HEALTH: 1}
