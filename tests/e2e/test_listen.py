"""`orders listen`: what a developer's program gets is what a webhook would get, whatever is restarted meanwhile."""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jsonschema
import pytest

from orders.order.statuses import load_workflow
from orders.postgres.database import opened
from orders.principal import Scope
from orders.webhooks.body_sql import bodies
from orders.webhooks.model import Message, Payload
from tests.conftest import ORDERS, Sandbox, execute, free_port, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_feed import head
from tests.e2e.test_keys import bearer, key_in
from tests.e2e.test_life import placed
from tests.e2e.test_stream import start_at
from tests.receiver import Got, require_signed


@contextmanager
def program(port: int, got: list[Got], status: int = 200) -> Iterator[None]:
    """A developer's program."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            got.append(Got(headers, self.rfile.read(int(headers["content-length"]))))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


def _keep(process: "subprocess.Popen[str]", lines: list[str]) -> None:
    """Keep what the process prints, and show it where the test fails."""
    for line in process.stdout or ():
        lines.append(line)
        print("orders listen:", line, end="")


Listen = Callable[..., tuple["subprocess.Popen[str]", list[str]]]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Starts the command. Returns the process, and the lines that it prints."""
    running: list[subprocess.Popen[str]] = []

    def begin(port: int, service: Service, *more: str) -> tuple["subprocess.Popen[str]", list[str]]:
        words = [*ORDERS, "listen", "--to", f"http://127.0.0.1:{port}/hook", "--server", service.url, *more]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        running.append(process)
        lines: list[str] = []
        threading.Thread(target=_keep, args=(process, lines), daemon=True).start()
        return process, lines

    yield begin
    for process in running:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def as_webhook(dsn: str, got: Got) -> bytes:
    """The body that a webhook would get of the same event."""
    ((at, position),) = execute(
        dsn,
        "SELECT e.at, v.position FROM order_events e JOIN events v USING (order_id, number)"
        " WHERE e.order_id = %s AND e.number = %s",
        got.event,
    )
    order_id, number = got.event
    message = Message(1, order_id, got.message["type"], 1, at, position, order_id, number)  # type: ignore[arg-type]
    with opened(dsn) as connection:
        return bodies(connection, load_workflow(), Payload.FULL, [message])[1]


def test_a_program_gets_what_a_webhook_would_get(start: Start, sandbox: Sandbox, dsn: str, listen: Listen) -> None:
    service = start(orders_access="closed")
    shop = bearer(key_in(dsn, Scope.ORDERS_PLACE, Scope.ORDERS_CHANGE, Scope.CUSTOMERS_READ))
    key = key_in(dsn, Scope.EVENTS_READ, Scope.ORDERS_READ, Scope.CUSTOMERS_READ)
    port, got = free_port(), list[Got]()
    body = {
        "items": [{"product_id": sandbox.product(5), "quantity": 2}],
        "channel": "web",
        "notes": {"private": "PRIVATE", "public": "Hello."},
    }
    order = service.http.post(f"{service.url}/orders/9", body, headers=shop).body
    service.http.put(f"{service.url}/orders/{order['id']}", {"status": "Paid"}, headers=shop)
    cancelling = {"reason": "customer", "items": [{"id": 1, "quantity": 1}]}
    service.http.post(f"{service.url}/orders/{order['id']}/cancel", cancelling, headers=shop)
    with program(port, got):
        process, lines = listen(port, service, "--after", "0", "--key", key)
        wait_until(lambda: len(got) == 3, "it has begun, and delivered everything", within_s=150)
        wait_until(lambda: len(lines) == 4, "and printed")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    secret = re.fullmatch(r"signed with (whsec_\S+)\n", lines[0])
    assert secret
    assert [one.event for one in got] == [(order["id"], n) for n in (1, 2, 3)]
    for one, line in zip(got, lines[1:], strict=True):
        require_signed(one, secret[1])
        assert one.message == json.loads(as_webhook(dsn, one))
        assert b"PRIVATE" not in one.body
        schema = service.get(f"/schemas/{one.message['type']}/1").body
        validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
        validator.validate(one.message)
        data = schema["$defs"]["MessageData"]["properties"]
        assert data.keys() == one.data.keys()
        assert schema["$defs"]["Order"]["properties"].keys() == one.data["order"].keys()
        assert re.fullmatch(rf"\d+ {one.message['type']} {one.id}: 200, \d+ ms\n", line)


def test_everything_is_delivered_in_order_while_the_service_and_the_program_are_restarted(
    start: Start, sandbox: Sandbox, listen: Listen
) -> None:
    port, served_at, got = free_port(), free_port(), list[Got]()
    service, other = start_at(start, served_at), start()
    begin = head(other)
    product = sandbox.product(20)
    first = placed(other, (product, 1))
    _, lines = listen(port, service, "--after", str(begin))
    wait_until(lambda: lines, "it has begun", within_s=150)
    with program(port, got):
        wait_until(lambda: len(got) == 1, "the program came late")
    service.kill()
    other.move(first["id"], "Paid")
    start_at(start, served_at)
    with program(port, got, status=500):
        wait_until(lambda: len(got) == 2, "the next came after the restart")
        placed(other, (product, 1))
        wait_until(lambda: len(got) == 3, "a failure holds up nothing")
        wait_until(lambda: "500" in lines[-1], "it is printed")
    assert [one.data["position"] for one in got] == [begin + 1, begin + 2, begin + 3]


def test_what_the_service_refuses_ends_it_with_a_sentence(service: Service, listen: Listen) -> None:
    end = head(service)
    for more, sentence in (
        (("--types", "order.sold"), "There is no type 'order.sold'"),
        (("--after", str(end + 5)), "The feed ends at position"),
        (("--key", "ord_wrong"), "The key or the token is wrong"),
        (("--secret", "whsec_abc"), "--secret: must"),
    ):
        process, lines = listen(free_port(), service, *more)
        assert process.wait(timeout=60) in (1, 2)
        wait_until(lambda lines=lines, sentence=sentence: any(sentence in line for line in lines), sentence)
