"""WRITE: sends a product's new stock to the catalog until it is certain what became of it."""

import asyncio
import random
from collections.abc import Hashable
from enum import Enum, auto

from orders.neighbours.catalog import SAID_NO, Catalog, Product, Written
from orders.neighbours.reply import MalformedReply, NoAnswer, NotSent
from orders.stock.plan import Adjustment


class Fate(Enum):
    """What became of a product's new stock."""

    LANDED = auto()  # acknowledged
    LANDED_UNACKNOWLEDGED = auto()  # landed, but an earlier PUT of the same value may land again
    REFUSED = auto()  # certainly not landed: the catalog refuses it, or it was never sent
    CHANGED = auto()  # certainly not landed: someone else wrote first
    DOUBT = auto()  # unknown; recovery will find out


DID_LAND = (Fate.LANDED, Fate.LANDED_UNACKNOWLEDGED)
DID_NOT = (Fate.REFUSED, Fate.CHANGED)


DISPUTES = 3
"""Number of refusals that count as a refusal. After each, the old stock was read back alone."""


async def write_stock(
    catalog: Catalog, product: Product, change: Adjustment, give_up_at: float, flow: Hashable = None
) -> Fate:
    """Send `after` until the outcome is certain, or the event loop's time is `give_up_at`. Raises nothing.

    Only this one value is ever sent. A second value could be overwritten by a late PUT of the first.
    """
    now = asyncio.get_running_loop().time
    unanswered = disputes = 0
    disputed: Written | None = None
    pause_s = 0.05
    while now() < give_up_at:
        written = await catalog.write(product, change.after, give_up_at, flow, disputed=disputed)
        unanswered += written is Written.UNKNOWN
        if written in SAID_NO:
            disputes, disputed = disputes + 1, written
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
    """The outcome by reading back, after a PUT without an answer or with a disputed one. None: send the same value
    again.

    After DISPUTES refusals, finding the old stock means that the catalog refuses the new one.
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
    return Fate.DOUBT  # a stranger wrote, before or after our PUT landed: the outcome can't be told


def _fate(written: Written, unanswered: int, disputes: int) -> Fate | None:
    """The outcome by one PUT's result, or None if it is not certain yet.

    `unanswered`: number of PUTs before it without an answer. `disputes`: number of refusals, which may be another
    call's answers.

    An ETag does not exclude a late arrival: an ETag that is a hash of the content comes back with the content.
    """
    if written is Written.DONE:
        return Fate.LANDED_UNACKNOWLEDGED if unanswered else Fate.LANDED
    # otherwise one of our own PUTs may have changed it
    if written is Written.CHANGED and not unanswered and not disputes:
        return Fate.CHANGED
    return None


def jittered(pause_s: float) -> float:
    """A random pause of about `pause_s`: replicas that began together must not go on together."""
    return pause_s * random.uniform(0.5, 1.5)  # noqa: S311 (a pause is no secret)
