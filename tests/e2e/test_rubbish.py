"""Whatever the neighbours send, the service answers with a documented problem, orders nothing on rubbish, and lives."""

import functools
import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orders.errors import Code
from orders.order.model import MAX_ID
from tests.conftest import Http, Reply
from tests.e2e.conftest import Service, listening, start_service, stop
from tests.raw import Pieces, RawServer, Request, reply
from tests.rubbish import ANYTHING, JSON, broken, delivered, documents, nested, objects, with_every_wrong_value, written

TIMES = {
    "orders_request_deadline_s": 5,
    "orders_lease_s": 6,
    "orders_write_horizon_s": 1,
    "orders_neighbour_timeout_s": 0.95,
    "orders_recovery_interval_s": 0.2,
    "orders_breaker_failures": 1000,
}
HANGS_S = 30
"""Far beyond the deadline, and beyond what a busy machine adds to it."""

KNOWN = {(code.value.status, code.name.lower()) for code in Code if code is not Code.INTERNAL_ERROR}
PRODUCT = {"id": 0, "name": "Whispers", "price": 10, "quantity": 5, "tags": ["a"], "weight": 1.5}
ITEM = {"id": 1, "cart_id": 0, "product_id": 0, "quantity": 1}
CART = {"id": 0, "customer_id": 0, "status": "Active", "items": [{"product_id": 0, "quantity": 1}]}
CART_WITHOUT_ITEMS = {name: value for name, value in CART.items() if name != "items"}
_numbers = itertools.count(int(time.time() * 1000))


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def numbered(template: bytes, number: int) -> bytes:
    """The IDs in a template are 0. A customer's, the cart's and that of the only product in it are the same."""
    return template.replace(b'id": 0', b'id": %d' % number)


class Neighbours:
    """Both neighbours. They are well and have five of every product, but for what `odd` says of an address."""

    def __init__(self) -> None:
        self.odd: dict[tuple[str, str], Callable[[Request], Pieces]] = {}
        self.stock: dict[int, int] = {}
        self.requests: list[Request] = []

    def answer(self, request: Request) -> Pieces:
        self.requests.append(request)
        return self.odd.get((request.method, request.path), self.well)(request)

    def well(self, request: Request) -> Pieces:
        kind, *number = request.path.strip("/").split("/")
        if kind == "products" and request.method == "PUT":
            self.stock[int(number[0])] = json.loads(request.body)["quantity"]
        templates = {"products": PRODUCT, "carts": {"cart": CART}, "cart_items": {"items": [ITEM]}}
        document = templates[kind]
        if kind == "products":
            document = {**PRODUCT, "quantity": self.stock.get(int(number[0]), 5)}
        return reply(numbered(as_json(document), int(number[0]) if number else 0))

    def puts(self) -> list[Request]:
        return [r for r in self.requests if r.method == "PUT" and r.path.startswith("/products/")]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rubbish") / "log.txt"


@pytest.fixture(scope="module")
def running(http: Http, migrated_dsn: str, log: Path) -> Iterator[tuple[Service, Neighbours]]:
    neighbours = Neighbours()
    with RawServer(neighbours.answer) as server, log.open("w") as file:
        urls = {"database_url": migrated_dsn, "catalog_url": server.url, "cart_url": server.url}
        service = start_service(http, file, **urls, **TIMES)
        yield listening(service), neighbours
        stop([service])


@pytest.fixture
def neighbours(running: tuple[Service, Neighbours]) -> Neighbours:
    return running[1]


@pytest.fixture
def service(running: tuple[Service, Neighbours], log: Path) -> Iterator[Service]:
    """The service; after the test it must be well, and have no bug in its log."""
    service, neighbours = running
    neighbours.requests.clear()
    yield service
    neighbours.odd.clear()
    assert place(service, next(_numbers)).status == 201
    assert "Traceback" not in log.read_text(), log.read_text()[-5000:]


def place(service: Service, *products: int) -> Reply:
    return documented(service.place(products[0], *((product, 1) for product in products)))


def place_cart(service: Service, customer: int) -> Reply:
    return documented(service.place(customer))


def documented(answer: Reply) -> Reply:
    if answer.status != 201:
        assert (answer.status, answer.body["code"]) in KNOWN, answer
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.body["detail"]) < 500
    return answer


def search(examples: int) -> Any:
    return hypothesis_settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


def stock_in(document: bytes, number: int) -> int | None:
    """The stock that this reply states, as the contract has it; None: it is no product."""
    try:
        fields = json.loads(document)
    except (ValueError, RecursionError):
        return None
    if isinstance(fields, dict) and len(fields) == 1:
        fields = next((fields[key] for key in ("product_detail", "data", "product") if key in fields), fields)
    if not isinstance(fields, dict) or fields.get("id", number) != number:
        return None
    name, counts = fields.get("name"), [fields.get("price"), fields.get("quantity")]
    is_product = isinstance(name, str) and len(name) <= 10_000 and "\0" not in name
    is_product = is_product and all(type(n) is int and 0 <= n <= MAX_ID for n in counts)
    return counts[1] if is_product else None


