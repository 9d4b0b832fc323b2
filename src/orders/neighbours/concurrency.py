"""How many calls to one neighbour may be under way at once, learnt from its answers. Pure: time is a parameter.

The rule is TCP's: quick growth until the first trouble, slow growth after it, half at each trouble. One thing is ours:
an answer can be *wrong*, because some neighbours mix up calls that overlap. Therefore a neighbour first has to prove
that its calls may overlap. The proof uses GETs, because their answers can be checked. ADR 19 has the reasons.
"""

from dataclasses import dataclass, replace

PROOF = 64
"""Number of right answers to overlapping GETs after which PUTs may overlap, too. A neighbour that answers one in ten
wrong passes one proof in a thousand.
"""

PROOF_LIMITS = (1, 2, 4, 8)
"""Limits during the proof, each for a quarter of it. They rise because calls are mixed up more often when
more of them overlap.
"""

FIRST_PROBE_S = 60.0
"""Pause after the first wrong answer before two calls are tried again. Each further pause is ten times as long."""

LAST_PROBE_S = 24 * 3600.0
"""Maximum pause between two probes. A neighbour that was mended is found out within a day."""

FORGIVEN_AFTER = 10_000
"""Number of right answers to overlapping calls after which earlier wrong ones are forgiven."""

SLOWDOWN = 4.0
"""Growth stops while answers take more than this many times as long as the quickest ones."""

SLOWDOWN_S = 0.02
"""Seconds that answers may take longer in any case: a busy machine of our own adds this much."""

CAREFUL = 0.75
"""Share of the limit at the last trouble above which growth is ten times slower: the trouble may still be there."""

CONFIRMATIONS = 8
"""Number of bad answers in a row, confirmed alone, after which the next ones of a proven neighbour are believed."""

BELIEVED = 256
"""Number of bad answers that are then believed before one is confirmed alone again."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What is remembered of a neighbour. `wrong_count`: number of mixed-up answers. `probe_in_s`: seconds until two
    calls at once may be tried.
    """

    limit: int = 1
    is_proven: bool = False
    wrong_count: int = 0
    probe_in_s: float = 0.0

    @property
    def is_fragile(self) -> bool:
        """Whether the neighbour is known to mix up calls that overlap."""
        return self.wrong_count > 0 and not self.is_proven

    @property
    def verdict(self) -> tuple[bool, int]:
        """The part that replicas have to agree on. Each finds its own limit."""
        return self.is_proven, self.wrong_count


class Concurrency:
    """The limit of one neighbour. `bound` is its maximum; with 1, calls never overlap, in any replica."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._latency_s = 0.0
        self._least_s = float("inf")
        self._cut_at = self._wrong_at = -float("inf")
        self.adopt(Learnt(), 0.0)

    def adopt(self, learnt: Learnt, now: float) -> None:
        """Continue from what was learnt before, here or by another replica."""
        self.is_proven = learnt.is_proven and self._bound > 1
        self.wrong_count = learnt.wrong_count
        self._limit = float(min(learnt.limit, self._bound)) if self.is_proven else 1.0
        self._probe_at = now + learnt.probe_in_s
        self._proof = self._confirmed = self._right = 0
        self._ceiling = float("inf")  # the limit at the last trouble

    def learnt(self, now: float) -> Learnt:
        """What is worth remembering."""
        return Learnt(int(self._limit), self.is_proven, self.wrong_count, max(0.0, self._probe_at - now))

    def limit(self, now: float) -> int:
        """How many calls may be under way at once."""
        if self.is_proven:
            return int(self._limit)
        if now < self._probe_at:
            return 1
        step = self._proof * len(PROOF_LIMITS) // PROOF
        return min(PROOF_LIMITS[step], self._bound)

    def believes(self, *, was_alone: bool) -> bool:
        """Whether a bad answer counts (not found, the wrong shape, a refusal). If not, the question is asked again
        alone.

        An unproven neighbour may mix our calls up with those of clients that we don't know of, so being alone is not
        enough there. Nor is it for the first bad answer of a proven one: it may begin to mix up calls just now, and
        other replicas call it, too.
        """
        if not self.is_proven:
            return False
        if was_alone:
            return self._confirmed > 0
        if self._confirmed < CONFIRMATIONS:
            return False
        self._confirmed = self._confirmed + 1 if self._confirmed < CONFIRMATIONS + BELIEVED else CONFIRMATIONS - 1
        return True

    def on_confirmed(self, now: float, *, overlapped: bool, is_checked: bool) -> None:
        """Note that a bad answer was given again alone, so it was right. It counts for the proof, because most
        customers of some shops have no cart. `is_checked` is False for a catalog's "not found": two such answers that
        were mixed up look alike, and prove nothing.
        """
        self._confirmed = min(self._confirmed + 1, CONFIRMATIONS)
        if not self.is_proven:
            self._prove(now, overlapped=overlapped, is_checked=is_checked)

    def on_right(self, now: float, latency_s: float, *, overlapped: bool, is_full: bool, is_checked: bool) -> None:
        """Note a right answer. `is_full`: the limit of calls was reached. `is_checked`: the answer names what was asked
        for, so it is not another call's.
        """
        self._latency_s += 0.1 * (latency_s - self._latency_s) if self._latency_s else latency_s
        # the minimum rises slowly: a neighbour may move to a slower place
        self._least_s = min(self._least_s * 1.0001, latency_s)
        if not self.is_proven:
            self._prove(now, overlapped=overlapped, is_checked=is_checked)
        elif overlapped:
            self._right += 1
            if self._right == FORGIVEN_AFTER:
                self.wrong_count = 0
            if is_full and self._latency_s <= SLOWDOWN * self._least_s + SLOWDOWN_S:
                self._limit = min(self._limit + self._step(), self._bound)
        elif self._limit < 2:
            self._limit = 2.0  # nothing overlaps any more: begin anew, as TCP does

    def _step(self) -> float:
        """Growth of the limit per right answer. It doubles the limit per round until the first trouble. After that it
        adds one per round, and a tenth near the limit of that trouble.
        """
        if self._ceiling == float("inf"):
            return 1.0
        return (1.0 if self._limit < CAREFUL * self._ceiling else 0.1) / self._limit

    def _prove(self, now: float, *, overlapped: bool, is_checked: bool) -> None:
        is_first_step = self._proof < PROOF // len(PROOF_LIMITS)
        if self._bound == 1 or now < self._probe_at or not is_checked or not (overlapped or is_first_step):
            return
        self._proof += 1
        if self._proof == PROOF:
            self.adopt(replace(self.learnt(now), is_proven=True, limit=PROOF_LIMITS[-1]), now)

    def on_wrong(self, now: float, began_at: float) -> bool:
        """Note that a call which began at `began_at` got another call's answer, or a bad one where a call alone got a
        good one.

        Returns whether this is news. The other calls that were under way then are no further evidence.
        """
        if began_at <= self._wrong_at or (self.wrong_count and now < self._probe_at):
            return False
        self._wrong_at = now
        self.wrong_count += 1
        pause_s = min(FIRST_PROBE_S * 10.0 ** min(self.wrong_count - 1, 9), LAST_PROBE_S)
        self.adopt(Learnt(1, False, self.wrong_count, pause_s), now)
        return True

    def on_trouble(self, now: float, began_at: float) -> None:
        """Halve the limit: an overlapping call which began at `began_at` failed, or nearly took too long. This happens
        once for all calls that were under way then.
        """
        if self.is_proven and began_at > self._cut_at:
            self._cut_at, self._ceiling = now, self._limit
            self._limit = max(1.0, self._limit / 2)
