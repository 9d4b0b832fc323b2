"""Lists over HTTP: whatever is asked, all pages together are what a plain Python list would give."""

import base64
import dataclasses
import itertools
import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Sandbox, execute
from tests.e2e.conftest import Service
from tests.e2e.test_contract import problem
from tests.made_up import make_up

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
STATUSES = ["Ordered", "Ordered", "Paid", "Shipped", "Cancelled", "Failed", "Pending", "On Hold"]
CUSTOMERS, PRODUCTS = (1, 2, 2**63 - 1), (7, 8, 2**63 - 1)
CHANNELS = (None, "web", "shop")
SORTS = [sign + key for key in ("created_at", "updated_at", "total", "number") for sign in ("", "-")]


@dataclass(frozen=True)
class Made:
    """An order as the model has it."""

    id: str
    number: int
    customer_id: int
    status: str
    total: int | None
    created_at: datetime | None
    updated_at: datetime | None
    adopted: bool
    products: tuple[int, ...]
    metadata: dict[str, Any]
    external_reference: str | None
    channel: str | None

    def key(self, sort: str) -> tuple[Any, str]:
        value = getattr(self, sort)
        never = sort == "created_at" or value is None
        return (datetime.min.replace(tzinfo=UTC) if "at" in sort else -1) if never else value, self.id


def made_up(count: int) -> list[Made]:
    chance = random.Random(5)
    numbers = list(range(1, count + 1))
    chance.shuffle(numbers)
    orders = []
    for n in range(count):
        adopted = n % 9 == 0
        ms = 0 if adopted else int((BEGIN + timedelta(seconds=chance.randrange(40))).timestamp() * 1000)
        created = None if adopted else BEGIN.fromtimestamp(ms / 1000, UTC)
        updated = created and created + chance.choice([timedelta(0), timedelta(seconds=1), timedelta(microseconds=1)])
        if adopted and n % 2:
            updated = BEGIN + timedelta(seconds=9)
        orders.append(
            Made(
                id=str(UUID(int=ms << 80 | 7 << 76 | 2 << 62 | chance.getrandbits(62))),
                number=numbers[n],
                customer_id=chance.choice(CUSTOMERS),
                status="Lost in the old system" if n == 27 else chance.choice(STATUSES),
                total=None if adopted else chance.choice([0, 5, 5, 10, 2**63 - 1]),
                created_at=created,
                updated_at=updated,
                adopted=adopted,
                products=tuple(chance.choices(PRODUCTS, k=chance.randrange(4))),
                metadata=chance.choice(
                    [{}, {"channel": "web", "size": "L"}, {"channel": "shop", "n": 5}, {"channel": ["web"]}]
                ),
                external_reference=f"r{n % 25}" if n < 25 else None,
                channel=CHANNELS[n % 3],
            )
        )
    return orders


def keep(dsn: str, orders: list[Made]) -> None:
    rows = [
        {
            **dataclasses.asdict(order),
            "placed_at": None if order.status in ("Failed", "Pending") else BEGIN,
            "failure": "order_failed" if order.status == "Failed" else None,
            "batch_id": order.id,
            "held_from": "Paid" if order.status == "On Hold" else None,
            "metadata": order.metadata or None,
        }
        for order in orders
    ]
    execute(
        dsn,
        """INSERT INTO orders (id, number, customer_id, status, total, created_at, updated_at, adopted, placed_at,
                               failure, batch_id, held_from, metadata, external_reference, channel)
           SELECT id, number, customer_id, status, total, created_at, updated_at, adopted, placed_at, failure,
                  batch_id, held_from, metadata, external_reference, channel
           FROM json_populate_recordset(NULL::orders, %(rows)s);
           INSERT INTO order_items (order_id, product_id, quantity, unit_price)
           SELECT (r->>'id')::uuid, p::bigint, 1, 5
           FROM json_array_elements(%(rows)s) r CROSS JOIN json_array_elements_text(r->'products') p;
           SELECT setval('order_numbers', 10000)""",
        {"rows": json.dumps(rows, default=str)},
    )


ORDERS = made_up(250)


@pytest.fixture
def shelf(service: Service, dsn: str) -> Iterator[Service]:
    keep(dsn, ORDERS)
    yield service
    execute(dsn, "TRUNCATE orders CASCADE")


