"""A search with a model beside it: whatever is asked for in whatever order, and whatever fails meanwhile, the answers,
the orders and the catalog's stock agree. `HYPOTHESIS_PROFILE=long` searches for longer, and elsewhere each time.
"""

import contextlib
import functools
import itertools
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psycopg2
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from pyreqwest.exceptions import PyreqwestError

from orders.postgres.database import connect
from tests.conftest import ORDERS, Http, Reply, Sandbox, answers, ask, empty, free_port, wait_until
from tests.e2e.conftest import Service, listening, start_service, stop

TIMES = {
    "orders_request_deadline_s": 2.5,
    "orders_lease_s": 3,
    "orders_write_horizon_s": 1.5,
    "orders_neighbour_timeout_s": 0.8,
    "orders_recovery_interval_s": 0.1,
    "orders_breaker_rest_s": 0.2,
}
LATE_S = 0.3
"""A PUT that lands late does so well within the horizon, on a busy machine too."""

QUIET_S = 60
"""So long may quiet take: a lease, a horizon, and what a busy machine adds to them."""

STOCKS = (3, 8, 1000)
CUSTOMERS = 2
KEYS = 4
_ids = itertools.count(int(time.time() * 1000))

LINE_OF_LIFE = ("Ordered", "Confirmed", "Paid", "Processing", "Shipped", "Delivered", "Completed")
STATUSES = (*LINE_OF_LIFE, "On Hold", "Cancelled", "Returned", "Refunded", "Pending", "Failed")


def may_follow(status: str, held_from: str | None) -> set[str]:
    """docs/api.md, "Statuses"."""
    following = {"On Hold": {"Cancelled", held_from or ""}, "Returned": {"Refunded"}}.get(status, set())
    if status in LINE_OF_LIFE:
        following = set(LINE_OF_LIFE[LINE_OF_LIFE.index(status) + 1 :])
        following |= {"On Hold", "Cancelled"} if status in LINE_OF_LIFE[:4] else set()
        following |= {"Returned", "Refunded"} if status in ("Shipped", "Delivered") else set()
    return following


Lines = Mapping[int, int]


@dataclass(frozen=True)
class Wish:
    """A POST. `lines` None: the cart."""

    customer: int
    lines: tuple[tuple[int, int], ...] | None
    key: str | None

    @property
    def merged(self) -> Lines | None:
        return None if self.lines is None else merge(self.lines)

    def is_like(self, other: "Wish") -> bool:
        return (self.customer, self.merged) == (other.customer, other.merged)


