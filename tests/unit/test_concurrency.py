"""How many calls a neighbour gets at once: simulated neighbours, each with a nature that the limit has to find out."""

import heapq
import random
from dataclasses import dataclass, field

import pytest

from orders.neighbours.concurrency import (
    BELIEVED,
    CONFIRMATIONS,
    FIRST_PROBE_S,
    FORGIVEN_AFTER,
    PROOF,
    Concurrency,
    Learnt,
)

BOUND = 64


@dataclass
class Simulation:
    """A neighbour that answers after `latency_s` (growing with what is under way beyond `parallel`), and clients that
    always have a call to make. An answer is mixed up with `wrong_rate` if another call was under way; beyond `fails_at`
    calls at once the call fails.
    """

    parallel: int = 1000
    latency_s: float = 0.02
    wrong_rate: float = 0.0
    fails_at: int = 1000
    bound: int = BOUND
    clients: int = 200
    seed: int = 7
    now: float = 0.0
    wrong: int = 0
    failed: int = 0
    most: int = 0
    limits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.concurrency = Concurrency(self.bound)
        self.chance = random.Random(self.seed)

    def run(self, calls: int) -> "Simulation":
        """So many calls, one after another or overlapping as the limit allows."""
        under_way: list[tuple[float, float, int]] = []  # ends, began, how many were under way
        for _ in range(calls):
            while len(under_way) >= min(self.concurrency.limit(self.now), self.clients):
                self._end(under_way)
            company = len(under_way) + 1
            self.most = max(self.most, company)
            latency_s = self.latency_s * max(1.0, company / self.parallel) * self.chance.uniform(0.9, 1.1)
            heapq.heappush(under_way, (self.now + latency_s, self.now, company))
        while under_way:
            self._end(under_way)
        return self

    def _end(self, under_way: list[tuple[float, float, int]]) -> None:
        limit = self.concurrency.limit(self.now)
        is_full = len(under_way) >= limit
        self.now, began_at, company = heapq.heappop(under_way)
        overlapped = company > 1 or bool(under_way)
        self.limits.append(limit)
        if overlapped and self.chance.random() < self.wrong_rate:
            self.wrong += self.concurrency.on_wrong(self.now, began_at)
        elif company > self.fails_at:
            self.failed += 1
            self.concurrency.on_trouble(self.now, began_at)
        else:
            latency_s = self.now - began_at
            self.concurrency.on_right(self.now, latency_s, overlapped=overlapped, is_full=is_full, is_checked=True)


def test_a_good_neighbour_soon_gets_all_that_it_may() -> None:
    good = Simulation().run(400)
    assert good.concurrency.is_proven
    assert good.concurrency.limit(good.now) == BOUND


