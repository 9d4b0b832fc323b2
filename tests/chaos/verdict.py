"""The invariants, each as a function of the evidence: how much was looked at, and a sentence for whatever broke it."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.evidence import ClaimState, Evidence, Order, Put
from tests.chaos.load import NO_ANSWER, Shopper
from tests.chaos.shelf import OUTSIDE


@dataclass(frozen=True, slots=True)
class Row:
    """One invariant: what it says, what was looked at, and what broke it."""

    name: str
    promise: str
    checked: str
    broken: tuple[str, ...]


def judge(evidence: Evidence) -> list[Row]:
    """The verdict: a row per invariant."""
    return [
        _stock_adds_up(evidence),
        _no_put_is_wrong(evidence),
        _answers_are_true(evidence),
        _nothing_is_doubled(evidence),
        _nothing_stays_half_done(evidence),
        _one_value_at_a_time(evidence),
    ]


# I1 -----------------------------------------------------------------------------------------------------------------


def _stock_adds_up(evidence: Evidence) -> Row:
    return Row(
        "I1",
        "the stock is what it was, plus what was put in from outside, less what was ordered, plus what was given back",
        f"{len(evidence.initial)} products, {len(evidence.returns)} returns",
        (*_wrong_stocks(evidence), *_wrong_returns(evidence)),
    )


def _wrong_stocks(evidence: Evidence) -> Iterator[str]:
    kept: dict[int, int] = defaultdict(int)
    for order in evidence.orders:
        if order.is_placed and order.status != "Cancelled":
            for product_id, quantity in order.lines.items():
                kept[product_id] += quantity
    for product_id, initial in evidence.initial.items():
        restocked = evidence.restocked.get(product_id, 0)
        expected, found = initial + restocked - kept[product_id], evidence.final.get(product_id)
        if found != expected:
            hint = ", and the service noted a drift" if product_id in evidence.drifted else ""
            yield (
                f"product {product_id}: {found} in stock instead of {expected} "
                f"({initial} + {restocked} from outside - {kept[product_id]} in orders){hint}"
            )


def _wrong_returns(evidence: Evidence) -> Iterator[str]:
    """What was cancelled went back, each line once; what was not did not."""
    given_back: dict[str, dict[int, int]] = defaultdict(dict)
    for back in evidence.returns:
        if back.is_done:
            given_back[back.order_id][back.product_id] = back.quantity
    for order in evidence.orders:
        if order.is_placed:
            due = dict(order.lines) if order.status == "Cancelled" else {}
            if given_back[order.id] != due:
                yield f"order {order.id} ({order.status}): {given_back[order.id]} went back instead of {due}"


# I2 -----------------------------------------------------------------------------------------------------------------


def _no_put_is_wrong(evidence: Evidence) -> Row:
    ours = [put for put in evidence.puts if put.user_agent != OUTSIDE]
    life = Lives(evidence.claims)
    broken = [sentence for put in ours for sentence in _wrong_put(put, life)]
    broken += _unfounded_raises(evidence)
    return Row(
        "I2",
        "no PUT carries a negative quantity, raises the stock by more than is due back, or was not intended",
        f"{len(ours)} PUTs, {len(evidence.claims)} states of claims",
        tuple(broken),
    )


class Lives:
    """The life of each product's claim, for looking up what it was at a moment."""

    def __init__(self, states: Iterable[ClaimState]) -> None:
        self._states: dict[int, list[ClaimState]] = defaultdict(list)
        for state in states:
            self._states[state.product_id].append(state)

    def intent_for(self, put: Put) -> ClaimState | None:
        """The intent under which this PUT came: the claim's at that moment or, if it was quiet, the one before."""
        states = self._states[put.product_id]
        for state in reversed(states[: bisect_right(states, put.arrived_at, key=lambda s: s.at)]):
            if state.after is not None:
                return state if state.after == put.quantity else None
            if state.lands_until is None:
                return None
        return None

    def was_intended_before(self, put: Put) -> bool:
        """Whether some claim that has ended had this intent: then the PUT was its, and came too late."""
        states = self._states[put.product_id]
        return any(s.after == put.quantity for s in states[: bisect_right(states, put.arrived_at, key=lambda s: s.at)])


def _wrong_put(put: Put, life: Lives) -> Iterator[str]:
    name = f"product {put.product_id}: PUT {put.id} of {put.quantity}"
    if put.quantity is None or put.quantity < 0:
        yield f"{name} is no stock"
        return
    intent = life.intent_for(put)
    if intent is None:
        why = "came after its claim had ended" if life.was_intended_before(put) else "was intended by nobody"
        yield f"{name} {why}{'' if put.landed_at is None else f', and replaced a stock of {put.before}'}"
    elif put.landed_at is not None and put.before not in (intent.before, intent.after):
        yield f"{name} was to replace {intent.before}, and replaced {put.before}"


