"""Without a key, programs on this machine may ask, and nobody else: real sockets, proxies' headers, real uvicorn."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ORDERS, Http, Sandbox, answers, free_port, wait_until
from tests.e2e.conftest import Service, Start, start_service, stop, usual

ROOT = Path(__file__).parents[2]
GET = "GET /orders HTTP/1.1"
LOCAL = "Host: localhost"


def own_address() -> str:
    """This machine's address in its network; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback's")
        return str(probe.getsockname()[0])


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def listens_at(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def answer_to(lines: str, port: int, host: str = "127.0.0.1", source: str | None = None) -> str:
    """What comes back for these lines, from this address of the client."""
    with socket.create_connection((host, port), timeout=20, source_address=(source, 0) if source else None) as peer:
        return exchanged(peer, lines)


def exchanged(peer: socket.socket, lines: str) -> str:
    peer.sendall(lines.replace("\n", "\r\n").encode() + b"\r\nConnection: close\r\n\r\n")
    answer = b""
    while piece := peer.recv(65536):
        answer += piece
    return answer.decode()


def status(answer: str) -> int:
    return int(answer.split()[1])


@pytest.fixture(scope="module")
def running(served_dsn: str, http: Http, sandbox_processes: Sandbox) -> Iterator[Service]:
    """The service, at every address of this machine."""
    service = start_service(http, host="0.0.0.0", **usual(served_dsn, sandbox_processes))
    wait_until(lambda: answers(service.url), "the service listens")
    yield service
    stop([service])


@pytest.fixture
def port(running: Service) -> int:
    return int(running.url.rpartition(":")[2])


# Where from -----------------------------------------------------------------------------------------------------------


def test_a_program_on_this_machine_may_do_everything(running: Service) -> None:
    placed = running.http.post(f"{running.url}/orders/42", {"items": [{"product_id": 7, "quantity": 1}]})
    assert placed.status in (201, 400), placed.body  # 400: the catalog has not got it
    assert running.get("/orders").status == 200


def test_another_address_of_this_machine_is_not_enough(port: int) -> None:
    assert status(answer_to(f"{GET}\n{LOCAL}", port, source="127.0.0.1")) == 200
    outside = answer_to(f"{GET}\n{LOCAL}", port, host=own_address())
    assert status(outside) == 401
    assert "credential_required" in outside
    assert "orders keys create" in outside
    assert "www-authenticate: bearer" in outside.lower()


def test_a_sidecar_of_a_mesh_is_not_this_machine(port: int) -> None:
    assert status(answer_to(f"{GET}\n{LOCAL}", port, source="127.0.0.6")) == 401


def test_what_says_nothing_of_orders_is_answered_to_everybody(port: int) -> None:
    for path in ("/", "/health", "/problems", "/docs", "/openapi.json"):
        assert status(answer_to(f"GET {path} HTTP/1.1\nHost: shop.example", port, host=own_address())) == 200, path


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6_has_a_loopback_too(start: Start) -> None:
    service = start(wait=False, host="::")
    port = int(service.url.rpartition(":")[2])
    wait_until(lambda: listens_at("::1", port), "the service listens")
    assert status(answer_to(f"{GET}\nHost: [::1]:{port}", port, host="::1")) == 200
    assert status(answer_to(f"{GET}\nHost: evil.example", port, host="::1")) == 401


# What for, and by whom ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("Host: localhost:8000", 200), ("Host: LOCALHOST", 200), ("Host: 127.0.0.1", 200), ("Host: [::1]:1", 200),
        ("Host: evil.example", 401), ("Host: localhost.evil.example", 401), ("Host: 127.0.0.1.evil.example", 401),
        ("Host: 127.0.0.6", 401), ("Host: [::2]", 401), ("Host: 0.0.0.0", 401), ("Host:", 401),
        ("Host: localhost\nHost: evil.example", 400), ("X-Nothing: 1", 400),
    ],
)  # fmt: skip
def test_a_name_that_was_made_to_point_here_is_not_this_machine(lines: str, expected: int, port: int) -> None:
    """DNS rebinding: the page's own name leads to 127.0.0.1, and the browser says it in Host."""
    assert status(answer_to(f"{GET}\n{lines}", port)) == expected


def test_before_http_1_1_a_host_may_be_missing_and_then_nobody_knows_whom_the_request_is_for(port: int) -> None:
    assert status(answer_to("GET /orders HTTP/1.0\nX-Nothing: 1", port)) == 401


@pytest.mark.parametrize(
    "line",
    [
        "Forwarded: for=192.0.2.60", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https",
        "X-Forwarded-Host: localhost", "X-Forwarded-Anything: 1", "X-Real-IP: 127.0.0.1", "Via: 1.1 proxy", "via:",
        "x-FORWARDED-for: ::1",
    ],
)  # fmt: skip
def test_what_a_proxy_passes_on_is_not_of_this_machine(line: str, port: int) -> None:
    assert status(answer_to(f"{GET}\n{LOCAL}\n{line}", port)) == 401


def test_nginx_with_proxy_pass_and_nothing_else_is_known_by_its_version_of_http(port: int) -> None:
    """It names the address that it was given as the host, and nobody for whom it asks. `ab` does not say `close`."""
    assert status(answer_to(f"GET /orders HTTP/1.0\nHost: 127.0.0.1:{port}", port)) == 401
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(f"GET /orders HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert peer.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("site", "expected"), [("none", 200), ("same-origin", 200), ("same-site", 401), ("cross-site", 401), ("", 401)]
)
def test_a_page_of_another_site_is_not_this_machine(site: str, expected: int, port: int) -> None:
    assert status(answer_to(f"{GET}\n{LOCAL}\nSec-Fetch-Site: {site}", port)) == expected
    wrote = status(answer_to(f"POST /orders/42 HTTP/1.1\n{LOCAL}\nSec-Fetch-Site: {site}\nContent-Length: 0", port))
    assert wrote == {"cross-site": 403}.get(site, 404 if expected == 200 else 401)  # 404: there is no cart