moments = st.integers(-2_000, 42_000_000).map(lambda us: BEGIN + timedelta(microseconds=us - us % 500))
bounds = {
    **{f"{name}[{bound}]": moments for name in ("created_at", "updated_at") for bound in ("gte", "gt", "lte", "lt")},
    **{f"total[{bound}]": st.sampled_from([0, 1, 5, 10, 11, 2**63 - 1]) for bound in ("gte", "gt", "lte", "lt")},
}
queries = st.fixed_dictionaries(
    {"sort": st.sampled_from(SORTS), "limit": st.integers(7, 60)},
    optional={
        "status": st.lists(st.sampled_from(sorted(set(STATUSES))), max_size=3),
        "customer_id": st.sampled_from(CUSTOMERS),
        "channel": st.sampled_from(["web", "shop", "none"]),
        "product_id": st.sampled_from(PRODUCTS),
        "number": st.integers(1, 300),
        "external_reference": st.integers(0, 30).map(lambda n: f"r{n}"),
        "metadata[channel]": st.sampled_from(["web", "shop", "5"]),
        "metadata[n]": st.just("5"),
        "include_total": st.booleans(),
        **bounds,
    },
)
COMPARE = {"gte": "__ge__", "gt": "__gt__", "lte": "__le__", "lt": "__lt__"}


def expected(query: dict[str, Any]) -> list[Made]:
    statuses = query.get("status", [])

    def is_wanted(order: Made) -> bool:
        fits = order.status in statuses or (
            not statuses and (order.status not in ("Pending", "Failed") or order.adopted)
        )
        for name in ("customer_id", "channel", "number", "external_reference"):
            fits = fits and query.get(name, getattr(order, name)) == getattr(order, name)
        if "product_id" in query:
            fits = fits and query["product_id"] in order.products
        for name, value in query.items():
            if name.startswith("metadata"):
                fits = fits and order.metadata.get(name[9:-1]) == value
            elif name in bounds:
                field, bound = name[:-1].split("[")
                is_it = getattr(order, field)
                fits = fits and is_it is not None and getattr(is_it, COMPARE[bound])(value)
        return fits

    sort = query["sort"]
    return sorted(
        filter(is_wanted, ORDERS), key=lambda order: order.key(sort.removeprefix("-")), reverse=sort.startswith("-")
    )


def parameters(query: dict[str, Any], has_brackets: bool) -> str:
    """In one of the two ways to write it."""
    sent = [(k, v.isoformat() if isinstance(v, datetime) else v) for k, v in query.items()]
    return urlencode(sent if has_brackets else [without_brackets(*one) for one in sent], doseq=True)


def without_brackets(name: str, value: Any) -> tuple[str, Any]:
    outer, bracket, inner = name.removesuffix("]").partition("[")
    if not bracket:
        return name, value
    return ("metadata", f"{inner}={value}") if outer == "metadata" else (f"{outer}_{inner}", value)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(query=queries, has_brackets=st.booleans())
def test_all_pages_together_are_what_a_plain_list_would_give(
    shelf: Service, query: dict[str, Any], has_brackets: bool
) -> None:
    seen: list[str] = []
    url = f"/orders?{parameters(query, has_brackets)}"
    while url:
        reply = shelf.get(url)
        assert reply.status == 200, reply
        seen += [order["id"] for order in reply.body["orders"]]
        assert len(reply.body["orders"]) <= query["limit"]
        if query.get("include_total"):
            assert reply.body["total_count"] == len(expected(query))
        url = reply.body["next"]
    assert seen == [order.id for order in expected(query)]


def test_a_customers_lists_take_the_same_filters(shelf: Service) -> None:
    wanted = expected({"sort": "total", "customer_id": 2, "total[gt]": 4})
    for address in ("/orders/2", "/customers/2/orders"):
        reply = shelf.get(f"{address}?total[gt]=4&sort=total&limit=2&include_total=true").body
        assert [order["id"] for order in reply["orders"]] == [order.id for order in wanted[:2]]
        assert reply["total_count"] == len(wanted)
        assert reply["next"].startswith(f"{address}?total[gt]=4&sort=total&limit=2&include_total=true&cursor=")
        assert [o["id"] for o in shelf.get(reply["next"]).body["orders"]] == [order.id for order in wanted[2:4]]
        bare = shelf.get(f"{address}?total_gt=4&sort=total&limit=2").body
        assert bare["orders"] == reply["orders"]
        assert bare["next"].startswith(f"{address}?total_gt=4&sort=total&limit=2&cursor=")  # as it was asked for
    assert shelf.get("/orders/2?number=999").body == {"orders": [], "next": None}
    problem(shelf.get("/orders/3"), 404, "no_orders_for_customer")


