"""Over HTTP: a foreign order is answered exactly as one that does not exist, whatever is asked about it."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import pytest
import uvicorn

from orders import app as application
from orders.access.check import Access
from orders.order.document_sql import SHOP
from orders.principal import ALL_SCOPES, LOCAL, CustomerMay, Principal, PrincipalKind, Seer
from orders.settings import Settings
from tests.conftest import Http, Reply, execute, free_port, wait_until
from tests.e2e.test_lists import ORDERS, Made, keep

NOBODYS = UUID(int=5)
OWN = Seer(customer_id=2, sees_private=False)
IN_SHOP = Seer(channel="shop", sees_private=False)


def customer(seer: Seer) -> Principal:
    name = f"customer:{seer.customer_id}"
    may = frozenset(CustomerMay)
    return Principal(PrincipalKind.CUSTOMER, name, name, frozenset(), seer, rate=1_000_000, customer_may=may)


PRINCIPALS = {
    "customer": customer(OWN),
    "shop": Principal(PrincipalKind.KEY, "key:shop", "key:shop", ALL_SCOPES, IN_SHOP),
    "all": LOCAL,
}


class Names:
    """Credentials for tests: a name is enough."""

    def is_one(self, text: str) -> bool:
        return text in PRINCIPALS

    def find(self, text: str) -> Principal:
        return PRINCIPALS[text]

    def exist(self) -> bool:
        return False


class Served:
    """A replica in a thread of this process."""

    def __init__(self, http: Http, url: str) -> None:
        self._http = http
        self.url = url

    def get(self, who: str, path: str, **headers: str) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._http.get(self.url + path, headers={"Authorization": f"Bearer {who}", **sent})


@pytest.fixture
def served(settings: Settings, dsn: str, http: Http, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    keep(dsn, ORDERS)
    execute(dsn, "UPDATE orders SET private_note = 'a secret', public_note = 'hello'")
    execute(
        dsn,
        """INSERT INTO order_events (order_id, number, type, before, after, actor, note)
           SELECT id, 1, 'described', NULL, orders_attached(orders), 'key:shop/anna', 'hers' FROM orders""",
    )
    monkeypatch.setattr(application, "Access", lambda mode, _: Access(mode, (Names(),)))
    port = free_port()
    config = uvicorn.Config(application.create_app(settings), port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server listens")
    yield Served(http, f"http://127.0.0.1:{port}")
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()
    execute(dsn, "TRUNCATE orders CASCADE")


def is_seen(seer: Seer, order: Made) -> bool:
    return seer.customer_id in (None, order.customer_id) and seer.channel in (None, order.channel)


ONLY_OF_THE_REQUEST = ("date", "x-request-id", "ratelimit")


def without_id(reply: Reply, order_id: object) -> Any:
    """The answer, with the order's ID taken out of it."""
    body = json.dumps(reply.body).replace(str(order_id), "ID")
    headers = {name: value for name, value in reply.headers.items() if name not in ONLY_OF_THE_REQUEST}
    return reply.status, body, headers


ABOUT_AN_ORDER = ("", "?at=1", "?at=99", "?at=2026-03-02T00:00:00Z", "/events", "/events?after=1")


@pytest.mark.parametrize("who", ["customer", "shop"])
def test_a_foreign_order_is_as_one_that_does_not_exist(served: Served, who: str) -> None:
    seer = PRINCIPALS[who].seer
    foreign = [order for order in ORDERS if not is_seen(seer, order)][::9]
    for path in ABOUT_AN_ORDER:
        for known in ({}, {"If_None_Match": '"1"'}, {"If_None_Match": "*"}):
            missing = served.get(who, f"/orders/{NOBODYS}{path}", **known)
            assert missing.status == 404
            for order in foreign:
                reply = served.get(who, f"/orders/{order.id}{path}", **known)
                assert without_id(reply, order.id) == without_id(missing, NOBODYS)