@search(200)
@given(
    template=documents(objects(PRODUCT), "product_detail", "data", "product", "other") | ANYTHING,
    way=st.sampled_from(sorted(delivered(b""))),
)
def test_an_order_is_placed_only_on_what_is_a_product(
    service: Service, neighbours: Neighbours, template: bytes, way: str
) -> None:
    order_a_product_that_is(service, neighbours, template, way)


def test_an_order_is_placed_on_no_product_with_a_wrong_value(service: Service, neighbours: Neighbours) -> None:
    for template in with_every_wrong_value(PRODUCT):
        order_a_product_that_is(service, neighbours, template, "whole")


def test_an_order_is_placed_or_not_on_a_product_that_is_nested_to_the_edge_of_what_python_reads(
    service: Service, neighbours: Neighbours
) -> None:
    for levels in range(960, 1000):
        template = written([*((name, as_json(value)) for name, value in PRODUCT.items()), ("more", nested(levels))])
        order_a_product_that_is(service, neighbours, template, "whole")


def order_a_product_that_is(service: Service, neighbours: Neighbours, template: bytes, way: str) -> None:
    product = next(_numbers)
    document = numbered(template, product)
    neighbours.odd = {("GET", f"/products/{product}"): lambda _: delivered(document)[way]}
    neighbours.requests.clear()
    is_placed = place(service, product).status == 201
    stock = stock_in(document, product)
    assert not is_placed or (stock is not None and stock >= 1)
    assert len(neighbours.puts()) == is_placed
    if is_placed and stock:
        fields = json.loads(document)
        fields = fields if "quantity" in fields else next(iter(fields.values()))
        sent = json.loads(neighbours.puts()[0].body, parse_constant=pytest.fail)
        assert sent == {**fields, "quantity": stock - 1}


def lines_in(cart: bytes, items_of_all: bytes, customer: int) -> dict[int, int] | None:
    """The lines of the customer's active cart, as the contract has them; None: it has none, or it is rubbish."""
    try:
        document = json.loads(cart)
        found = document.get("cart", document)
        items = found.get("items", document.get("items"))
        if items is None:
            items = [item for item in json.loads(items_of_all)["items"] if item.get("cart_id") == found["id"]]
        lines = [(item["product_id"], item["quantity"]) for item in items if item.get("quantity") != 0]
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return None
    is_mine = found.get("customer_id", customer) == customer and str(found.get("status", "Active")).lower() == "active"
    if not is_mine or not all(type(n) is int and n >= 1 for n in (found.get("id"), *itertools.chain(*lines))):
        return None
    return {product: sum(n for p, n in lines if p == product) for product, _ in lines}


@search(150)
@given(
    cart=documents(objects(CART) | objects(CART_WITHOUT_ITEMS), "cart", "data") | ANYTHING,
    items=documents(st.lists(objects(ITEM), max_size=3).map(lambda lines: b"[%s]" % b", ".join(lines)), "items")
    | ANYTHING,
)
def test_a_cart_is_ordered_only_as_it_is(service: Service, neighbours: Neighbours, cart: bytes, items: bytes) -> None:
    order_a_cart_that_is(service, neighbours, cart, items)


def test_no_cart_is_ordered_with_a_wrong_value(service: Service, neighbours: Neighbours) -> None:
    for cart in with_every_wrong_value(CART):
        order_a_cart_that_is(service, neighbours, cart, as_json({"items": [ITEM]}))
    for item in with_every_wrong_value(ITEM):
        order_a_cart_that_is(service, neighbours, as_json(CART_WITHOUT_ITEMS), b'{"items": [%s]}' % item)


def order_a_cart_that_is(service: Service, neighbours: Neighbours, cart: bytes, items: bytes) -> None:
    customer = next(_numbers)
    cart, items = numbered(cart, customer), numbered(items, customer)
    neighbours.odd = {
        ("GET", f"/carts/{customer}"): lambda _: reply(cart),
        ("GET", "/cart_items"): lambda _: reply(items),
    }
    neighbours.requests.clear()
    answer = place_cart(service, customer)
    if answer.status == 201:
        assert {i["product_id"]: i["quantity"] for i in answer.body["items"]} == lines_in(cart, items, customer)
    else:
        assert neighbours.puts() == []


_DONE = {"204", "206"}
_REFUSED = {"401", "429", "redirect to itself", "redirect for ever", "redirect elsewhere"}
_NO_JSON = st.binary(max_size=50).map(lambda text: b"<html>" + text)
_TEXT = st.text().map(as_json)


def _replies(statuses: Any) -> st.SearchStrategy[Pieces]:
    return st.builds(lambda status, body: reply(body, status=f"{status} x"), st.sampled_from(list(statuses)), ANYTHING)


