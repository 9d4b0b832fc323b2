"""What happens to a request before its route: bounds, hosts, other sites' pages, headers, and its line in the log."""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ORDERS, Http, Sandbox, wait_until
from tests.e2e.conftest import Service, listening, start_service, stop, usual

HOSTS, ORIGIN = "localhost, 127.0.0.1, shop.example", "https://admin.shop.example"
JSON_TYPE = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edge") / "log.txt"


@pytest.fixture(scope="module")
def lasting(log: Path) -> Iterator[list[Service]]:
    running: list[Service] = []
    yield running
    stop(running)


@pytest.fixture
def service(lasting: list[Service], log: Path, http: Http, sandbox: Sandbox, dsn: str) -> Service:
    if not lasting:
        # these requests come as from afar, and who may ask is tested elsewhere
        more = {"orders_hosts": HOSTS, "orders_cors_origins": ORIGIN, "orders_access_log": "true"}
        more["orders_access"] = "open"
        with log.open("a") as stderr:
            lasting.append(start_service(http, log=stderr, **usual(dsn, sandbox), **more))
    return listening(lasting[0])


def raw(service: Service, head: str, body: bytes = b"") -> str:
    """What comes back for exactly these bytes."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := connection.recv(65536)):
            answer += piece
    return answer.decode("latin-1")


# Bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/orders", "/orders.csv", "/reports/statuses", "/orders/42", "/health", "/nothing"])
@pytest.mark.parametrize(("count", "length"), [(51, 1), (5, 2000), (5_000, 1)])
def test_a_query_of_too_many_parameters_or_bytes_is_refused(
    path: str, count: int, length: int, service: Service
) -> None:
    query = "&".join(f"a{n}={'x' * length}" for n in range(count))
    reply = service.get(f"{path}?{query}")
    assert reply.status in (422, 431), reply.body
    if reply.status == 422:
        assert reply.body["errors"][0]["code"] in ("too_many", "too_long")


@pytest.mark.parametrize("path", ["/orders/42", "/orders:batch", "/dry-run/orders/42"])
def test_a_body_that_announces_itself_as_too_large_is_refused_unread(path: str, service: Service) -> None:
    size = 300_000 if "batch" not in path else 1_100_000
    head = f"POST {path} HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: {size}"
    answer = raw(service, head)  # nothing of the body is sent
    assert answer.startswith("HTTP/1.1 413 ")
    assert "connection: close" in answer.lower()


def test_a_body_in_chunks_is_cut_off_where_it_becomes_too_large(service: Service) -> None:
    head = "POST /orders/42 HTTP/1.1\nHost: localhost\nContent-Type: application/json\nTransfer-Encoding: chunked"
    answer = raw(service, head, b"10000\r\n" + b" " * 0x10000 + b"\r\n" + 4 * (b"10000\r\n" + b" " * 0x10000 + b"\r\n"))
    assert answer.startswith("HTTP/1.1 413 ")


def test_of_many_errors_the_first_are_told_and_how_many_there_are(service: Service) -> None:
    items = [{"product_id": "x", "quantity": "y"} for _ in range(400)]
    reply = service.http.post(f"{service.url}/orders/42", {"items": items})
    assert (reply.status, len(reply.body["errors"]), reply.body["error_count"]) == (422, 20, 800)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/orders/42"), ("PUT", "/orders/42"), ("POST", "/orders:batch"), ("PATCH", "/orders/1")],
)
def test_an_object_of_thousands_of_members_is_refused_with_a_short_answer(
    method: str, path: str, service: Service
) -> None:
    document = {f"m{n}": 1 for n in range(20_000)}
    reply = service.http.send(method, f"{service.url}{path}", document)
    assert reply.status == 422
    assert reply.body["errors"][0]["code"] == "too_many_members"
    assert len(json.dumps(reply.body)) < 1000


# Bodies ---------------------------------------------------------------------------------------------------------------

TWICE = [
    ("POST", "/orders/42", b'{"items": [{"product_id": 1, "quantity": 1, "quantity": 2}]}', "#/items/0/quantity"),
    ("POST", "/customers/42/orders", b'{"metadata": {"a": {"b": 1, "b": 2}}}', "#/metadata/a/b"),
    ("POST", "/orders:batch", b'{"orders": [{"customer_id": 1}, {"notes": 2, "notes": 3}]}', "#/orders/1/notes"),
    ("PUT", "/orders:batch", b'{"orders": [], "orders": []}', "#/orders"),
    ("PUT", "/orders/ID", b'{"status": "Paid", "status": "Cancelled"}', "#/status"),
    ("PATCH", "/orders/ID", b'{"notes": {"public": "a", "public": "b"}}', "#/notes/public"),
    ("POST", "/orders/ID/cancel", b'{"reason": "a", "reason": "b"}', "#/reason"),
    ("POST", "/orders/ID/return", b'{"note": "a", "note": "b"}', "#/note"),
    ("POST", "/dry-run/orders/42", b'{"items": [], "items": []}', "#/items"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "pointer"), TWICE)
def test_a_member_that_is_twice_in_a_body_is_refused(
    method: str, path: str, body: bytes, pointer: str, service: Service
) -> None:
    address = path.replace("ID", "01a20aba-6e99-743f-8292-11e9cafb05ea")
    head = f"{method} {address} HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: {len(body)}"
    answer = raw(service, head, body)
    assert answer.startswith("HTTP/1.1 422 "), answer
    sent = service.http._client.request(method, f"{service.url}{address}").headers(JSON_TYPE).body_bytes(body)
    found = sent.build().send().json()["errors"][0]
    assert (found["code"], found["pointer"]) == ("duplicate_member", pointer)


@pytest.mark.parametrize(
    "body",
    [
        b'{"metadata": {"a": NaN}}',
        b'{"metadata": {"a": -Infinity}}',
        b'{"items": "\xff"}',
        b"[" * 5000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_in_utf_8_is_refused(body: bytes, service: Service) -> None:
    for path in ("/orders/42", "/orders:batch"):
        sent = service.http._client.request("POST", f"{service.url}{path}").headers(JSON_TYPE).body_bytes(body)
        assert sent.build().send().status == 422


# Who may come in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Host: localhost", 200), ("Host: LOCALHOST:8000", 200), ("Host: shop.example", 200),
        ("Host: evil.example", 421), ("Host: [::1]:8000", 421), ("Host:", 421), ("X-Nothing: 1", 400),
        ("Host: localhost\nHost: localhost", 400),
    ],
)  # fmt: skip
def test_the_host_has_to_be_one_and_one_of_ours(lines: str, status: int, service: Service) -> None:
    assert raw(service, f"GET /orders HTTP/1.1\n{lines}").startswith(f"HTTP/1.1 {status} ")


def test_probes_may_use_any_host(service: Service) -> None:
    assert raw(service, "GET /health HTTP/1.1\nHost: 10.0.0.7:8000").startswith("HTTP/1.1 200 ")


def test_a_long_name_is_not_sent_back(service: Service) -> None:
    reply = service.http.post(f"{service.url}/orders/42", {"x" * 200_000: 1})
    assert reply.status == 422
    assert len(json.dumps(reply.body)) < 1000


def test_a_page_of_another_site_buys_no_cart(service: Service, sandbox: Sandbox) -> None:
    cart = sandbox.fill_cart(4711, (sandbox.product(5), 1))
    for site, origin, status in (
        ("cross-site", "https://evil.example", 403),
        (None, "http://evil.example", 403),
        (None, "null", 403),
        ("cross-site", ORIGIN, 201),
        ("same-origin", None, 201),
        (None, service.url, 201),
    ):
        headers = {**({"Sec-Fetch-Site": site} if site else {}), **({"Origin": origin} if origin else {})}
        reply = service.http.post(f"{service.url}/orders/4711", headers=headers)
        assert reply.status == status, reply.body
        if status == 403:
            assert reply.body["code"] == "cross_site"
            assert sandbox.cart_status(cart) == "Active"
    assert service.get("/orders", headers={"Sec-Fetch-Site": "cross-site"}).status == 200  # its answer can't be read


def test_pages_of_named_origins_may_read_and_write(service: Service) -> None:
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
    asks["Access-Control-Request-Headers"] = "authorization,if-match"
    allowed = service.http.send("OPTIONS", f"{service.url}/orders/42", headers=asks)
    assert allowed.status == 200
    assert "Authorization" in allowed.headers["access-control-allow-headers"]
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "PUT" in allowed.headers["access-control-allow-methods"]
    reply = service.get("/orders", headers={"Origin": ORIGIN})
    assert "ETag" in reply.headers["access-control-expose-headers"]
    refused = service.get("/orders", headers={"Origin": ORIGIN, "Authorization": "Bearer ord_wrong"})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)  # the page can read why
    stranger = service.get("/orders", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers


# Headers and addresses ------------------------------------------------------------------------------------------------


def test_private_answers_are_not_kept_and_pages_load_only_their_own(service: Service, sandbox: Sandbox) -> None:
    placed = service.place(42, (sandbox.product(5), 1))
    private = ["/orders", f"/orders/{placed.body['id']}", "/reports/statuses", "/orders.csv", "/health", "/workflow"]
    for reply in (placed, *map(service.get, private), service.get("/orders/nothing")):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
    for path in ("/docs", "/redoc", "/openapi.json", "/problems"):
        assert "cache-control" not in service.get(path).headers
    for path in ("/docs", "/redoc"):
        page = service.get(path)
        assert page.status == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "'unsafe-inline'" not in policy.split("style-src")[0]
        assert not re.findall(r'(?:src|href)="https?://', page.body)
        for file in re.findall(r'(?:src|href)="(/[^"]+)"', page.body):
            assert service.get(file).status == 200
    known = service.get(f"/orders/{placed.body['id']}", headers={"If-None-Match": placed.headers["etag"]})
    assert (known.status, known.headers["cache-control"]) == (304, "no-store")


def test_a_slash_at_the_end_changes_nothing(service: Service, sandbox: Sandbox) -> None:
    product = sandbox.product(5)
    body = {"items": [{"product_id": product, "quantity": 1}]}
    placed = service.http.post(f"{service.url}/orders/42/", body)
    assert placed.status == 201
    address = f"{service.url}/orders/{placed.body['id']}/"
    assert service.http.put(address, {"status": "Paid"}).status == 200
    for path in ("/orders/", f"/orders/{placed.body['id']}/", "/customers/42/orders/", "/workflow/", "/reports/sales/"):
        assert service.get(path).status == 200, path
    assert service.get("//").status == 200


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/orders", "GET, HEAD, OPTIONS"),
        ("/orders:batch", "OPTIONS, POST, PUT"),
        ("/orders/42/cancel", "OPTIONS, POST"),
    ],
)
def test_options_says_what_is_allowed(path: str, allowed: str, service: Service) -> None:
    reply = service.http.send("OPTIONS", f"{service.url}{path}")
    assert (reply.status, reply.headers["allow"]) == (204, allowed)
    assert service.http.send("OPTIONS", f"{service.url}/nothing").status == 404


# The log --------------------------------------------------------------------------------------------------------------


def test_each_refused_request_has_a_line_with_its_id_and_none_can_be_forged(
    service: Service, log: Path, sandbox: Sandbox
) -> None:
    product = sandbox.product(1)
    body = {"items": [{"product_id": product, "quantity": 2}]}
    service.http.post(f"{service.url}/orders/42", body, headers={"X-Request-ID": "shop-4711"})
    service.get("/orders/%0A2026-01-01%20ERROR%20forged%1B%5B31m", headers={"X-Request-ID": "forger"})
    service.get("/workflow?status=secret-of-a-query", headers={"X-Request-ID": "query"})
    wait_until(lambda: "[query]" in log.read_text(), "all lines are there")
    lines = log.read_text().splitlines()
    (refused,) = [line for line in lines if "[shop-4711]" in line]
    assert re.search(
        r"POST /orders/42 \[shop-4711\] 400 \d+ ms insufficient_inventory: .*2 requested, 1 available", refused
    )
    (forged,) = [line for line in lines if "[forger]" in line]
    assert "\\n2026-01-01 ERROR forged\\x1b" in forged
    assert not any(line.startswith("2026-01-01") for line in lines)
    assert "secret-of-a-query" not in log.read_text().replace("There is no parameter 'status'", "")


def test_show_finds_the_orders_of_a_request(service: Service, sandbox: Sandbox, dsn: str) -> None:
    request_id = f"batch-{time.time_ns()}"
    product = sandbox.product(9)
    order: dict[str, Any] = {"customer_id": 7, "items": [{"product_id": product, "quantity": 1}]}
    headers = {"X-Request-ID": request_id}
    reply = service.http.post(f"{service.url}/orders:batch", {"orders": [order, order]}, headers=headers)
    placed = [result["order"]["id"] for result in reply.body["results"]]
    environment = {name.upper(): value for name, value in usual(dsn, sandbox).items()}
    shown = run_show(request_id, environment)
    assert [line for line in placed if f'"id": "{line}"' in shown.stdout] == placed
    assert run_show("nobody-asked", environment).returncode == 1


def run_show(what: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*ORDERS, "show", what],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
