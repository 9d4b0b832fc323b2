"""The bounds on connections hold however the service is started: `orders serve`, or `uvicorn main:app` with options."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ORDERS, Http, Sandbox, answers, free_port, wait_until
from tests.e2e.conftest import Service, stop, usual

ROOT = Path(__file__).parents[2]
UVICORN = [sys.executable, "-m", "uvicorn", "main:app", "--port"]
COMMANDS = {
    "orders serve": lambda port: [*ORDERS, "serve", "--port", port],
    "orders serve, two workers": lambda port: [*ORDERS, "serve", "--workers", "2", "--port", port],
    "uvicorn": lambda port: [*UVICORN, port],
    "uvicorn, h11": lambda port: [*UVICORN, port, "--http", "h11", "--loop", "asyncio"],
    "uvicorn, two workers": lambda port: [*UVICORN, port, "--http", "httptools", "--workers", "2"],
    "uvicorn, a factory": lambda port: [*UVICORN[:3], "--factory", "orders.app:app_from_environment", "--port", port],
}
Run = Callable[..., Service]


@pytest.fixture
def run(http: Http, sandbox: Sandbox, dsn: str) -> Iterator[Run]:
    """Starts the service by a command line, perhaps with few files that it may open."""
    running: list[Service] = []

    def start(command: Callable[[str], list[str]], files: int | None = None, **settings: Any) -> Service:
        port = free_port()
        given = {name.upper(): str(value) for name, value in {**usual(dsn, sandbox), **settings}.items()}
        process = subprocess.Popen(
            with_files(files, command(str(port))), env={**os.environ, **given}, cwd=ROOT, stderr=subprocess.DEVNULL
        )
        running.append(Service(http, f"http://127.0.0.1:{port}", process))
        wait_until(lambda: answers(running[-1].url), "the service listens")
        return running[-1]

    yield start
    stop(running)


def with_files(count: int | None, words: list[str]) -> list[str]:
    """A command that may open that many files."""
    return words if count is None else ["sh", "-c", f'ulimit -n {count}; exec "$@"', "sh", *words]


def connected(service: Service) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def everything(client: socket.socket) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            said += data
    client.close()
    return said


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_header_of_64_mb_is_431_before_it_has_arrived(run: Run, command: Callable[[str], list[str]]) -> None:
    service = run(command)
    client = connected(service)
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 64 * 1024 * 1024:
            sent += client.send(b"x" * 65536)
    assert sent < 32 * 1024 * 1024  # a few MB are on their way, in the kernel
    head, body = everything(client).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["code"] == "head_too_large"
    assert service.get("/health").status == 200
    assert service.get("/problems/head_too_large").status == 200


def test_with_few_files_to_open_silent_connections_keep_nobody_out(run: Run, sandbox: Sandbox) -> None:
    service = run(COMMANDS["orders serve"], files=256)
    product = sandbox.product(50)
    with contextlib.ExitStack() as stack:
        for n in range(600):
            client = stack.enter_context(connected(service))
            with contextlib.suppress(ConnectionError):
                client.sendall(b"POST /orders/1 HTTP/1.1\r\nContent-" if n % 2 else b"")
            if n % 100 == 99:
                assert service.place(n, (product, 1)).status == 201
    files = len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))
    assert files < 256


def test_a_stop_answers_the_order_under_way_though_others_send_slowly(run: Run, sandbox: Sandbox) -> None:
    service = run(COMMANDS["orders serve"])
    sandbox.catalog_faults(slow_s=0.5)
    product = sandbox.product(5)
    slow = connected(service)
    slow.sendall(b"GET / HT")
    body = json.dumps({"items": [{"product_id": product, "quantity": 1}]}).encode()
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
    head = f"POST /orders/7 HTTP/1.1\r\nHost: localhost\r\n{kind}"
    buyer = connected(service)
    buyer.sendall(head.encode() + b"\r\n\r\n" + body)
    wait_until(lambda: service.get("/orders/7?status=Pending").status == 200, "the order is being placed")
    service.process.send_signal(signal.SIGTERM)
    assert everything(slow) == b""
    assert everything(buyer).startswith(b"HTTP/1.1 201 ")
    assert service.process.wait(20) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("command", [COMMANDS["orders serve"], COMMANDS["uvicorn"]], ids=["orders serve", "uvicorn"])
def test_a_port_that_is_taken_is_said_in_a_sentence(
    command: Callable[[str], list[str]], sandbox: Sandbox, dsn: str
) -> None:
    given = {name.upper(): value for name, value in usual(dsn, sandbox).items()}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = command(str(taken.getsockname()[1]))
        ended = subprocess.run(
            words, env={**os.environ, **given}, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert "Nothing can listen on 127.0.0.1:" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_bound_can_be_set_and_one_that_can_not_be_is_refused(run: Run, sandbox: Sandbox, dsn: str) -> None:
    service = run(COMMANDS["uvicorn"], orders_connections=16)
    silent = [connected(service) for _ in range(40)]
    assert service.get("/health").status == 200
    assert everything(silent[0]) == b""
    for client in silent:
        client.close()
    given = {name.upper(): value for name, value in usual(dsn, sandbox).items()}
    ended = subprocess.run(
        with_files(1000, [*ORDERS, "serve"]),
        env={**os.environ, **given, "ORDERS_CONNECTIONS": "90000"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "ORDERS_CONNECTIONS: 90000 connections need more than the 1000 files" in ended.stderr


def test_the_command_line_tells_its_version() -> None:
    said = subprocess.run([*ORDERS, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert re.fullmatch(rf"orders {re.escape(version('orders'))}\n", said)