def _unfounded_raises(evidence: Evidence) -> Iterator[str]:
    for state in evidence.claims:
        if state.after is not None and state.before is not None and state.batch_id is not None:
            due = evidence.carried.get((state.batch_id, state.product_id), 0)
            if state.after - state.before > due:
                yield (
                    f"product {state.product_id}: batch {state.batch_id} meant to raise {state.before} "
                    f"to {state.after}, with {due} due back"
                )


# I3 -----------------------------------------------------------------------------------------------------------------


def _answers_are_true(evidence: Evidence) -> Row:
    orders = _placed_by_customer(evidence.orders)
    broken = [sentence for s in evidence.shoppers for sentence in _untrue_answers(s, orders.pop(s.customer_id, []))]
    broken += [f"customer {customer_id} has orders, and never asked for any" for customer_id in orders]
    answers = sum(len(shopper.attempts) for shopper in evidence.shoppers)
    unanswered = sum(attempt.code == NO_ANSWER for shopper in evidence.shoppers for attempt in shopper.attempts)
    return Row(
        "I3",
        "every 201 is an order that exists, once and as it was asked for; every other answer left none",
        f"{len(evidence.shoppers)} customers, {answers} requests, {unanswered} of them without an answer",
        tuple(broken),
    )


def _placed_by_customer(orders: Iterable[Order]) -> dict[int, list[Order]]:
    placed: dict[int, list[Order]] = defaultdict(list)
    for order in orders:
        if order.is_placed:
            placed[order.customer_id].append(order)
    return placed


def _untrue_answers(shopper: Shopper, placed: Sequence[Order]) -> Iterator[str]:
    name = f"customer {shopper.customer_id}"
    told = {attempt.order_id for attempt in shopper.attempts if attempt.order_id}
    ids = {order.id for order in placed}
    codes = [attempt.code for attempt in shopper.attempts]
    if not told <= ids:
        yield f"{name} was told 201 for {told - ids}, which is not placed"
    if len(placed) > 1:
        yield f"{name} wanted one order and has {len(placed)}: {sorted(ids)}"
    if placed and not told and (NO_ANSWER not in codes or _was_refused_for_good(shopper)):
        yield f"{name} was answered {codes}, and has order {placed[0].id}"
    for order in placed:
        if (not shopper.from_cart or shopper.cart_is_certain) and order.lines != shopper.lines:
            yield f"{name} asked for {shopper.lines}, and order {order.id} has {dict(order.lines)}"
        if (order.cart_id is not None) != shopper.from_cart:
            yield f"{name} asked for a cart: {shopper.from_cart}; order {order.id} is of cart {order.cart_id}"
        if not _status_is_as_told(shopper, order):
            yield f"{name} was told {shopper.cancellations} when cancelling, and order {order.id} is {order.status}"


def _was_refused_for_good(shopper: Shopper) -> bool:
    """Whether a key was answered with a refusal after all that went unanswered was over: that is its outcome."""
    last = max((a.ended_at for a in shopper.attempts if a.code == NO_ANSWER), default=0.0)
    kept = bool(shopper.key) and not shopper.from_cart
    return kept and any(a.status in (400, 500) and a.began_at > last for a in shopper.attempts)


def _status_is_as_told(shopper: Shopper, order: Order) -> bool:
    if "Cancelled" in shopper.cancellations:
        return order.status == "Cancelled"
    return order.status == "Ordered" or bool(shopper.cancellations)


# I4 -----------------------------------------------------------------------------------------------------------------


def _nothing_is_doubled(evidence: Evidence) -> Row:
    placed = _placed_by_customer(evidence.orders)
    with_key = [shopper for shopper in evidence.shoppers if shopper.key]
    with_cart = [shopper for shopper in evidence.shoppers if shopper.from_cart]
    broken = [sentence for s in with_key for sentence in _wrong_outcomes(s, placed[s.customer_id], evidence.keys)]
    broken += [sentence for s in with_cart for sentence in _wrong_cart(s, placed[s.customer_id], evidence.open_carts)]
    return Row(
        "I4",
        "the same Idempotency-Key, one order and one outcome; one cart, one order",
        f"{len(with_key)} keys, {len(with_cart)} carts",
        tuple(broken),
    )