@pytest.mark.parametrize("wrong_rate", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_one_that_mixes_calls_up_is_found_out_before_puts_may_overlap(wrong_rate: float, seed: int) -> None:
    fragile = Simulation(wrong_rate=wrong_rate, seed=seed).run(1000)
    assert fragile.concurrency.learnt(fragile.now).is_fragile or (wrong_rate == 0.05 and fragile.wrong)
    assert fragile.concurrency.limit(fragile.now) == 1 or wrong_rate == 0.05
    if wrong_rate >= 0.2:
        assert fragile.most <= 8


def test_it_is_tried_again_ever_more_rarely() -> None:
    fragile = Simulation(wrong_rate=0.5)
    fragile.run(200)
    assert fragile.concurrency.learnt(fragile.now).probe_in_s <= FIRST_PROBE_S
    fragile.now += 48 * 3600
    for expected_s in (600, 6000, 60_000, 24 * 3600, 24 * 3600):
        fragile.now += 24 * 3600
        fragile.run(200)
        assert expected_s * 0.9 < fragile.concurrency.learnt(fragile.now).probe_in_s <= expected_s


def test_one_that_was_mended_is_found_out_and_forgiven() -> None:
    mended = Simulation(wrong_rate=0.5).run(200)
    mended.wrong_rate, mended.now = 0.0, mended.now + FIRST_PROBE_S
    mended.run(400)
    assert mended.concurrency.limit(mended.now) == BOUND
    assert mended.concurrency.wrong_count == 1
    mended.run(FORGIVEN_AFTER)
    assert mended.concurrency.wrong_count == 0


def test_calls_that_were_under_way_together_count_as_one_wrong_answer() -> None:
    concurrency = Concurrency(BOUND)
    concurrency.adopt(Learnt(64, is_proven=True), now=100)
    assert [concurrency.on_wrong(101 + n / 100, began_at=100.5) for n in range(60)] == [True] + 59 * [False]
    assert concurrency.limit(102) == 1
    assert not concurrency.is_proven


def test_one_that_fails_beyond_ten_at_once_is_kept_at_about_that() -> None:
    weak = Simulation(fails_at=10).run(300)
    failed_first = weak.failed
    weak.run(3000)
    late = weak.limits[-2000:]
    assert 4 <= sum(late) / len(late) <= 12
    assert failed_first < 64
    assert weak.failed < 0.06 * 3300


def test_one_that_works_on_few_at_once_gets_no_more_than_it_has_time_for() -> None:
    serial = Simulation(parallel=2).run(3000)
    assert serial.concurrency.limit(serial.now) <= 32  # of 64; more would only wait in its queue


def test_an_outage_halves_once_for_all_that_were_under_way() -> None:
    concurrency = Concurrency(BOUND)
    concurrency.adopt(Learnt(64, is_proven=True), now=0)
    for _ in range(64):
        concurrency.on_trouble(1.0, began_at=0.5)
    assert concurrency.limit(1.0) == 32
    for n in range(20):
        concurrency.on_trouble(2.0 + n, began_at=1.5 + n)
    assert concurrency.limit(30) == 1
    concurrency.on_right(31, 0.02, overlapped=False, is_full=True, is_checked=True)
    assert concurrency.limit(31) == 2


def test_with_a_bound_of_one_calls_never_overlap() -> None:
    single = Simulation(bound=1).run(1000)
    assert single.most == 1
    assert not single.concurrency.is_proven  # so that replicas take turns, too


def test_an_answer_that_can_t_be_checked_proves_nothing() -> None:
    concurrency = Concurrency(BOUND)
    for n in range(1000):
        concurrency.on_right(n, 0.02, overlapped=False, is_full=True, is_checked=False)
    assert concurrency.limit(1000) == 1


def test_a_bad_answer_is_believed_alone_or_after_many_that_were_confirmed() -> None:
    concurrency = Concurrency(BOUND)
    assert not concurrency.believes(was_alone=True)  # clients that we don't know of may overlap
    concurrency.adopt(Learnt(64, is_proven=True), now=0)
    assert not concurrency.believes(was_alone=True)  # it may begin to mix up calls just now
    concurrency.on_confirmed(0, overlapped=True, is_checked=False)
    assert concurrency.believes(was_alone=True)
    for _ in range(2):
        for _ in range(CONFIRMATIONS):
            assert not concurrency.believes(was_alone=False)
            concurrency.on_confirmed(0, overlapped=True, is_checked=True)
            if concurrency.believes(was_alone=False):
                break
        believed = 1
        while concurrency.believes(was_alone=False):
            believed += 1
        assert believed == BELIEVED + 1
    concurrency.on_wrong(1, began_at=0.5)
    assert not concurrency.believes(was_alone=False)


def test_what_was_learnt_outlives_a_restart() -> None:
    good = Simulation().run(400)
    again = Concurrency(BOUND)
    again.adopt(good.concurrency.learnt(good.now), now=5000)
    assert (again.limit(5000), again.is_proven) == (BOUND, True)
    fragile = Simulation(wrong_rate=0.5).run(100)
    again.adopt(fragile.concurrency.learnt(fragile.now), now=5000)
    assert again.limit(5001) == 1
    assert again.limit(5001 + FIRST_PROBE_S) == 1  # the proof begins anew, with one
    assert PROOF > 0


def test_bad_answers_that_were_right_are_a_proof_too() -> None:
    """As of a cart service in a shop where hardly anybody has a cart."""
    concurrency = Concurrency(BOUND)
    for n in range(PROOF):
        concurrency.on_confirmed(n, overlapped=concurrency.limit(n) > 1, is_checked=True)
    assert concurrency.is_proven