@pytest.mark.parametrize("who", ["customer", "shop"])
def test_an_order_that_is_seen_is_there_without_what_is_private(served: Served, who: str) -> None:
    seer = PRINCIPALS[who].seer
    for order in [order for order in ORDERS if is_seen(seer, order)][::5]:
        reply = served.get(who, f"/orders/{order.id}")
        assert (reply.status, reply.body["channel"]) == (200, order.channel)
        assert reply.body["notes"] == {"public": "hello", "private": None}
        assert served.get("all", f"/orders/{order.id}").body["notes"]["private"] == "a secret"
        assert served.get(who, f"/orders/{order.id}", If_None_Match='"1"').status == 304
        (event,) = served.get(who, f"/orders/{order.id}/events").body["events"]
        assert (event["actor"], event["note"], event["after"]["notes"]["private"]) == (SHOP, None, None)


def test_the_lists_of_a_customer_are_their_own(served: Served) -> None:
    everywhere = "limit=1000" + "".join(f"&status={quote(status)}" for status in sorted({o.status for o in ORDERS}))
    listed = served.get("customer", f"/orders?{everywhere}").body["orders"]
    assert {order["id"] for order in listed} == {order.id for order in ORDERS if order.customer_id == 2}
    for path in ("/orders/2", "/customers/2/orders", "/orders?customer_id=2"):
        everything = served.get("all", f"{path}{'&' if '?' in path else '?'}limit=1000").body["orders"]
        shown = served.get("customer", f"{path}{'&' if '?' in path else '?'}limit=1000").body["orders"]
        assert [order["id"] for order in shown] == [order["id"] for order in everything]
        assert {order["notes"]["private"] for order in shown} == {None}
    for path in ("/orders/{}", "/customers/{}/orders", "/orders/{}?include_total=true"):
        missing, foreign = (served.get("customer", path.format(one)) for one in (3, 1))
        assert without_id(foreign, 1)[0] == 404
        assert foreign.body["code"] == "no_orders_for_customer"
        assert foreign.body["detail"].replace("1", "3") == missing.body["detail"]
    assert served.get("customer", "/orders?customer_id=1&include_total=true").body == {
        "orders": [], "next": None, "total_count": 0,
    }  # fmt: skip


@pytest.mark.parametrize("sort", ["created_at", "-updated_at", "total", "number"])
def test_a_cursor_of_somebody_else_shows_nothing_of_theirs(served: Served, sort: str) -> None:
    for theirs, who in (("all", "customer"), ("customer", "shop"), ("shop", "customer"), ("all", "shop")):
        seer = PRINCIPALS[who].seer
        following = served.get(theirs, f"/orders?sort={sort}&limit=5").body["next"]
        while following:
            address = urlsplit(following)
            reply = served.get(who, f"{address.path}?{address.query}")
            assert reply.status == 200
            ids = {order["id"] for order in reply.body["orders"]}
            assert ids <= {order.id for order in ORDERS if is_seen(seer, order)}
            following = reply.body["next"]


def test_exports_and_reports_of_a_channel_are_of_that_channel(served: Served) -> None:
    lines = served.get("shop", "/orders.csv").body.splitlines()
    place = lines[0].split(",").index("channel")
    assert {line.split(",")[place] for line in lines[1:] if line[0] == "0"} == {"shop"}
    assert "a secret" not in "".join(lines)
    request = urllib.request.Request(f"{served.url}/orders.ndjson", headers={"Authorization": "Bearer shop"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        exported = [json.loads(line) for line in answer]
    assert {(order["channel"], order["notes"]["private"]) for order in exported} == {("shop", None)}
    sold = served.get("shop", "/reports/sales?from=2026-01-01&to=2026-12-31").body
    assert sold["channel"] == "shop"
    assert sold == {**served.get("all", "/reports/sales?from=2026-01-01&to=2026-12-31&channel=shop").body}
    assert served.get("shop", "/reports/sales?from=2026-01-01&to=2026-12-31&channel=web").body["total"]["orders"] == 0
    assert served.get("all", "/reports/sales?from=2026-01-01&to=2026-12-31&channel=web").body["total"]["orders"] > 0
    for path in ("/orders.csv", "/orders.ndjson", "/reports/sales", "/reports/products", "/reports/statuses"):
        assert served.get("customer", path).status == 403