@dataclass
class Placed:
    """An order, as the model has it."""

    customer: int
    lines: Lines
    of_cart: bool
    status: str = "Ordered"
    held_from: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a key remembers."""

    wish: Wish
    status: int
    body: Any


def merge(lines: Sequence[tuple[int, int]]) -> Lines:
    merged: Counter[int] = Counter()
    for product, quantity in lines:
        merged[product] += quantity
    return dict(merged)


def lines_of(order: Any) -> Lines:
    return {item["product_id"]: item["quantity"] for item in order["items"]}


class World:
    """The processes: two neighbours that can be killed and come back, and replicas. Two of these are asked; the third
    only recovers, and steps in where one is killed, so that nobody waits for a process to start. A database.
    """

    def __init__(self, http: Http, dsn: str, folder: Path) -> None:
        self.http = http
        self.folder = folder
        self.ports = {"catalog": free_port(), "carts": free_port()}
        self.neighbours: dict[str, subprocess.Popen[bytes]] = {}
        self.sandbox = Sandbox(http, *(f"http://127.0.0.1:{port}" for port in self.ports.values()))
        self.database = psycopg2.connect(dsn)
        self.database.autocommit = True
        urls = {"database_url": dsn, "catalog_url": self.sandbox.catalog_url, "cart_url": self.sandbox.cart_url}
        self.settings = {**urls, **TIMES}
        self.replicas = [self.new_replica() for _ in range(3)]
        self.seen: Counter[str] = Counter()

    def new_replica(self) -> Service:
        return start_service(self.http, **self.settings)

    def start_neighbour(self, name: str) -> None:
        ports = [f"--{n.removesuffix('s')}-port={port}" for n, port in self.ports.items()]
        command = [*ORDERS, "sandbox", name, *ports, "--no-samples", f"--data={self.folder}"]
        self.neighbours[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill_neighbour(self, name: str) -> None:
        process = self.neighbours.pop(name)
        process.kill()
        process.wait()

    def kill_replica(self) -> None:
        """The first one dies. The others move up, and another is started."""
        self.replicas.pop(0).kill()
        self.replicas.append(self.new_replica())

    def heal(self) -> None:
        for name in self.ports.keys() - self.neighbours:
            self.start_neighbour(name)
        for url in (self.sandbox.catalog_url, self.sandbox.cart_url):
            wait_until(functools.partial(answers, url), "the neighbour answers", QUIET_S)
        self.sandbox.heal()
        for replica in self.replicas[:2]:
            listening(replica)

    def ask(self, statement: str) -> Any:
        with self.database.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone() if cursor.description else None

    def is_quiet(self) -> bool:
        """Whether nothing is under way any more; carts that could not be closed are tried again at once."""
        self.ask("UPDATE cart_closings SET retry_at = now()")
        return bool(
            self.ask(
                """SELECT NOT EXISTS (SELECT FROM stock_claims WHERE batch_id IS NOT NULL)
                      AND NOT EXISTS (SELECT FROM stock_returns WHERE returned_at IS NULL)
                      AND NOT EXISTS (SELECT FROM orders WHERE status = 'Pending')
                      AND NOT EXISTS (SELECT FROM cart_closings)"""
            )[0]
        )

    def wait_for_quiet(self) -> None:
        wait_until(self.is_quiet, "quiet", QUIET_S)

    def close(self) -> None:
        stop(self.replicas)
        for name in list(self.neighbours):
            self.kill_neighbour(name)
        self.database.close()


@pytest.fixture(scope="module")
def world(http: Http, migrated_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.closing(connect(migrated_dsn)) as connection:
        empty(connection)  # what another module's test has left could never become quiet: its catalog is another
        ask(connection, "DELETE FROM neighbours RETURNING 1")
    world = World(http, migrated_dsn, tmp_path_factory.mktemp("sandbox"))
    try:
        world.heal()
        yield world
    finally:
        world.close()


# What may go wrong while requests are under way: at their beginning, and a moment later.
CATALOG_FAULTS: dict[str, dict[str, Any]] = {
    "errors": {"error_rate": 0.4},
    "lost answers": {"lost_rate": 0.4},
    "late PUTs": {"late_rate": 0.6, "late_s": LATE_S},
    "rubbish": {"rubbish_rate": 0.4},
    "slow": {"slow_s": 0.03},
    "one at a time": {"one_at_a_time": True},
}
FAULTS = [
    "everything slow",
    *(f"catalog: {name}" for name in CATALOG_FAULTS),
    "catalog: dies",
    "catalog: is down",
    "carts: errors",
    "carts: lost answers",
    "carts: rubbish",
    "carts: one at a time",
    "carts: dies",
    "a replica dies",
    "a replica dies",
]


def strike(world: World, fault: str) -> None:
    """Before the requests."""
    where, _, what = fault.partition(": ")
    if what in CATALOG_FAULTS:
        (world.sandbox.catalog_faults if where == "catalog" else world.sandbox.cart_faults)(**CATALOG_FAULTS[what])
    if fault in ("everything slow", "a replica dies"):
        world.sandbox.catalog_faults(slow_s=0.02)
        world.sandbox.cart_faults(slow_s=0.02)
    if what == "is down":
        world.kill_neighbour(where)


def strike_again(world: World, fault: str) -> None:
    """In the middle of them."""
    where, _, what = fault.partition(": ")
    if what == "dies":
        world.kill_neighbour(where)
        world.start_neighbour(where)
    if fault == "a replica dies":
        world.kill_replica()


A_CUSTOMER = st.integers(0, CUSTOMERS - 1)
A_KEY = st.sampled_from([None] * 2 * KEYS + [*range(KEYS)])
LINES = st.lists(st.tuples(st.integers(0, len(STOCKS) - 1), st.integers(1, 4)), min_size=1, max_size=3)
A_WISH = st.tuples(A_CUSTOMER, st.none() | LINES, A_KEY)
A_MOVE = st.tuples(st.integers(0, 9), st.sampled_from(STATUSES))


class Shop(RuleBasedStateMachine):
    """Two customers, three products, a few keys; all of them new in each run, in a world that goes on."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.world.heal()
        self.given = {self.world.sandbox.product(quantity): quantity for quantity in STOCKS}
        self.products = list(self.given)
        self.customers = [next(_ids) for _ in range(CUSTOMERS)]
        self.key_names = [f"key-{next(_ids)}" for _ in range(KEYS)]
        self.carts: dict[int, Lines] = {}
        self.orders: dict[str, Placed] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.wishes: list[Wish] = []

    # What the model knows ---------------------------------------------------------------------------------------

    def stock(self, product: int) -> int:
        taken = (order.lines.get(product, 0) for order in self.orders.values() if order.status != "Cancelled")
        return self.given[product] - sum(taken)

    def wish(self, customer: int, lines: Sequence[tuple[int, int]] | None, key: int | None) -> Wish:
        chosen = None if lines is None else tuple((self.products[n], quantity) for n, quantity in lines)
        return Wish(self.customers[customer], chosen, None if key is None else self.key_names[key])

    def newest_of_cart(self, customer: int) -> str | None:
        return max((i for i, o in self.orders.items() if o.of_cart and o.customer == customer), default=None)

    def add(self, wish: Wish, body: Any) -> None:
        """The order is placed: it is what was wished, at the catalog's price, and new."""
        lines = self.carts[wish.customer] if wish.merged is None else wish.merged
        assert (lines_of(body), body["customer_id"], body["status"]) == (lines, wish.customer, "Ordered")
        assert body["total"] == 10 * sum(lines.values())
        assert body["id"] not in self.orders
        self.orders[body["id"]] = Placed(wish.customer, lines, wish.lines is None)
        self.world.seen["placed"] += 1

    # Asking -----------------------------------------------------------------------------------------------------

    def post(self, wish: Wish, replica: int = 0) -> Reply | None:
        """The answer; None: there is none."""
        headers = {"Idempotency-Key": wish.key} if wish.key else {}
        try:
            return self.world.replicas[replica].place(wish.customer, *(wish.lines or ()), headers=headers)
        except PyreqwestError:
            return None

    def put(self, order_id: str, status: str, replica: int = 0) -> Reply | None:
        try:
            return self.world.replicas[replica].move(order_id, status)
        except PyreqwestError:
            return None

    def listed(self) -> dict[str, Any]:
        """What the service says of our customers' orders."""
        replies = [self.world.replicas[0].get(f"/orders/{customer}") for customer in self.customers]
        assert {reply.status for reply in replies} <= {200, 404}, replies
        return {order["id"]: order for reply in replies if reply.status == 200 for order in reply.body["orders"]}

    # One after the other, and nothing fails: every answer is known beforehand ---------------------------------------

    @rule(wish=st.tuples(A_CUSTOMER, LINES, A_KEY))
    def order_items(self, wish: tuple[int, Any, int | None]) -> None:
        self.order(self.wish(*wish))

    @rule(customer=A_CUSTOMER, lines=LINES)
    def fill_cart(self, customer: int, lines: list[tuple[int, int]]) -> None:
        chosen = [(self.products[n], quantity) for n, quantity in lines]
        self.world.sandbox.fill_cart(self.customers[customer], *chosen)
        before = self.carts.get(self.customers[customer], {})
        self.carts[self.customers[customer]] = merge([*before.items(), *chosen])

    @rule(customer=A_CUSTOMER, key=A_KEY)
    def order_cart(self, customer: int, key: int | None) -> None:
        self.order(self.wish(customer, None, key))

    @precondition(lambda self: self.wishes)
    @rule(which=st.integers(0, 9))
    def ask_again(self, which: int) -> None:
        self.order(self.wishes[which % len(self.wishes)])

    @precondition(lambda self: self.orders)
    @rule(move=A_MOVE)
    def move(self, move: tuple[int, str]) -> None:
        order_id, status = self.target(move)
        order = self.orders[order_id]
        answer = self.put(order_id, status)
        assert answer is not None
        following = may_follow(order.status, order.held_from)
        if status in following or status == order.status:
            assert (answer.status, answer.body["status"]) == (200, status)
            self.moved(order_id, status)
        else:
            assert (answer.status, set(answer.body["allowed_statuses"])) == (409, following)

    def target(self, move: tuple[int, str]) -> tuple[str, str]:
        return sorted(self.orders)[move[0] % len(self.orders)], move[1]

    def moved(self, order_id: str, status: str) -> None:
        order = self.orders[order_id]
        if status != order.status:
            order.held_from = order.status if status == "On Hold" else None
            order.status = status

    @rule(product=st.integers(0, len(STOCKS) - 1), more=st.integers(-2, 8))
    def restock(self, product: int, more: int) -> None:
        """From outside, when no claim is left (I5): without ETags only then nobody else writes."""
        self.world.wait_for_quiet()
        wait_until(lambda: self.world.ask("SELECT count(*) FROM stock_claims") == (0,), "no claim is left", QUIET_S)
        chosen = self.products[product]
        self.given[chosen] += max(more, -self.stock(chosen))
        self.world.sandbox.restock(chosen, self.stock(chosen))

    def order(self, wish: Wish) -> None:
        self.wishes.append(wish)
        answer = self.post(wish)
        if answer is None or answer.status >= 500:  # the machine is busy: a time-out is too short, and the order fails
            self.world.seen["failed though nothing was wrong"] += 1
            self.learn([(wish, answer)])
        elif known := self.outcomes.get(wish.key or ""):
            self.require_repetition(known, wish, answer)
        elif wish.lines is None and wish.customer not in self.carts:
            self.require_old_cart(wish, answer)
        else:
            self.require_plan(wish, answer)
        self.wait_for_carts()

    def require_repetition(self, known: Outcome, wish: Wish, answer: Reply) -> None:
        if wish.is_like(known.wish):
            assert (answer.status, answer.body) == (known.status, known.body)
            assert answer.headers["idempotent-replayed"] == "true"
            self.world.seen["repeated"] += 1
        else:
            assert (answer.status, answer.body["code"]) == (422, "key_reused")
            self.world.seen["key refused"] += 1

    def require_old_cart(self, wish: Wish, answer: Reply) -> None:
        """Without an active cart the answer is the order that the last one has become."""
        newest = self.newest_of_cart(wish.customer)
        if newest is None:
            assert (answer.status, answer.body["code"]) == (404, "cart_not_found")
            return
        assert (answer.status, answer.body["id"]) == (201, newest)
        assert answer.headers["idempotent-replayed"] == "true"
        self.remember(wish, answer)

    def require_plan(self, wish: Wish, answer: Reply) -> None:
        lines = self.carts[wish.customer] if wish.merged is None else wish.merged
        short = {product: (n, self.stock(product)) for product, n in lines.items() if n > self.stock(product)}
        if short:
            assert (answer.status, answer.body["code"]) == (400, "insufficient_inventory")
            assert {e["product_id"]: (e["requested"], e["available"]) for e in answer.body["errors"]} == short
            self.world.seen["refused"] += 1
        else:
            assert answer.status == 201, answer
            assert "idempotent-replayed" not in answer.headers
            self.add(wish, answer.body)
            self.close_cart(wish.customer, lines, of_cart=wish.lines is None)
        self.remember(wish, answer)

    def remember(self, wish: Wish, answer: Reply) -> None:
        if wish.key:
            self.outcomes[wish.key] = Outcome(wish, answer.status, answer.body)

    def close_cart(self, customer: int, lines: Lines, *, of_cart: bool) -> None:
        """An order of the cart closes it, and one of items that leave nothing in it to be ordered."""
        cart = self.carts.get(customer)
        if cart and (of_cart or all(quantity <= lines.get(product, 0) for product, quantity in cart.items())):
            del self.carts[customer]

    def wait_for_carts(self) -> None:
        wait_until(lambda: self.world.ask("SELECT count(*) FROM cart_closings") == (0,), "carts are closed", QUIET_S)

    # Many at once, and something fails: every answer is one of those that are allowed ---------------------------------

    @rule(
        wishes=st.lists(A_WISH, min_size=1, max_size=6),
        clicks=st.integers(1, 3),
        moves=st.lists(A_MOVE, max_size=3),
        fault=st.sampled_from(["nothing"] * 4 + FAULTS),
        delay_s=st.sampled_from([0, 0.02, 0.05, 0.1]),
        etags=st.booleans(),
    )
    def ask_at_once(
        self, wishes: list[Any], clicks: int, moves: list[Any], fault: str, delay_s: float, etags: bool
    ) -> None:
        asked = [self.wish(*wish) for wish in wishes for _ in range(clicks)]
        moving = [self.target(move) for move in moves if self.orders]
        self.wishes += asked[::clicks]
        self.world.sandbox.catalog_faults(etags=etags)
        strike(self.world, fault)
        with ThreadPoolExecutor(len(asked) + len(moving)) as clients:
            posts = [clients.submit(self.post, wish, n % 2) for n, wish in enumerate(asked)]
            puts = [clients.submit(self.put, *move, n % 2) for n, move in enumerate(moving)]
            time.sleep(delay_s)
            strike_again(self.world, fault)
            answered = list(zip(asked, (post.result() for post in posts), strict=True))
            moved = list(zip(moving, (put.result() for put in puts), strict=True))
        self.world.seen[fault] += 1
        self.world.heal()
        self.learn(answered, moved)

    def learn(self, answered: list[tuple[Wish, Reply | None]], moved: Any = ()) -> None:
        """Bring the model up to date, and check that what has become of the requests is allowed."""
        self.world.wait_for_quiet()
        time.sleep(TIMES["orders_breaker_rest_s"])
        unknown = {order_id: body for order_id, body in self.listed().items() if order_id not in self.orders}
        carts = dict(self.carts)
        before = set(self.orders)
        for wish, answer in sorted(answered, key=lambda pair: is_repetition(pair[1])):
            if answer and answer.status == 201:
                self.learn_placed(wish, answer, unknown)
        for key in sorted({wish.key for wish, _ in answered if wish.key}):
            self.learn_key(key, [pair for pair in answered if pair[0].key == key], unknown)
        for body in unknown.values():
            self.require_unanswered(body, [wish for wish, answer in answered if answer is None and wish.key is None])
        self.wait_for_carts()
        for customer, cart in carts.items():
            self.learn_cart(customer, cart, [order for i, order in self.orders.items() if i not in before])
        self.learn_moves(moved)
        self.agree()

    def learn_placed(self, wish: Wish, answer: Reply, unknown: dict[str, Any]) -> None:
        """I3: who was told 201 has an order; who was told it again has the same one."""
        order_id = answer.body["id"]
        if is_repetition(answer):
            assert order_id in self.orders or order_id in unknown
            placed = self.orders.get(order_id)
            if placed:
                assert placed.customer == wish.customer
                assert placed.of_cart if wish.lines is None else placed.lines == wish.merged
        else:
            assert order_id in unknown, f"{order_id} was answered 201, and is lost or was placed before"
            self.add(wish, unknown.pop(order_id))

    def learn_key(self, key: str, answered: list[tuple[Wish, Reply | None]], unknown: dict[str, Any]) -> None:
        """I4: the key stands for one outcome. Asking again tells which; if there was none, it is made now."""
        if known := self.outcomes.get(key):
            for wish, answer in answered:
                if answer:
                    self.require_repetition(known, wish, answer)
            return
        told = {answer.body["id"] for _, answer in answered if answer and answer.status == 201}
        assert len(told) <= 1, told
        owner, answer = self.ask_for_key(answered)
        if answer.status == 201 and is_repetition(answer):
            order_id = answer.body["id"]
            assert told <= {order_id}
            if order_id in unknown:
                self.add(owner, unknown.pop(order_id))
        elif answer.status == 201:
            assert not told, f"{key} has been answered with {told}, and now with {answer.body['id']}"
            self.add(owner, answer.body)
        else:
            assert not told, f"{key} has been answered with {told}, and now with {answer}"
        if answer.status in (201, 400, 500):
            self.outcomes[key] = Outcome(owner, answer.status, answer.body)

    def ask_for_key(self, answered: list[tuple[Wish, Reply | None]]) -> tuple[Wish, Reply]:
        """Whose the key is, and what the owner is answered. A key whose replica died is free again before long."""
        for wish, _ in answered:

            def ask(wish: Wish = wish) -> Reply | None:
                answer = self.post(wish)
                return None if answer and answer.status in (409, 503) else answer

            answer = wait_until(ask, "the key is not in use any more", QUIET_S)
            if answer.status != 422:
                return wish, answer
        raise AssertionError(f"{answered[0][0].key} belongs to none of those who asked")

    def require_unanswered(self, body: Any, unanswered: list[Wish]) -> None:
        """I3: whoever got no answer may have an order; nobody else."""
        for wish in unanswered:
            lines = self.carts.get(wish.customer) if wish.merged is None else wish.merged
            if (wish.customer, lines) == (body["customer_id"], lines_of(body)):
                unanswered.remove(wish)
                self.add(wish, body)
                return
        raise AssertionError(f"nobody was told of this order: {body}")

    def learn_cart(self, customer: int, cart: Lines, new: list[Placed]) -> None:
        """I4: one cart, one order. It is closed if it was ordered, or if nothing was left in it to be ordered."""
        orders = [order for order in new if order.customer == customer]
        of_cart = [order for order in orders if order.of_cart]
        assert len(of_cart) <= 1, of_cart
        covered = any(all(n <= order.lines.get(product, 0) for product, n in cart.items()) for order in orders)
        reply = self.world.http.get(f"{self.world.sandbox.cart_url}/carts/{customer}")
        is_active = isinstance(reply.body, dict)
        assert is_active != (covered or bool(of_cart)), (cart, orders)
        if not is_active:
            self.carts.pop(customer, None)

    def learn_moves(self, moved: Sequence[tuple[tuple[str, str], Reply | None]]) -> None:
        """An order is where those who were told 200, or nothing, can have moved it, along the table."""
        listed = self.listed()
        for order_id in {order_id for (order_id, _), _ in moved}:
            order = self.orders[order_id]
            wanted = {status for (i, status), answer in moved if i == order_id and (not answer or answer.status == 200)}
            told = {status for (i, status), answer in moved if i == order_id and answer and answer.status == 200}
            ways = [
                way for way in ways_from(order.status, order.held_from, wanted) if told <= {*way.seen, order.status}
            ]
            ends = {way.held_from for way in ways if way.status == listed[order_id]["status"]}
            assert ends, f"{order} became {listed[order_id]['status']} by {moved}"
            order.status = listed[order_id]["status"]
            order.held_from = ends.pop() if len(ends) == 1 else self.held_from(order_id)

    def held_from(self, order_id: str) -> str:
        answer = self.put(order_id, "Pending")
        assert answer is not None
        (status,) = set(answer.body["allowed_statuses"]) - {"Cancelled"}
        return str(status)

    # Always -----------------------------------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        """The orders are those of the model; and, where nothing is under way, the catalog's stock (I1)."""
        listed = self.listed()
        assert {i: (o["status"], lines_of(o)) for i, o in listed.items()} == {
            i: (o.status, o.lines) for i, o in self.orders.items()
        }
        if self.world.is_quiet():
            found = {product: self.world.sandbox.stock(product) for product in self.products}
            assert found == {product: self.stock(product) for product in self.products}

    def teardown(self) -> None:
        self.world.heal()
        self.world.wait_for_quiet()
        self.agree()


