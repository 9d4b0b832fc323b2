"""What a principal may ask for in one process: requests at once, and requests per second. Pure: time is a parameter.

A bucket holds what may be asked for. It fills evenly, and each request takes its cost out. What a request costs beyond
that is known only later, and may put the bucket into debt: then the next requests wait. A request that costs more than
another also takes the room of several among those that may be under way at once.
"""

import functools
import math
from collections import OrderedDict
from dataclasses import dataclass

BURST_S = 3
"""Size of a bucket in seconds: what a principal that has rested may ask for at once."""

DEBT_S = 10
"""Maximum debt in seconds: no single request, however large, keeps the next one waiting for longer."""

SHARE = 4
"""Divisor of the room for requests at once: no request takes more of it, so a large one leaves room for small ones."""

CONCURRENCY_RETRY_S = 1
"""Seconds after which a principal with too many requests at once is told to ask again."""

SWEPT_AT_ONCE = 2
"""Number of known principals that are looked at when a new one comes. Two, so that more are forgotten than come."""


@dataclass(frozen=True)
class Policy:
    """Limits of a principal: requests per second (0: any number), and requests at once."""

    rate: int
    concurrency: int

    @functools.cached_property
    def size(self) -> int:
        """Size of the bucket."""
        return self.rate * BURST_S

    @functools.cached_property
    def most(self) -> int:
        """Maximum room that one request takes."""
        return max(1, self.concurrency // SHARE)

    def room(self, cost: float) -> int:
        """Room that a request of this cost takes among those that are under way."""
        return min(math.ceil(cost), self.most)

    @functools.cached_property
    def header(self) -> bytes:
        """The value of `RateLimit-Policy`, as draft-ietf-httpapi-ratelimit-headers has it."""
        in_flight = f'"in-flight";q={self.concurrency};qu="concurrent-requests"'
        return (f'"default";q={self.size};w={BURST_S}, {in_flight}' if self.rate else in_flight).encode()


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that a request goes beyond: the name of its policy, and after how long it is worth asking again."""

    policy: str
    retry_after_s: int


class Allowance:
    """The bucket of one principal, and the room that its requests under way take."""

    __slots__ = ("_at", "_left", "in_flight", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.in_flight = 0
        self._left = math.inf
        self._at = 0.0

    def take(self, cost: int, now: float) -> Excess | None:
        """Begin a request of this cost, or say what it goes beyond. What is begun has to be ended by `give_back`."""
        policy = self.policy
        room = policy.room(cost)
        if self.in_flight + room > policy.concurrency:
            return Excess("in-flight", CONCURRENCY_RETRY_S)
        rate = policy.rate
        if rate:
            left = self._fill(now)
            if left < 1:
                return Excess("default", math.ceil((1 - left) / rate))
            self._left = max(left - cost, -DEBT_S * rate)
        self.in_flight += room
        return None

    def take_more(self, cost: float, more: float, now: float) -> Excess | None:
        """Take what a request of this cost costs besides, before it is done. If that goes beyond the room, nothing is
        taken. The bucket may go into debt.
        """
        room = self.policy.room(cost + more) - self.policy.room(cost)
        if self.in_flight + room > self.policy.concurrency:
            return Excess("in-flight", CONCURRENCY_RETRY_S)
        self.in_flight += room
        self.charge(more, now)
        return None

    def give_back(self, cost: float) -> None:
        """End a request of this cost, with all that was taken for it. The bucket fills by time alone."""
        self.in_flight -= self.policy.room(cost)

    def charge(self, cost: float, now: float) -> None:
        """Take out of the bucket what a request has cost besides."""
        rate = self.policy.rate
        if rate:
            self._left = max(self._fill(now) - cost, -DEBT_S * rate)

    def header(self) -> bytes:
        """The value of `RateLimit` for a principal with a rate: whole requests that are left, and seconds until the
        bucket is full.
        """
        policy, left = self.policy, self._left
        return b'"default";r=%d;t=%d' % (left if left > 0 else 0, math.ceil((policy.size - left) / policy.rate))

    def is_idle(self, now: float) -> bool:
        """Whether it is like a new one: nothing is under way, and the bucket is full."""
        return not self.in_flight and (not self.policy.rate or self._fill(now) == self.policy.size)

    def _fill(self, now: float) -> float:
        """What is in the bucket now."""
        policy = self.policy
        left = self._left + (now - self._at) * policy.rate
        self._left = left = left if left < policy.size else policy.size
        self._at = now
        return left


class Allowances:
    """The allowance of each principal that has asked lately. Idle ones are forgotten when new ones come."""

    def __init__(self) -> None:
        self._by_owner: OrderedDict[str, Allowance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_owner)

    def of(self, owner: str, policy: Policy, now: float) -> Allowance:
        """The allowance of this owner, from now on by this policy: a key may have got another rate."""
        found = self._by_owner.get(owner)
        if found is None:
            self._sweep(now)
            found = self._by_owner[owner] = Allowance(policy)
        else:
            found.policy = policy
        return found

    def _sweep(self, now: float) -> None:
        """Forget the oldest ones if they are idle. The others are looked at again later."""
        for _ in range(min(SWEPT_AT_ONCE, len(self._by_owner))):
            owner, allowance = self._by_owner.popitem(last=False)
            if not allowance.is_idle(now):
                self._by_owner[owner] = allowance