MALFORMED = [
    ("sort=price", "query/sort"),
    ("colour=blue", "query/colour"),
    ("metadata=web", "query/metadata"),
    ("metadata[]=web", "query/metadata[]"),
    ("metadata[a]=1&metadata[a]=2", "query/metadata[a]"),
    ("metadata[a]=%00", "query/metadata[a]"),
    ("&".join(f"metadata[{n}]=x" for n in range(6)), "query/metadata"),
    ("&".join(f"metadata={n}=x" for n in range(6)), "query/metadata"),
    ("&".join(f"metadata={n}=x&metadata[a{n}]=x" for n in range(3)), "query/metadata"),
    ("metadata==web", "query/metadata"),
    ("metadata=a=%00", "query/metadata"),
    ("external_reference=%00", "query/external_reference"),
    ("customer_id=-9223372036854775809", "query/customer_id"),
    ("product_id=9223372036854775808", "query/product_id"),
    ("number=one", "query/number"),
    ("channel=Web", "query/channel"),
    ("channel=", "query/channel"),
    ("channel=web%0A", "query/channel"),
    ("total[gte]=-1", "query/total[gte]"),
    ("total[above]=1", "query/total[above]"),
    ("total_gte=-1", "query/total_gte"),
    ("total_gte=1&total_gte=2", "query/total_gte"),
    ("total_gte=1&total[gte]=1", "query/total[gte]"),
    ("created_at_lt=soon", "query/created_at_lt"),
    ("created_at=2026-11-23", "query/created_at"),
    ("created_at[gte]=yesterday", "query/created_at[gte]"),
    ("created_at[gte]=1700000000", "query/created_at[gte]"),
    ("created_at[gte]=2026-11-23T10:00:00", "query/created_at[gte]"),
    ("created_at[gte]=2026-11-23T10:00:00+01:00", "query/created_at[gte]"),
    ("updated_at[lt]=2026-13-23", "query/updated_at[lt]"),
    ("updated_at[lt]=0001-01-01T00:00:00%2B14:00", "query/updated_at[lt]"),
    ("include_total=maybe", "query/include_total"),
    ("cursor=x", "query/cursor"),
]


def test_a_malformed_parameter_is_422_and_names_itself(shelf: Service) -> None:
    for (query, pointer), path in itertools.product(MALFORMED, ("/orders", "/orders/1")):
        if not (path == "/orders/1" and query.startswith("customer_id")):
            errors = problem(shelf.get(f"{path}?{query}"), 422, "invalid_request")["errors"]
            assert errors[0]["pointer"] == pointer
    problem(shelf.get(f"/orders/{ORDERS[0].id}?colour=blue"), 422, "invalid_request")
    problem(shelf.get("/orders/1?customer_id=1"), 422, "invalid_request")


def test_a_filter_that_is_sent_under_both_of_its_names_is_told_so(shelf: Service) -> None:
    for path in ("/orders", "/orders/1", "/orders.csv"):
        body = problem(shelf.get(f"{path}?created_at[gt]=2026-11-23&created_at_gt=2026-11-23"), 422, "invalid_request")
        assert body["detail"] == "created_at[gt] and created_at_gt are one parameter; send it once."


def test_metadata_filters_may_be_written_both_ways_and_together(shelf: Service) -> None:
    wanted = [order.id for order in expected({"sort": "-total", "metadata[channel]": "web", "metadata[size]": "L"})]
    assert wanted
    ways = ("metadata=channel=web&metadata=size=L", "metadata[size]=L&metadata=channel=web")
    for way in ways:
        assert [o["id"] for o in shelf.get(f"/orders?sort=-total&limit=1000&{way}").body["orders"]] == wanted
    once, twice = "metadata=size=L", "metadata[size]=L&metadata=size=L"
    assert shelf.get(f"/orders?{twice}").body["orders"] == shelf.get(f"/orders?{once}").body["orders"] != []
    assert shelf.get("/orders?metadata=size=L&metadata=size=M").body["orders"] == []  # no order has both


def test_the_farthest_times_are_no_errors(shelf: Service) -> None:
    everything = "created_at[gt]=0001-01-01&created_at[lte]=9999-12-31T23:59:59.999999Z&limit=1000"
    assert len(shelf.get(f"/orders?{everything}").body["orders"]) == len(
        expected({"sort": "total", "created_at[gt]": BEGIN - timedelta(days=1)})
    )


def cursor_of(next_url: str) -> bytes:
    return base64.urlsafe_b64decode(next_url.split("cursor=")[1] + "==")


def test_a_forged_cursor_is_refused_or_a_place_in_the_same_list(shelf: Service) -> None:
    for sort in SORTS:
        refuse_forgeries(shelf, sort)