@dataclass(frozen=True)
class Way:
    status: str
    held_from: str | None
    seen: frozenset[str] = frozenset()


def ways_from(status: str, held_from: str | None, wanted: set[str]) -> list[Way]:
    """Every place that an order can come to through these statuses, each of them at most once or not at all."""
    ways = [Way(status, held_from)]
    for way in ways:
        for following in (wanted - way.seen) & may_follow(way.status, way.held_from):
            held = way.status if following == "On Hold" else None
            ways.append(Way(following, held, way.seen | {following}))
    return ways


def is_repetition(answer: Reply | None) -> bool:
    return bool(answer and "idempotent-replayed" in answer.headers)


IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


@pytest.mark.parametrize("fault", sorted(set(FAULTS)))
def test_orders_of_all_kinds_while(fault: str, world: World) -> None:
    """A walk that the search below may not come by: each fault once, at a moment of orders of every kind."""
    Shop.world = world
    shop = Shop()
    for customer in range(CUSTOMERS):
        shop.fill_cart(customer, [(2, 1), (1, 1)])
        shop.order_items((customer, [(2, 5), (2, 1)], None))
    wishes = [(0, None, None), (1, None, 0), (0, [(2, 3)], 1), (1, [(1, 2), (2, 1)], None), (0, [(0, 2)], None)]
    shop.ask_at_once(wishes, 2, [(0, "Cancelled"), (1, "Paid"), (1, "On Hold")], fault, 0.03, etags=False)
    shop.ask_at_once(wishes[2:], 1, [(1, "Cancelled")], fault, 0.1, etags=True)
    for which in range(len(wishes)):
        shop.ask_again(which)
    shop.teardown()


def test_answers_orders_and_stock_agree_whatever_happens(world: World) -> None:
    Shop.world = world
    search = hypothesis_settings(
        max_examples=500 if IS_LONG else 20,
        stateful_step_count=30 if IS_LONG else 12,
        derandomize=not IS_LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Shop, settings=search)
    assert {"placed", "refused", "repeated", "key refused"} <= world.seen.keys(), world.seen  # or it searched little
