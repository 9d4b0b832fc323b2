"""The invariants, each as a function of the evidence. It says how much was looked at, and a sentence for
each breach.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.chaos.evidence import ClaimState, Evidence, Order, Put
from tests.chaos.load import NO_ANSWER, Shopper
from tests.chaos.outside import OUTSIDE


@dataclass(frozen=True, slots=True)
class Row:
    """One invariant: its sentence, what was looked at, and what broke it."""

    name: str
    promise: str
    checked: str
    broken: tuple[str, ...]


def judge(evidence: Evidence) -> list[Row]:
    """The verdict: a row per invariant, and one for the known limit, which can't be prevented."""
    late = _sleepwalkers(evidence)
    spoilt = {put.product_id for put in late}
    rest = _without(evidence, spoilt)
    return [
        _stock_adds_up(rest),
        _no_put_is_wrong(rest),
        _answers_are_true(evidence),
        _nothing_is_doubled(evidence),
        _nothing_stays_half_done(evidence),
        _one_value_at_a_time(rest),
        _everybody_has_their_own(evidence),
        _feed_is_whole(evidence),
        _known_limit(evidence, late),
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
    """Products with a wrong stock. The stock has to be exact. If somebody wrote while a PUT was in doubt, it may be
    less, never more, and a drift has to be noted.
    """
    kept: dict[int, int] = defaultdict(int)
    for order in evidence.orders:
        if order.is_placed and order.status != "Cancelled":
            for product_id, quantity in order.lines.items():
                kept[product_id] += quantity
    for product_id, initial in evidence.initial.items():
        put_in = evidence.put_in.get(product_id, 0)
        expected, found = initial + put_in - kept[product_id], evidence.final.get(product_id, -1)
        is_drift = product_id in evidence.drifted
        if found != expected and not (is_drift and product_id in evidence.contested and found < expected):
            yield (
                f"product {product_id}: {found} in stock instead of {expected} ({initial} + {put_in} from outside "
                f"- {kept[product_id]} in orders){', and the service noted a drift' if is_drift else ''}"
            )


def _wrong_returns(evidence: Evidence) -> Iterator[str]:
    """Lines whose stock did not go back once although they were cancelled, or went back although they were not."""
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
    """The life of each product's claim, to look up its state at a moment."""

    def __init__(self, states: Iterable[ClaimState]) -> None:
        self._states: dict[int, list[ClaimState]] = defaultdict(list)
        for state in states:
            self._states[state.product_id].append(state)

    def intent(self, product_id: int, at: float) -> ClaimState | None:
        """The intent for this product at that moment. For a quiet claim, the intent before."""
        for state in reversed(self._until(product_id, at)):
            if state.after is not None or state.lands_until is None:
                return state if state.after is not None else None
        return None

    def intended_ever(self, product_id: int, quantity: int, at: float) -> bool:
        """Whether this quantity was intended at some time before."""
        return any(state.after == quantity for state in self._until(product_id, at))

    def _until(self, product_id: int, at: float) -> list[ClaimState]:
        states = self._states[product_id]
        return states[: bisect_right(states, at, key=lambda state: state.at)]


def _wrong_put(put: Put, life: Lives) -> Iterator[str]:
    name = f"product {put.product_id}: PUT {put.id} of {put.quantity}"
    if put.quantity is None or put.quantity < 0:
        yield f"{name} is no stock"
        return
    intent = life.intent(put.product_id, put.arrived_at)
    replaced = "" if put.landed_at is None else f", and replaced a stock of {put.before}"
    if intent is None or intent.after != put.quantity:
        is_late = life.intended_ever(put.product_id, put.quantity, put.arrived_at)
        yield f"{name} {'came after its claim had ended' if is_late else 'was intended by nobody'}{replaced}"
    elif put.landed_at is not None and put.before not in (intent.before, intent.after):
        yield f"{name} was to replace {intent.before}{replaced}"


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
    # A cart that was filled twice, because filling it went unanswered, can be two carts: each is one order.
    carts = {order.cart_id for order in placed if order.cart_id is not None}
    if len(placed) > 1 and (shopper.cart_is_certain or len(carts) < len(placed)):
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
    """Whether a key was answered with a refusal when all earlier unanswered requests were over. Then that is its
    outcome.
    """
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
    stands_for = keys.get(shopper.stored_key or shopper.key)
    if told and stands_for not in told:
        yield f"key {shopper.key} was answered with {told}, and stands for {stands_for}"
    if not shopper.from_cart:
        outcomes = [a for a in shopper.attempts if a.status in (201, 400, 500)]
        for first in outcomes:
            later = [a for a in outcomes if a.began_at > first.ended_at and a.status != first.status]
            if later:
                yield f"key {shopper.key} was answered {first.code}, and later {later[0].code}"
                break


def _wrong_cart(shopper: Shopper, placed: Sequence[Order], open_carts: frozenset[int]) -> Iterator[str]:
    name = f"the cart of customer {shopper.customer_id}"
    for cart_id, count in Counter(order.cart_id for order in placed if order.cart_id is not None).items():
        if count > 1:
            yield f"{name} was ordered {count} times (cart {cart_id})"
    # Filling a cart can go unanswered and land after the order. Then the customer has another cart, which was not
    # ordered.
    if any(order.cart_id in open_carts for order in placed):
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


# I9 -----------------------------------------------------------------------------------------------------------------


def _everybody_has_their_own(evidence: Evidence) -> Row:
    """Customers see no order of somebody else, and no good credential is refused, whatever is killed or rotated."""
    peeks = [(shopper, told) for shopper in evidence.shoppers for told in shopper.peeks]
    broken = [f"customer {shopper.customer_id} saw somebody else's order" for shopper, told in peeks if told == "seen"]
    for shopper in evidence.shoppers:
        answers = {attempt.code for attempt in shopper.attempts}.union(shopper.cancellations, shopper.peeks)
        refused = sorted(answers & {"credential_required", "credential_invalid", "not_permitted"})
        broken += [f"customer {shopper.customer_id} was refused: {code}" for code in refused]
    return Row(
        "I9",
        "customers see only their own orders, and no good key or token is refused",
        f"{sum(s.has_token for s in evidence.shoppers)} customers with tokens, {len(peeks)} looks at orders of others",
        tuple(broken),
    )


# I6 -----------------------------------------------------------------------------------------------------------------


def _one_value_at_a_time(evidence: Evidence) -> Row:
    by_product: dict[int, list[Put]] = defaultdict(list)
    for put in evidence.puts:
        if put.status != 412 and put.user_agent != OUTSIDE:
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
    """The time from which this PUT could have no effect any more: it landed, was answered without effect, or its
    catalog died.
    """
    if put.landed_at is not None:
        return put.landed_at
    if put.answered_at is not None:
        return put.answered_at
    at = bisect_right(deaths, put.arrived_at)
    return deaths[at] if at < len(deaths) else float("inf")


# I7 -----------------------------------------------------------------------------------------------------------------


def _feed_is_whole(evidence: Evidence) -> Row:
    return Row(
        "I7",
        "a reader of the feed gets each event once, at the next position, and each order's in their order",
        f"{len(evidence.feed)} events of {len({event.order_id for event in evidence.feed})} orders",
        (*evidence.feed_refusals, *_wrong_in_feed(evidence)),
    )


def _wrong_in_feed(evidence: Evidence) -> Iterator[str]:
    latest: dict[str, int] = {}
    for place, event in enumerate(evidence.feed, 1):
        if event.position != place:
            yield f"event {event.number} of order {event.order_id} came at position {event.position}, not {place}"
        if event.number <= latest.get(event.order_id, 0):
            yield f"event {event.number} of order {event.order_id} came behind event {latest[event.order_id]}"
        latest[event.order_id] = event.number
    told = {(event.order_id, event.number) for event in evidence.feed}
    for order_id, number in sorted(evidence.events ^ told):
        is_there = (order_id, number) in evidence.events
        yield f"event {number} of order {order_id} {'never came' if is_there else 'came, and never happened'}"


# The known limit ----------------------------------------------------------------------------------------------------

WAKING_S = 1.0
"""Maximum time from a replica's waking to the PUT that it was about to send when it fell asleep."""


def _sleepwalkers(evidence: Evidence) -> dict[Put, float]:
    """Unexpected PUTs of replicas that had slept through the end of their claim, and when these woke."""
    life = Lives(evidence.claims)
    woken = {
        put: _woke_at(put, life, evidence.sleeps)
        for put in evidence.puts
        if put.user_agent != OUTSIDE and not _is_expected(put, life)
    }
    return {put: at for put, at in woken.items() if at is not None}


def _is_expected(put: Put, life: Lives) -> bool:
    intent = life.intent(put.product_id, put.arrived_at)
    return intent is not None and intent.after == put.quantity


def _woke_at(put: Put, life: Lives, sleeps: Iterable[tuple[float, float]]) -> float | None:
    """The time at which a replica woke right before this PUT, if the PUT was intended when it fell asleep."""
    for asleep_at, awake_at in sleeps:
        intent = life.intent(put.product_id, asleep_at)
        if 0 <= put.arrived_at - awake_at < WAKING_S and intent is not None and intent.after == put.quantity:
            return awake_at
    return None


def _without(evidence: Evidence, products: Container[int]) -> Evidence:
    """The evidence about all other products."""
    return replace(
        evidence,
        initial={product_id: stock for product_id, stock in evidence.initial.items() if product_id not in products},
        puts=[put for put in evidence.puts if put.product_id not in products],
        claims=[state for state in evidence.claims if state.product_id not in products],
    )


def _known_limit(evidence: Evidence, late: Mapping[Put, float]) -> Row:
    """The row of the known limit. It is told from a bug by its rarity: a replica has to fall asleep in the split second
    between looking at the clock and the PUT.
    """
    names = ", ".join(f"product {put.product_id}: PUT {put.id} of {put.quantity}" for put in late)
    sleeps, nights = len(evidence.sleeps), len(set(late.values()))
    return Row(
        "limit",
        "known limit: a replica that sleeps right before a PUT for longer than its lease sends it when it wakes; "
        "its product is left out of I1, I2 and I6",
        f"{sleeps} sleeps, {len(late)} such PUTs{f' ({names})' if names else ''}",
        (f"after {nights} of {sleeps} sleeps: too often to be the known limit",) if nights > 1 + sleeps // 20 else (),
    )