@st.composite
def put_replies(draw: st.DrawFn) -> tuple[bool, Pieces]:
    """Whether a PUT has an effect, and an answer that is not a lie about it."""
    kind = draw(st.sampled_from(["done", "refused", "unknown", "broken"]))
    if kind == "done":
        body = draw(st.just(b"") | JSON.filter(lambda value: not isinstance(value, str)).map(as_json))
        return True, reply(body, status=draw(st.sampled_from(["200 OK", "201 Created", "202 Accepted", "299 x"])))
    if kind == "refused":
        return False, draw(_TEXT.map(reply) | _replies([400, 401, 404, 409, 412, 423, 429, 499, 301, 302, 307, 308]))
    if kind == "unknown":
        return draw(st.booleans()), draw(_NO_JSON.map(reply) | _replies([300, 303, 304, 408, 500, 502, 504, 599]))
    name = draw(st.sampled_from(sorted(broken(b"{}"))))
    return (name in _DONE if name in _DONE | _REFUSED else draw(st.booleans())), broken(b"{}")[name]


@search(120)
@given(put_replies())
def test_stock_is_taken_for_a_placed_order_and_no_other_whatever_answers_the_put(
    service: Service, neighbours: Neighbours, put: tuple[bool, Pieces]
) -> None:
    product, (has_effect, answer) = next(_numbers), put

    def oddly(request: Request) -> Pieces:
        neighbours.odd.clear()  # the next one is answered well
        if has_effect:
            neighbours.well(request)
        return answer

    neighbours.odd = {("PUT", f"/products/{product}"): oddly}
    is_placed = place(service, product).status == 201
    assert neighbours.stock.get(product, 5) == 5 - is_placed
    assert is_placed or not has_effect


@pytest.mark.parametrize("address", ["/products/{}", "/carts/{}"])
def test_a_reply_that_is_hardly_http_is_a_documented_problem_and_soon(
    service: Service, neighbours: Neighbours, address: str
) -> None:
    template = PRODUCT if "products" in address else {"cart": CART}

    def read(name: str) -> tuple[str, Reply, float]:
        customer = next(_numbers)
        document = numbered(as_json(template), customer)
        neighbours.odd["GET", address.format(customer)] = lambda _: broken(document)[name]
        began = time.monotonic()
        answer = place(service, customer) if "products" in address else place_cart(service, customer)
        return name, answer, time.monotonic() - began

    with ThreadPoolExecutor(40) as clients:  # all at once: most of them wait for a time-out
        for name, answer, took_s in clients.map(read, broken(b"{}")):
            assert answer.status == 500, (name, answer)
            assert took_s < HANGS_S, name
    assert neighbours.puts() == []


def test_an_order_of_many_products_is_answered_at_its_deadline_though_each_reply_comes_in_time(
    service: Service, neighbours: Neighbours
) -> None:
    products = [next(_numbers) for _ in range(500)]  # 64 at once, so the last of them are answered after 6.4 s
    answered: list[int] = []

    def slowly(request: Request, product: int) -> Pieces:
        yield 0.8
        answered.append(product)
        yield from neighbours.well(request)

    for product in products:
        neighbours.odd["GET", f"/products/{product}"] = functools.partial(slowly, product=product)
    answer = place(service, *products)
    assert (answer.status, answer.body["code"]) == (500, "order_failed")
    assert 0 < len(answered) < 500  # it has not waited for all of them


ROOM = 150 * 2**20
"""For two replies of 32 MiB with the items of all carts, and what their parts are joined in; less than one flood."""


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak")
def test_memory_is_bounded_whatever_the_neighbours_send(service: Service, neighbours: Neighbours) -> None:
    mebibyte = b" " * 2**20
    floods: list[Pieces] = [
        [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * 2**20), *[mebibyte] * 200],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"100000\r\n%s\r\n" % mebibyte] * 200],
        broken(b"{}")["a gzip bomb"],
    ]
    for _ in range(20):
        assert place(service, next(_numbers)).status == 201
    Path(f"/proc/{service.process.pid}/clear_refs").write_text("5")  # the peak begins anew
    before = peak_bytes(service.process.pid)

    def drown(address: str, flood: Pieces) -> int:
        customer = next(_numbers)
        method, path = address.format(customer).split()

        def answer(request: Request) -> Pieces:
            if method == "PUT":
                neighbours.well(request)
            return flood

        if path == "/cart_items":
            cart = numbered(as_json(CART_WITHOUT_ITEMS), customer)
            neighbours.odd["GET", f"/carts/{customer}"] = lambda _: reply(cart)
        neighbours.odd[method, path] = answer
        return (place(service, customer) if "products" in path else place_cart(service, customer)).status

    addresses = ["GET /products/{}", "PUT /products/{}", "GET /carts/{}", "PUT /carts/{}", "GET /cart_items"]
    with ThreadPoolExecutor(12) as clients:
        for address in addresses:
            assert set(clients.map(functools.partial(drown, address), floods * 4)) <= {201, 500}
    grown = peak_bytes(service.process.pid) - before
    assert grown < ROOM, f"{grown / 2**20:.0f} MiB"
