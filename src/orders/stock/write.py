"""WRITE: telling the catalog a product's new stock until it is certain what became of it."""

import asyncio
import random
from collections.abc import Hashable
from enum import Enum, auto

from orders.neighbours.catalog import Catalog, Product, Written
from orders.neighbours.reply import MalformedReply, NoAnswer, NotSent
from orders.stock.plan import Adjustment


class Fate(Enum):
    """What became of a product's new stock."""

    LANDED = auto()  # acknowledged
    LANDED_UNACKNOWLEDGED = auto()  # landed, but an earlier PUT of the same value may land again
    REFUSED = auto()  # certainly not: the catalog will not have it, or it never left
    CHANGED = auto()  # certainly not: someone else wrote first
    DOUBT = auto()  # nobody knows; recovery will


DID_LAND = (Fate.LANDED, Fate.LANDED_UNACKNOWLEDGED)
DID_NOT = (Fate.REFUSED, Fate.CHANGED)


DISPUTES = 3
"""Refusals in a row, each with the old stock read back alone after it, that are a refusal."""


async def write_stock(
    catalog: Catalog, product: Product, change: Adjustment, give_up_at: float, flow: Hashable = None
) -> Fate:
    """Send `after` until the catalog's answer is certain, or the event loop's time is `give_up_at`. Raises nothing.

    Only this one value is ever sent: another could be undone by one of ours that arrives late.
    """
    now = asyncio.get_running_loop().time
    unanswered = disputes = 0
    pause_s = 0.05
    while now() < give_up_at:
        written = await catalog.write(product, change.after, give_up_at, flow, alone=disputes > 0)
        unanswered += written is Written.UNKNOWN
        disputes += written is Written.DISPUTED
        fate = _fate(written, unanswered, disputes)
        if fate is None:
            fate = await _read_back(catalog, product, change, written, unanswered, disputes)
        if fate is not None:
            return fate
        await asyncio.sleep(jittered(pause_s))
        pause_s = min(pause_s * 2, 1.0)
    return Fate.DOUBT if unanswered or disputes else Fate.REFUSED


async def _read_back(
    catalog: Catalog, product: Product, change: Adjustment, written: Written, unanswered: int, disputes: int
) -> Fate | None:
    """What the catalog says after a PUT without an answer, or with a disputed one; None: send the same value again.

    After DISPUTES refusals the old stock says that it is refused.
    """
    if not unanswered and not disputes:
        return None
    try:
        found = await catalog.read(product.id, surely=True)
    except (NotSent, NoAnswer, MalformedReply):
        return None
    if found and found.quantity == change.after:
        return Fate.LANDED_UNACKNOWLEDGED if unanswered else Fate.LANDED
    if found and found.quantity == change.before and written is not Written.CHANGED:
        is_refused = written is Written.DISPUTED and disputes >= DISPUTES
        return Fate.REFUSED if is_refused and not unanswered else None
    return Fate.DOUBT  # a stranger wrote, before or after what we sent has landed: nobody can tell


def _fate(written: Written, unanswered: int, disputes: int) -> Fate | None:
    """What one PUT's result says for certain, given how many before it went unanswered, or were refused by what may be
    another call's answer; None: not certain yet.

    An ETag does not end the danger of a late arrival: one that is a hash of the content comes back with the content.
    """
    if written is Written.DONE:
        return Fate.LANDED_UNACKNOWLEDGED if unanswered else Fate.LANDED
    if written is Written.CHANGED and not unanswered and not disputes:  # or it was one of ours that changed it
        return Fate.CHANGED
    return None


def jittered(pause_s: float) -> float:
    """A pause of about this length, so that replicas that began together do not go on together."""
    return pause_s * random.uniform(0.5, 1.5)  # noqa: S311 (a pause is no secret)
