"""The service as its users run it: a process, over HTTP, between real neighbours."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import ORDERS, Http, Reply, Sandbox, answers, free_port, wait_until


@dataclass
class Service:
    """One replica."""

    http: Http
    url: str
    process: "subprocess.Popen[bytes]"

    def place(self, customer: int, *lines: tuple[int, int], **more: Any) -> Reply:
        items = {"items": [{"product_id": product_id, "quantity": quantity} for product_id, quantity in lines]}
        return self.http.post(f"{self.url}/orders/{customer}", items if lines else None, **more)

    def get(self, path: str, **more: Any) -> Reply:
        return self.http.get(f"{self.url}{path}", **more)

    def move(self, order_id: str, status: str) -> Reply:
        return self.http.put(f"{self.url}/orders/{order_id}", {"status": status})

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., Service]


@pytest.fixture
def start(http: Http, sandbox: Sandbox, dsn: str) -> Iterator[Start]:
    """Starts replicas: `start()`, with settings by name."""
    running: list[Service] = []

    def start_one(wait: bool = True, **settings: Any) -> Service:
        port = free_port()
        environment = {
            **os.environ,
            "DATABASE_URL": dsn,
            "CATALOG_URL": sandbox.catalog_url,
            "CART_URL": sandbox.cart_url,
            "PORT": str(port),
            **{name.upper(): str(value) for name, value in settings.items()},
        }
        process = subprocess.Popen([*ORDERS, "serve"], env=environment)
        service = Service(http, f"http://127.0.0.1:{port}", process)
        running.append(service)
        if wait:
            wait_until(lambda: answers(service.url), "the service listens")
        return service

    yield start_one
    for service in running:
        service.process.send_signal(signal.SIGTERM)
    for service in running:
        try:
            service.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            service.kill()


@pytest.fixture
def service(start: Start) -> Service:
    return start()
