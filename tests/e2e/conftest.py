"""The service as its users run it: a process, over HTTP, between real neighbours."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import psutil
import pytest

from tests.conftest import ORDERS, Http, Reply, Sandbox, free_port, wait_until


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

    def listens(self) -> bool:
        """Whether this very process listens. Until then a process of another test may have its port for a moment."""
        port = int(self.url.rsplit(":", 1)[1])
        try:
            found = psutil.Process(self.process.pid).net_connections("tcp")
        except psutil.NoSuchProcess:
            return False
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in found)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., Service]


def start_service(http: Http, log: IO[str] | None = None, **settings: Any) -> Service:
    """A replica with these settings, in the environment's names or ours. It may not listen yet."""
    port = free_port()
    given = {name.upper(): str(value) for name, value in settings.items()}
    process = subprocess.Popen([*ORDERS, "serve"], env={**os.environ, "PORT": str(port), **given}, stderr=log)
    return Service(http, f"http://127.0.0.1:{port}", process)


def listening(service: Service) -> Service:
    wait_until(service.listens, "the service listens", within_s=60)
    return service


def stop(services: Iterable[Service]) -> None:
    for service in services:
        service.process.send_signal(signal.SIGTERM)
    for service in services:
        try:
            service.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            service.kill()


@pytest.fixture
def start(http: Http, sandbox: Sandbox, dsn: str) -> Iterator[Start]:
    """Starts replicas: `start()`, with settings by name. They are stopped after the test."""
    running: list[Service] = []

    def start_one(wait: bool = True, **settings: Any) -> Service:
        running.append(start_service(http, **{**usual(dsn, sandbox), **settings}))
        return listening(running[-1]) if wait else running[-1]

    yield start_one
    stop(running)


def usual(dsn: str, sandbox: Sandbox) -> dict[str, str]:
    """The settings that every replica needs."""
    return {"database_url": dsn, "catalog_url": sandbox.catalog_url, "cart_url": sandbox.cart_url}


@pytest.fixture(scope="module")
def lasting_services(served_dsn: str) -> Iterator[list[Service]]:
    """Two replicas that serve one test after the other: to start one takes longer than most tests."""
    running: list[Service] = []
    yield running
    stop(running)


@pytest.fixture
def services(lasting_services: list[Service], http: Http, sandbox: Sandbox, dsn: str) -> list[Service]:
    """Two replicas with the usual settings. A neighbour's faults in one test don't give it a rest in the next."""
    if not lasting_services or any(service.process.poll() is not None for service in lasting_services):
        settings = {**usual(dsn, sandbox), "orders_breaker_failures": 1000}
        lasting_services[:] = [start_service(http, **settings) for _ in range(2)]
    return [listening(service) for service in lasting_services]


@pytest.fixture
def service(services: list[Service]) -> Service:
    """One of `services`. It is not to be killed."""
    return services[0]
