"""The choice of the entries that go along in the next batch, in the order of turns."""

from dataclasses import dataclass, field

from orders.placing.entry import Entry

PASSED_OVER = 8
"""Number of times that an entry may be left waiting when a batch is chosen. After them its products are kept free for
it, so that nothing starves.
"""

MOST_PRODUCTS = 256
"""Maximum number of products in a batch of several orders: four rounds of calls to a catalog that takes 64."""

SMALL = 64
"""Maximum number of products of a small order. An order whose turn has not come yet may join a batch only if the batch
then has at most as many.
"""


@dataclass(slots=True)
class Selection:
    """The next batch. Entries are offered in the order of their turns; each is in `chosen` or in `rest` then.

    `busy` are the products that another batch is at work on, and those that are held elsewhere; later also those that
    are kept free for an entry that was left waiting too often. `unsure` are busy products of which nobody knows when
    they are free: none is kept free for an entry. A large order has to be the first of its batch, if `takes_large`.
    """

    busy: set[int]
    unsure: set[int]
    takes_large: bool
    size: int
    now: float
    chosen: list[Entry] = field(default_factory=list)
    rest: list[Entry] = field(default_factory=list)
    _wanted: set[int] = field(default_factory=set)
    _only_once: set[tuple[str, object]] = field(default_factory=set)

    def offer(self, entry: Entry) -> None:
        """Take it along, or leave it waiting."""
        is_free = self._is_free(entry)
        if is_free and len(self.chosen) < self.size and self._fits(entry):
            self.chosen.append(entry)
            self._wanted |= entry.products
            self._only_once |= entry.only_once
        else:
            self._pass_over(entry, is_free=is_free)

    def _is_free(self, entry: Entry) -> bool:
        """Whether no other batch is at work on what it needs, and this one has neither its cart nor its reference."""
        return self.busy.isdisjoint(entry.products) and self._only_once.isdisjoint(entry.only_once)

    def _fits(self, entry: Entry) -> bool:
        if not self.chosen:
            return self._may_begin(entry)
        room = (MOST_PRODUCTS if entry.turn_at <= self.now else SMALL) - len(self._wanted)
        return is_small(entry) and len(entry.products - self._wanted) <= room

    def _may_begin(self, entry: Entry) -> bool:
        return self.takes_large or is_small(entry)

    def _pass_over(self, entry: Entry, *, is_free: bool) -> None:
        self.rest.append(entry)
        entry.is_hindered = entry.is_hindered or not is_free
        entry.passed_over += 1
        is_starving = entry.passed_over > PASSED_OVER and self._may_begin(entry)
        if is_starving and self.unsure.isdisjoint(entry.products):
            self.busy |= entry.products


def is_small(entry: Entry) -> bool:
    """Whether it may share a batch with others."""
    return len(entry.products) <= SMALL
