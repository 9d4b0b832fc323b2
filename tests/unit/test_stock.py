"""What becomes of a product's new stock, for everything that the catalog may answer to a PUT and to a look at it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from orders.neighbours.catalog import Product, Written
from orders.neighbours.reply import NoAnswer
from orders.stock import write as stock
from orders.stock.plan import Adjustment
from orders.stock.write import Fate, write_stock

DONE, UNKNOWN, CHANGED = Written.DONE, Written.UNKNOWN, Written.CHANGED
DISPUTED = Written.DISPUTED
BEFORE, AFTER, STRANGE = 5, 3, 90
GONE, SILENT = None, NoAnswer("no answer")
WHISPERS = Product(7, "Whispers", 10, BEFORE, None, {})


@dataclass
class ScriptedCatalog:
    """Answers PUTs and GETs from two lists; after their ends it stays silent and unknown."""

    writes: list[Written]
    reads: list[int | Exception | None] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    async def write(self, product: Product, quantity: int, *_: object, **__: object) -> Written:
        self.sent.append(quantity)
        return self.writes.pop(0) if self.writes else UNKNOWN

    async def read(self, product_id: int, **_: object) -> Product | None:
        found = self.reads.pop(0) if self.reads else SILENT
        if isinstance(found, Exception):
            raise found
        return None if found is None else Product(product_id, "Whispers", 10, found, None, {})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "jittered", lambda pause_s: 0)


async def put(catalog: ScriptedCatalog, patience_s: float = 5) -> Fate:
    give_up_at = asyncio.get_running_loop().time() + patience_s
    return await write_stock(catalog, WHISPERS, Adjustment(BEFORE, AFTER), give_up_at)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("writes", "reads", "fate"),
    [
        ([DONE], [], Fate.LANDED),
        ([CHANGED], [], Fate.CHANGED),
        ([Written.NOT_SENT, DONE], [], Fate.LANDED),
        ([Written.NOT_SENT, CHANGED], [], Fate.CHANGED),
        ([UNKNOWN], [AFTER], Fate.LANDED_UNACKNOWLEDGED),
        ([UNKNOWN], [STRANGE], Fate.DOUBT),
        ([UNKNOWN], [GONE], Fate.DOUBT),
        ([UNKNOWN, DONE], [BEFORE], Fate.LANDED_UNACKNOWLEDGED),
        ([UNKNOWN, DONE], [SILENT], Fate.LANDED_UNACKNOWLEDGED),
        ([UNKNOWN, CHANGED], [BEFORE, AFTER], Fate.LANDED_UNACKNOWLEDGED),
        ([UNKNOWN, CHANGED], [BEFORE, BEFORE], Fate.DOUBT),  # someone wrote it back, or had not written yet
        ([UNKNOWN, CHANGED], [BEFORE, STRANGE], Fate.DOUBT),
        ([UNKNOWN, UNKNOWN, DONE], [BEFORE, BEFORE], Fate.LANDED_UNACKNOWLEDGED),
        ([UNKNOWN, Written.NOT_SENT, DONE], [BEFORE, BEFORE], Fate.LANDED_UNACKNOWLEDGED),
        ([DISPUTED], [AFTER], Fate.LANDED),  # it was done, and the answer was another call's
        ([DISPUTED], [STRANGE], Fate.DOUBT),
        ([DISPUTED], [GONE], Fate.DOUBT),
        ([DISPUTED, DONE], [BEFORE], Fate.LANDED),
        ([DISPUTED, DONE], [SILENT], Fate.LANDED),
        ([DISPUTED, DISPUTED], [BEFORE, AFTER], Fate.LANDED),
        ([DISPUTED] * 3, [BEFORE] * 3, Fate.REFUSED),
        ([DISPUTED] * 4, [BEFORE, BEFORE, SILENT, BEFORE], Fate.REFUSED),
        ([UNKNOWN, DISPUTED], [BEFORE, AFTER], Fate.LANDED_UNACKNOWLEDGED),
        ([DISPUTED, UNKNOWN, DONE], [BEFORE, BEFORE], Fate.LANDED_UNACKNOWLEDGED),
        ([DISPUTED, CHANGED], [SILENT, AFTER], Fate.LANDED),  # the first one has landed, and changed the ETag
        ([DISPUTED, CHANGED], [BEFORE, STRANGE], Fate.DOUBT),
    ],
    ids=repr,
)
async def test_a_put_is_sent_until_it_is_certain_what_became_of_it(
    writes: Sequence[Written], reads: Sequence[int | Exception | None], fate: Fate
) -> None:
    catalog = ScriptedCatalog(list(writes), list(reads))
    assert await put(catalog) is fate
    assert catalog.sent == [AFTER] * len(writes)  # never another value
    assert not catalog.reads


async def test_who_has_no_time_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, loop = ScriptedCatalog([DONE]), asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    assert await put(catalog, patience_s=0) is Fate.REFUSED
    assert catalog.sent == []


@pytest.mark.parametrize(
    ("written", "fate"), [(UNKNOWN, Fate.DOUBT), (DISPUTED, Fate.DOUBT), (Written.NOT_SENT, Fate.REFUSED)]
)
async def test_at_the_end_of_its_time_it_is_in_doubt_only_if_something_was_sent(
    written: Written, fate: Fate, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, loop = ScriptedCatalog([written] * 3), asyncio.get_running_loop()
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + (0 if catalog.writes else 1000))
    assert await put(catalog, patience_s=900) is fate
    assert len(catalog.sent) == 3


async def test_it_is_not_sent_again_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(stock, "jittered", lambda pause_s: pauses.append(pause_s) or 0)
    await put(ScriptedCatalog([UNKNOWN] * 6 + [DONE]))
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
