"""The check that keeps each principal within its limits, so that none takes the service away from the others."""

import functools
import time
from collections.abc import Callable

from orders.access.limits import Allowance, Allowances, Excess, Policy
from orders.errors import Code, OrderError
from orders.principal import Principal, PrincipalKind
from orders.settings import Settings
from orders.wire.gate import Asked

_POLICY, _LIMIT = b"ratelimit-policy", b"ratelimit"


class Limits:
    """The limits of all principals in this process. Nothing is limited of a principal without an owner (`local`)."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._allowances = Allowances()
        self._usual = _policies(settings.orders_rate, settings.orders_concurrency)
        self._of_customers = _policies(settings.orders_customer_rate, settings.orders_customer_concurrency)

    def check(self, asked: Asked) -> OrderError | None:
        """The refusal of a request beyond the limits, or None. The principal has to be in the request's state."""
        state = asked.scope["state"]
        principal: Principal | None = state.get("principal")
        if principal is None or not principal.owner:
            return None
        now = self._now()
        is_customer = principal.kind is PrincipalKind.CUSTOMER
        policy = (self._of_customers if is_customer else self._usual)(principal.rate)
        allowance = self._allowances.of(principal.owner, policy, now)
        cost = asked.target.operation.cost
        excess = allowance.take(cost, now)
        headers = asked.answer_headers
        headers.append((_POLICY, policy.header))
        if policy.rate:
            headers.append((_LIMIT, allowance.header()))
        if excess:
            return _refusal(excess, policy)
        state["limits"] = begun = _Begun(allowance, cost, headers, self._now)
        asked.at_end = begun.end
        return None


class _Begun:
    """A request that was let in, and what it costs. Its routes know it as `costs.Limits`."""

    __slots__ = ("_allowance", "_cost", "_headers", "_now")

    def __init__(
        self, allowance: Allowance, cost: float, headers: list[tuple[bytes, bytes]], now: Callable[[], float]
    ) -> None:
        self._allowance = allowance
        self._cost = cost
        self._headers = headers
        self._now = now

    def end(self) -> None:
        """Make room for other requests of the principal."""
        self._allowance.give_back(self._cost)

    def take(self, cost: float) -> None:
        """Take what the request turns out to cost besides. Raises OrderError (429)."""
        excess = self._allowance.take_more(self._cost, cost, self._now())
        if excess:
            raise _refusal(excess, self._allowance.policy)
        self._cost += cost
        self._renew_header()

    def charge(self, cost: float) -> None:
        """Charge what the request has cost besides."""
        self._allowance.charge(cost, self._now())
        self._renew_header()

    def _renew_header(self) -> None:
        """Let the answer say what is left now."""
        if self._allowance.policy.rate:
            renewed = (_LIMIT, self._allowance.header())
            self._headers[:] = [renewed if header[0] is _LIMIT else header for header in self._headers]


def _policies(usual_rate: int, concurrency: int) -> Callable[[int | None], Policy]:
    """The policy of principals of one kind, by the rate of their own (None: the usual one)."""

    @functools.lru_cache(1000)
    def policy_of(rate: int | None) -> Policy:
        return Policy(usual_rate if rate is None else rate, concurrency)

    return policy_of


def _refusal(excess: Excess, policy: Policy) -> OrderError:
    """The error (429) for a request beyond this limit."""
    if excess.policy == "default":
        detail = f"This credential may ask for {policy.rate} requests per second, {policy.size} after a rest."
    else:
        detail = f"This credential may have {policy.concurrency} requests under way at once."
    detail += " Large requests count for several."
    extra = {"violated_policies": [excess.policy]}
    return OrderError(Code.RATE_LIMITED, detail, extra=extra, retry_after_s=excess.retry_after_s)