def _wrong_outcomes(shopper: Shopper, placed: Sequence[Order], keys: Mapping[str, str | None]) -> Iterator[str]:
    told = {attempt.order_id for attempt in shopper.attempts if attempt.order_id}
    if len(told) > 1:
        yield f"key {shopper.key} was answered with orders {sorted(told)}"
    if told and keys.get(shopper.key) not in told:
        yield f"key {shopper.key} was answered with {told}, and stands for {keys.get(shopper.key)}"
    if not shopper.from_cart:
        outcomes = [a for a in shopper.attempts if a.status in (201, 400, 500)]
        for first in outcomes:
            later = [a for a in outcomes if a.began_at > first.ended_at and a.status != first.status]
            if later:
                yield f"key {shopper.key} was answered {first.code}, and later {later[0].code}"
                break


def _wrong_cart(shopper: Shopper, placed: Sequence[Order], open_carts: frozenset[int]) -> Iterator[str]:
    name = f"the cart of customer {shopper.customer_id}"
    if len({order.id for order in placed if order.cart_id is not None}) > 1:
        yield f"{name} was ordered {len(placed)} times"
    if placed and shopper.customer_id in open_carts:
        yield f"{name} was ordered, and is still open"


# I5 -----------------------------------------------------------------------------------------------------------------


def _nothing_stays_half_done(evidence: Evidence) -> Row:
    quiet = evidence.quiet
    orders = dict(_pending_orders(evidence))
    claims = dict(_claims_after(quiet.at, evidence.claims))
    broken = [
        f"{name} {'is still there' if ended_at is None else f'ended {ended_at - quiet.at:.1f} s after quiet'}"
        for name, ended_at in [*orders.items(), *claims.items()]
        if ended_at is None or ended_at - quiet.at > quiet.allowed_s
    ]
    if quiet.clean_after_s is None:
        broken.append("orders to be placed, stock to go back or carts to be closed were left when we stopped waiting")
    longest_s = max((end - quiet.at for end in [*orders.values(), *claims.values()] if end is not None), default=0.0)
    return Row(
        "I5",
        f"after quiet no order stays Pending, and no claim stays, longer than {quiet.allowed_s:.1f} s",
        f"{len(orders)} orders, {len(claims)} claims; the longest for {longest_s:.1f} s",
        tuple(broken),
    )


def _pending_orders(evidence: Evidence) -> Iterator[tuple[str, float | None]]:
    """The orders that were `Pending` when quiet began, and when they were decided."""
    pending = set(evidence.quiet.pending)
    for order in evidence.orders:
        if order.id in pending:
            yield f"order {order.id}", None if order.status == "Pending" else order.updated_at


def _claims_after(quiet_at: float, states: Iterable[ClaimState]) -> Iterator[tuple[str, float | None]]:
    """The products that were claimed when quiet began, and when that claim ended."""
    is_there: dict[int, bool] = {}
    ended_at: dict[int, float] = {}
    for state in states:
        if state.at <= quiet_at:
            is_there[state.product_id] = state.lands_until is not None
        elif state.lands_until is None:
            ended_at.setdefault(state.product_id, state.at)
    for product_id in [product_id for product_id, there in is_there.items() if there]:
        yield f"the claim on product {product_id}", ended_at.get(product_id)


# I6 -----------------------------------------------------------------------------------------------------------------


def _one_value_at_a_time(evidence: Evidence) -> Row:
    by_product: dict[int, list[Put]] = defaultdict(list)
    for put in evidence.puts:
        if put.status != 412:
            by_product[put.product_id].append(put)
    deaths = sorted(evidence.catalog_killed_at)
    broken = [sentence for puts in by_product.values() for sentence in _meetings(puts, deaths)]
    return Row(
        "I6",
        "two different values for one product are never on their way at once",
        f"{sum(map(len, by_product.values()))} PUTs of {len(by_product)} products",
        tuple(broken),
    )


def _meetings(puts: Sequence[Put], deaths: Sequence[float]) -> Iterator[str]:
    on_their_way: list[Put] = []
    for put in sorted(puts, key=lambda p: p.arrived_at):
        on_their_way = [other for other in on_their_way if _over_at(other, deaths) > put.arrived_at]
        for other in on_their_way:
            if other.quantity != put.quantity:
                yield (
                    f"product {put.product_id}: PUT {put.id} of {put.quantity} came while PUT {other.id} "
                    f"of {other.quantity} was on its way"
                )
        on_their_way.append(put)


def _over_at(put: Put, deaths: Sequence[float]) -> float:
    """When nothing could come of this PUT any more: it landed, was answered without effect, or its catalog died."""
    if put.landed_at is not None:
        return put.landed_at
    if put.answered_at is not None:
        return put.answered_at
    at = bisect_right(deaths, put.arrived_at)
    return deaths[at] if at < len(deaths) else float("inf")