# The modes ------------------------------------------------------------------------------------------------------------


def test_a_credential_that_is_wrong_is_refused_however_open_the_service_is(start: Start, running: Service) -> None:
    services = [running, *(start(orders_access=mode) for mode in ("open", "closed"))]
    for service in services:
        for given in ("Bearer ord_wrong", "Bearer", "Basic YW5uYTpzZWNyZXQ=", "", "bearer x y"):
            reply = service.get("/orders", headers={"Authorization": given})
            assert (reply.status, reply.body["code"]) == (401, "credential_invalid"), given
            assert reply.headers["www-authenticate"] == "Bearer"
        assert service.get("/health", headers={"Authorization": "Bearer ord_wrong"}).status == 200


def test_closed_is_closed_on_this_machine_too_and_each_start_says_so(
    http: Http, sandbox: Sandbox, dsn: str, tmp_path: Path
) -> None:
    said = first_words(tmp_path, dsn, sandbox, orders_access="closed")
    assert said["status"] == 401
    assert said["code"] == "credential_required"
    assert "All requests need a key, and get 401 without: orders keys create --name NAME --as admin" in said["out"]
    assert said["health"] == 200


def test_open_is_open_to_everybody_and_each_start_warns(sandbox: Sandbox, dsn: str, tmp_path: Path) -> None:
    headers = {"X-Forwarded-For": "192.0.2.60", "Via": "1.1 proxy", "Sec-Fetch-Site": "cross-site"}
    said = first_words(tmp_path, dsn, sandbox, headers=headers, orders_access="open", host="0.0.0.0")
    assert said["status"] == 200
    assert "WARNING" in said["log"]
    assert "ORDERS_ACCESS is open: whoever reaches this port may read and change every order" in said["log"]
    assert "need a key" not in said["out"]


def test_who_serves_a_network_is_told_which_command_makes_a_key(sandbox: Sandbox, dsn: str, tmp_path: Path) -> None:
    said = first_words(tmp_path, dsn, sandbox, host="0.0.0.0")
    assert "Requests from other machines need a key" in said["out"]
    assert "orders keys create --name NAME --as admin" in said["out"]
    assert "ORDERS_ACCESS" not in said["log"]
    assert said["status"] == 200
    assert "need a key" not in first_words(tmp_path, dsn, sandbox)["out"]


def first_words(folder: Path, dsn: str, sandbox: Sandbox, headers: Any = None, **settings: Any) -> dict[str, Any]:
    """What `orders serve` says at its start, and its answer to a first request from this machine."""
    port, http = free_port(), Http()
    given = {name.upper(): str(value) for name, value in {**usual(dsn, sandbox), **settings}.items()}
    with (folder / "out").open("w") as out, (folder / "log").open("w") as log:
        environment = {**os.environ, "PORT": str(port), **given}
        process = subprocess.Popen([*ORDERS, "serve"], env=environment, stdout=out, stderr=log)
    service = Service(http, f"http://127.0.0.1:{port}", process)
    try:
        wait_until(lambda: answers(service.url), "the service listens")
        reply = service.get("/orders", headers=headers)
        health = service.get("/health", headers=headers).status
    finally:
        stop([service])
        http.close()
    texts = {name: (folder / name).read_text() for name in ("out", "log")}
    return {"status": reply.status, "code": reply.body.get("code"), "health": health, **texts}


# uvicorn --------------------------------------------------------------------------------------------------------------


def start_uvicorn(http: Http, *options: str, **settings: str) -> Service:
    port = free_port()
    environment = {**os.environ, **{name.upper(): value for name, value in settings.items()}}
    words = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port), *options]
    process = subprocess.Popen(words, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    return Service(http, f"http://127.0.0.1:{port}", process)


@pytest.mark.parametrize("options", [(), ("--forwarded-allow-ips", "*"), ("--no-proxy-headers",)])
def test_uvicorn_serves_this_machine_and_believes_no_proxy(
    options: tuple[str, ...], http: Http, sandbox: Sandbox, dsn: str
) -> None:
    """By default uvicorn takes the client's address from X-Forwarded-For, if the peer is on this machine."""
    service = start_uvicorn(http, "--host", "0.0.0.0", *options, **usual(dsn, sandbox))
    try:
        wait_until(lambda: answers(service.url), "the service listens")
        port = int(service.url.rpartition(":")[2])
        assert service.get("/orders").status == 200
        for client in ("127.0.0.1", "192.0.2.60", "::1", "rubbish", ""):
            assert status(answer_to(f"{GET}\n{LOCAL}\nX-Forwarded-For: {client}", port)) == 401
            assert status(answer_to(f"{GET}\n{LOCAL}\nX-Forwarded-For: {client}", port, host=own_address())) == 401
    finally:
        stop([service])


def test_what_talks_over_a_unix_socket_is_a_proxy(http: Http, sandbox: Sandbox, dsn: str, place: Path) -> None:
    path = place / "orders.sock"
    service = start_uvicorn(http, "--uds", str(path), **usual(dsn, sandbox))
    try:
        wait_until(path.exists, "the service listens")
        for lines in (LOCAL, f"{LOCAL}\nX-Forwarded-For: 127.0.0.1"):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(20)
                peer.connect(str(path))
                assert status(exchanged(peer, f"{GET}\n{lines}")) == 401
    finally:
        stop([service])
