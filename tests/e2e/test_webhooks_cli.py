"""`orders webhooks`: on the database itself, also while no service runs."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import standardwebhooks

from tests.conftest import ORDERS, execute, wait_until
from tests.e2e.conftest import Start
from tests.receiver import SECRET

Ran = subprocess.CompletedProcess[str]
Run = Callable[..., Ran]


def run_webhooks(*words: str, **settings: Any) -> Ran:
    given = {name.upper(): str(value) for name, value in settings.items()}
    words = (*ORDERS, "webhooks", *words)
    return subprocess.run(words, env={**os.environ, **given}, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture
def webhooks(dsn: str) -> Run:
    """`webhooks("list")` runs `orders webhooks list`. It needs no neighbours, and no service."""
    settings = {"database_url": dsn, "orders_secret": SECRET, "orders_webhook_allow": "127.0.0.1"}
    return lambda *words, **more: run_webhooks(*words, **{**settings, **more})


class Listener:
    """A receiver in a thread, which answers 200."""

    def __init__(self) -> None:
        got = self.got = list[tuple[dict[str, str], bytes]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    thread = threading.Thread(target=listener.server.serve_forever)
    thread.start()
    yield listener
    listener.server.shutdown()
    thread.join()
    listener.server.server_close()


def test_the_life_of_a_webhook(webhooks: Run, listener: Listener, start: Start, dsn: str) -> None:
    assert "There is no webhook" in webhooks("list").stderr
    made = webhooks(
        "add", listener.url, "--types", "order.placed,webhook.*", "--description", "ERP", "--payload", "thin"
    )
    assert made.returncode == 0, made.stderr
    secret = made.stdout.rstrip("\n")
    assert secret.startswith("whsec_")
    assert secret not in made.stderr
    (webhook_id,) = (row[0] for row in execute(dsn, "SELECT id FROM webhooks"))
    assert webhook_id in made.stderr
    assert webhooks("list").stdout == f"{webhook_id}  {listener.url}  order.placed,webhook.*  ok  nothing waits\n"
    tested = webhooks("test", webhook_id)
    assert tested.returncode == 0, tested.stderr
    assert "< 200 after" in tested.stdout
    ((headers, body),) = listener.got
    standardwebhooks.Webhook(secret).verify(body, headers)
    assert headers["webhook-signature"] in tested.stdout
    assert body.decode() in tested.stdout

    service = start(orders_secret=SECRET, orders_webhook_allow="127.0.0.1")
    service.http.post(f"{service.url}/orders/42", {"items": [{"product_id": 3, "quantity": 1}]})
    wait_until(lambda: len(listener.got) == 2, "the event has arrived")

    def delivered() -> list[str]:
        return webhooks("deliveries", webhook_id, "--state", "delivered").stdout.splitlines()

    listed = wait_until(delivered, "it is recorded")
    assert len(listed) == 1
    assert "order.placed" in listed[0]
    assert webhooks("replay", webhook_id, "--dry-run").stdout == "1 event would be delivered again.\n"
    assert webhooks("replay", webhook_id, "--types", "order.placed").stdout == "1 event is delivered again.\n"
    wait_until(lambda: len(listener.got) == 3, "it has arrived again")
    assert listener.got[1][1] == listener.got[2][1]

    assert "disabled (asked)" in webhooks("disable", webhook_id).stdout
    for refused in (webhooks("test", webhook_id), webhooks("replay", webhook_id)):
        assert (refused.returncode, "Enable it first" in refused.stderr) == (1, True)
    assert "  ok  " in webhooks("enable", webhook_id, "--from-now").stdout
    rotated = webhooks("rotate", webhook_id, "--keep-old-for-h", "0")
    assert webhooks("test", webhook_id).returncode == 0
    standardwebhooks.Webhook(rotated.stdout.strip()).verify(listener.got[-1][1], listener.got[-1][0])
    shown = webhooks("show", webhook_id).stdout
    assert "ERP" in shown
    assert "2 delivered, 0 given up" in shown
    for hidden in (secret, rotated.stdout.strip()):
        assert hidden not in shown + webhooks("list").stdout
    assert webhooks("delete", webhook_id).returncode == 0
    gone = webhooks("delete", webhook_id)
    assert (gone.returncode, gone.stderr) == (1, f"There is no webhook '{webhook_id}'.\n")
    actions = execute(dsn, "SELECT DISTINCT actor, address FROM audit WHERE subject = %s", (webhook_id,))
    assert len(actions) == 1
    assert actions[0][0].startswith("cli:")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("add", "http://10.0.0.1/"), 1, "not of the public internet"),
        (("add", "rubbish"), 2, "url: it must be like https://"),
        (("add", "https://1.1.1.1/", "--types", "order.placd"), 2, "There is no type 'order.placd'; there are order."),
        (("add", "https://1.1.1.1/", "--channel", "Web!"), 2, "--channel"),
        (("add", "https://1.1.1.1/", "--description", "x" * 501), 2, "--description"),
        (("add", "https://1.1.1.1/", "--from", "7"), 1, "The feed ends at position 0"),
        (("show", "7"), 2, "no webhook's ID"),
        (("show", str(uuid4())), 1, "There is no webhook"),
        (("deliveries", str(uuid4())), 1, "There is no webhook"),
        (("deliveries", str(uuid4()), "--order", "7"), 2, "not an order's ID"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_sentence(webhooks: Run, words: tuple[str, ...], code: int, why: str) -> None:
    ran = webhooks(*words)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert why in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_a_secret_of_the_service_it_says_which_setting_is_missing(webhooks: Run, place: Path) -> None:
    ran = webhooks("add", "https://1.1.1.1/", orders_secret="", orders_data_dir=place)
    assert ran.returncode in (1, 2)
    assert "ORDERS_SECRET" in ran.stderr


def test_beside_orders_dev_it_has_the_same_secret_and_may_reach_this_machine(
    webhooks: Run, listener: Listener, dsn: str, place: Path
) -> None:
    (place / "secret").write_text("the secret that orders dev has made\n")
    without = dict.fromkeys(("orders_webhook_allow",), "")
    settings = {"database_url": dsn, "orders_data_dir": place, **without}
    made = run_webhooks("add", listener.url, **settings)
    assert made.returncode == 0, made.stderr
    (webhook_id,) = (row[0] for row in execute(dsn, "SELECT id FROM webhooks"))
    assert run_webhooks("test", webhook_id, **settings).returncode == 0
    standardwebhooks.Webhook(made.stdout.strip()).verify(listener.got[0][1], listener.got[0][0])