def refuse_forgeries(shelf: Service, sort: str) -> None:
    everything = {order.id for order in expected({"sort": sort})}
    packed = cursor_of(shelf.get(f"/orders?sort={sort}&limit=3").body["next"])
    chance = random.Random(sort)
    forged = [packed[:8] + chance.randbytes(len(packed) - 8) for _ in range(20)]
    forged += [
        packed[:8] + key + packed[16:] for key in (b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + b"\0" * 7)
    ]
    forged += [bytes([packed[n] ^ 1 if n == at else packed[n] for n in range(len(packed))]) for at in range(8)]
    forged += [packed[:-1], packed + b"\0", b"", UUID(ORDERS[0].id).bytes]
    refused = 0
    for cursor in forged:
        reply = shelf.get(f"/orders?sort={sort}&limit=1000&cursor={base64.urlsafe_b64encode(cursor).decode()}")
        if reply.status == 200:
            assert {order["id"] for order in reply.body["orders"]} <= everything
        else:
            assert problem(reply, 422, "invalid_request")["errors"][0]["pointer"] == "query/cursor"
            refused += 1
    assert refused >= 12  # every changed fingerprint and every wrong length


def test_a_cursor_is_of_one_list_only(shelf: Service) -> None:
    cursor = shelf.get("/orders?sort=total&limit=3").body["next"].split("cursor=")[1]
    for other in (
        "sort=-total",
        "sort=number",
        "sort=total&status=paid",
        "sort=total&customer_id=1",
        "sort=total&channel=web",
    ):
        errors = problem(shelf.get(f"/orders?{other}&cursor={cursor}"), 422, "invalid_request")["errors"]
        assert errors[0]["code"] == "cursor_invalid"
    assert shelf.get(f"/orders?sort=total&limit=50&cursor={cursor}").status == 200


@contextmanager
def buying(service: Service, product: int) -> Iterator[list[str]]:
    """Meanwhile orders are placed, one after the other; their IDs."""
    stop, placed = threading.Event(), []
    customers = itertools.count(1_000)

    def place() -> None:
        while not stop.is_set():
            placed.append(service.place(next(customers), (product, 1)).body["id"])

    buyer = threading.Thread(target=place)
    buyer.start()
    try:
        yield placed
    finally:
        stop.set()
        buyer.join()


def page_through(service: Service, sort: str, limit: int, at_most: int) -> list[str]:
    """The IDs on all pages; who is given more than `at_most` has been led in circles."""
    seen: list[str] = []
    url = f"/orders?limit={limit}&sort={sort}"
    while url and len(seen) < at_most:
        page = service.get(url).body
        seen += [order["id"] for order in page["orders"]]
        url = page["next"]
    return seen


def test_no_order_is_missed_or_seen_twice_while_others_are_placed(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product = sandbox.product(10_000)
    before = {service.place(n, (product, 1)).body["id"] for n in range(1, 41)}
    with buying(service, product) as placed:
        for sort in SORTS:
            seen = page_through(service, sort, 2, 3 * (len(before) + len(placed) + 100))
            assert len(seen) == len(set(seen)), sort
            assert before <= set(seen), sort
    assert len(placed) > 20


@pytest.mark.skipif("ORDERS_TEST_MANY" not in os.environ, reason="takes minutes; say how many orders: a million?")
def test_very_many_orders_are_paged_through_without_a_gap_or_a_repeat_while_others_are_placed(
    service: Service, sandbox: Sandbox, dsn: str
) -> None:
    many = int(os.environ["ORDERS_TEST_MANY"])
    make_up(dsn, many)
    placed_before = "SELECT id FROM orders WHERE status NOT IN ('Pending', 'Failed')"
    before = {order_id for (order_id,) in execute(dsn, placed_before)}
    assert len(before) > many * 0.98
    with buying(service, sandbox.product(1_000_000)) as placed:
        for sort in os.environ.get("ORDERS_TEST_SORTS", "-created_at,number,total,-updated_at").split(","):
            seen = page_through(service, sort, 1000, 2 * many)
            assert len(seen) == len(set(seen)), sort
            assert before <= set(seen), sort
            assert len(seen) <= len(before) + len(placed), sort
    assert len(placed) > 100


def test_orders_are_sorted_by_the_creation_that_they_show(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(1000)
    for customer in range(1, 20):
        service.place(customer, (product, 1))
    orders = service.get("/orders?sort=created_at").body["orders"]
    assert [order["created_at"] for order in orders] == sorted(order["created_at"] for order in orders)
    middle = orders[9]["created_at"]
    found = service.get(f"/orders?sort=created_at&created_at[gte]={middle}").body["orders"]
    assert [order["id"] for order in found] == [o["id"] for o in orders if o["created_at"] >= middle]


def test_a_list_that_takes_too_long_is_refused(shelf: Service, dsn: str) -> None:
    lock = psycopg2.connect(dsn)
    lock.cursor().execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    try:
        reply = shelf.get("/orders")
        problem(reply, 503, "too_slow")
        assert reply.headers["retry-after"]
    finally:
        lock.close()
