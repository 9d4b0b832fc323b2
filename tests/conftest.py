"""What tests stand on: a real PostgreSQL, and the sandbox's catalog and carts as real processes."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pyreqwest.client import SyncClient, SyncClientBuilder

from orders.neighbours.learnt_sql import digest
from orders.postgres import database, embedded
from orders.settings import Settings
from orders.startup import install_functions
from tests import servers

ORDERS = [sys.executable, "-m", "orders.cli"]
_ids = itertools.count(int(time.time() * 1000))


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class Http:
    """A client for tests: JSON in, JSON out."""

    def __init__(self) -> None:
        self._client: SyncClient = SyncClientBuilder().pool_idle_timeout(timedelta(seconds=2)).build()

    def send(self, method: str, url: str, json: Any = None, headers: dict[str, str] | None = None) -> Reply:
        request = self._client.request(method, url).headers(headers or {})
        if json is not None:
            request = request.body_json(json)
        response = request.build().send()
        kind = response.get_header("content-type") or ""
        is_json = "json" in kind and "ndjson" not in kind and method != "HEAD"
        body = response.json() if is_json else response.text()
        return Reply(response.status, body, {name.lower(): value for name, value in response.headers.items()})

    def get(self, url: str, **more: Any) -> Reply:
        return self.send("GET", url, **more)

    def post(self, url: str, json: Any = None, **more: Any) -> Reply:
        return self.send("POST", url, json, **more)

    def put(self, url: str, json: Any = None, **more: Any) -> Reply:
        return self.send("PUT", url, json, **more)

    def close(self) -> None:
        self._client.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(condition: Any, what: str, within_s: float = 60) -> Any:
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        if result := condition():
            return result
        time.sleep(0.03)
    pytest.fail(f"not within {within_s} s: {what}")


def answers(url: str) -> bool:
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Sandbox:
    """The two neighbours, running."""

    http: Http
    catalog_url: str
    cart_url: str

    def product(self, quantity: int, price: int = 10, **more: Any) -> int:
        fields = {"id": next(_ids), "name": "Whispers of the Night", "price": price, "quantity": quantity, **more}
        reply = self.http.post(f"{self.catalog_url}/products", fields)
        return int(reply.body["products"][0]["id"])

    def fields(self, product_id: int) -> dict[str, Any]:
        return dict(self.http.get(f"{self.catalog_url}/products/{product_id}").body["product_detail"])

    def stock(self, product_id: int) -> int:
        return int(self.fields(product_id)["quantity"])

    def restock(self, product_id: int, quantity: int) -> None:
        fields = {**self.fields(product_id), "quantity": quantity}
        assert self.http.put(f"{self.catalog_url}/products/{product_id}", fields).status == 200

    def puts(self, product_id: int) -> list[dict[str, Any]]:
        """Every PUT of this product that has arrived so far, and what became of it (the catalog's journal)."""
        puts: list[dict[str, Any]] = []
        while page := self.http.get(f"{self.catalog_url}/journal?after={puts[-1]['id'] if puts else 0}").body["puts"]:
            puts += page
        return [put for put in puts if put["product_id"] == product_id]

    def forget(self, product_id: int) -> None:
        assert self.http.send("DELETE", f"{self.catalog_url}/products/{product_id}").status == 204

    def fill_cart(self, customer_id: int, *items: tuple[int, int]) -> int:
        body = [{"product_id": product_id, "quantity": quantity} for product_id, quantity in items]
        return int(self.http.post(f"{self.cart_url}/carts/{customer_id}", body).body["cart"]["id"])

    def cart_status(self, cart_id: int) -> str:
        carts = self.http.get(f"{self.cart_url}/carts").body["carts"]
        return str(next(cart["status"] for cart in carts if cart["id"] == cart_id))

    def catalog_faults(self, **faults: Any) -> None:
        assert self.http.put(f"{self.catalog_url}/faults", faults).status == 200

    def cart_faults(self, **faults: Any) -> None:
        assert self.http.put(f"{self.cart_url}/faults", faults).status == 200

    def heal(self) -> None:
        rates = {"error_rate": 0, "lost_rate": 0, "late_rate": 0, "rubbish_rate": 0}
        none = {"slow_s": 0, **rates, "etags": False, "one_at_a_time": False}
        self.catalog_faults(**none)
        self.cart_faults(**none)


@pytest.fixture(scope="session")
def http() -> Iterator[Http]:
    client = Http()
    yield client
    client.close()


@pytest.fixture(scope="session")
def sandbox_processes(http: Http) -> Iterator[Sandbox]:
    catalog_port, cart_port = free_port(), free_port()
    ports = ["--catalog-port", str(catalog_port), "--cart-port", str(cart_port)]
    process = subprocess.Popen([*ORDERS, "sandbox", *ports], stdout=subprocess.DEVNULL)
    running = Sandbox(http, f"http://127.0.0.1:{catalog_port}", f"http://127.0.0.1:{cart_port}")
    wait_until(lambda: answers(running.catalog_url) and answers(running.cart_url), "the sandbox answers")
    yield running
    process.kill()
    process.wait()


@pytest.fixture
def sandbox(sandbox_processes: Sandbox) -> Iterator[Sandbox]:
    yield sandbox_processes
    sandbox_processes.heal()


ALSO_POOLED = ("tests.integration.", "tests.e2e.test_contract", "tests.e2e.test_survival")
"""Modules whose tests run twice: on the embedded PostgreSQL, and on Debian's through PgBouncer."""

MISSING = "PgBouncer and PostgreSQL are not installed: apt-get install pgbouncer postgresql"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    twice = metafunc.module.__name__.startswith(ALSO_POOLED) and "ORDERS_TEST_DSN" not in os.environ
    chosen = any("postgres" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if twice and "postgres" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("postgres", ["embedded_server", "pooled_server"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> str:
    """The DSN of a PostgreSQL server: the one in ORDERS_TEST_DSN, or one of this session's own."""
    if given := os.environ.get("ORDERS_TEST_DSN"):
        return given
    return str(request.getfixturevalue(getattr(request, "param", "embedded_server")))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of a short path that everyone may enter, the embedded PostgreSQL's account, too: pytest's are closed."""
    with entered_by_all() as folder:
        yield folder


@contextlib.contextmanager
def entered_by_all() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="orders-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[str]:
    with entered_by_all() as folder:
        yield from _served_from(folder)


def _served_from(folder: Path) -> Iterator[str]:
    dsn = embedded.start(folder)
    # Tests kill services, not machines: nothing here needs an fsync, and without it they take half the time.
    execute(dsn, "ALTER SYSTEM SET fsync = off")
    execute(dsn, "SELECT pg_reload_conf()")
    yield dsn
    embedded.stop(folder)


@pytest.fixture(scope="session")
def pooled_server() -> Iterator[str]:
    """Debian's PostgreSQL behind PgBouncer in transaction mode."""
    cluster = debian_cluster()
    try:
        cluster.start(fsync="off", max_prepared_transactions=10)
        with servers.pooled(cluster) as dsn:
            yield dsn
    finally:
        cluster.remove()


def debian_cluster() -> servers.Cluster:
    """A cluster of Debian's PostgreSQL; where it or PgBouncer is missing the test is skipped or, under CI, fails."""
    binaries = servers.debian_binaries()
    if binaries is None or servers.pgbouncer() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    cluster = servers.Cluster(binaries)
    cluster.initialize()
    return cluster


def execute(dsn: str, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        return ask(connection, statement, parameters)


def ask(connection: database.Connection, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """`execute` for who asks often: a new connection costs more than most statements."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall()) if cursor.description is not None else []


CHILDREN_FIRST = (
    "webhook_attempts", "webhook_deliveries", "webhook_secrets", "webhooks", "events", "relays",
    "order_events", "idempotency_keys", "cart_closings", "stock_returns", "stock_claims", "order_items",
    "order_metadata", "orders", "sales_days", "sales_of_products", "sales_changes",
    "standing_days", "standing_changes", "access_keys",
)  # fmt: skip
NO_FEED = """UPDATE events_head SET position = 0, seen = pg_current_snapshot(), cluster = NULL,
                                    walked_order = NULL, walked_number = NULL,
                                    forgotten = 0, forgotten_at = NULL, forgotten_xact = NULL"""
EMPTY = ("TRUNCATE stock_record", *(f"DELETE FROM {table}" for table in CHILDREN_FIRST), NO_FEED)
"""Each is a transaction of its own, so that none of them waits for a replica that waits for it. TRUNCATE takes far
longer than to delete a few rows; but rows of the record can't be deleted.
"""


def empty(connection: database.Connection) -> None:
    """Not a rollback: the code commits."""
    for statement in EMPTY:
        ask(connection, statement)


@pytest.fixture
def empty_dsn(postgres: str) -> Iterator[str]:
    """A database without any table."""
    name = f"test_{next(_ids)}"
    execute(postgres, f"CREATE DATABASE {name}")
    yield psycopg2.extensions.make_dsn(postgres, dbname=name)
    execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def migrated_dsn(postgres: str) -> str:
    return migrated(postgres, "orders_test")


@pytest.fixture(scope="session")
def served_dsn(postgres: str) -> str:
    """A database that `lasting_services` have to themselves: they would recover what other tests leave."""
    return migrated(postgres, "orders_served")


def migrated(postgres: str, name: str) -> str:
    """A database with our tables; a new one, unless the tests themselves are tested (`make mutants`)."""
    dsn = str(psycopg2.extensions.make_dsn(postgres, dbname=name))
    if "ORDERS_TEST_KEEP_DATABASE" in os.environ:
        return dsn
    execute(postgres, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    execute(postgres, f"CREATE DATABASE {name}")
    database.migrate(dsn)
    install_functions(dsn)
    return dsn


@pytest.fixture
def dsn(request: pytest.FixtureRequest, postgres: str, sandbox_processes: Sandbox) -> str:
    """A database with our tables, empty but for what there is to know of the sandbox: its calls may overlap."""
    is_served = "lasting_services" in request.fixturenames
    dsn = str(request.getfixturevalue("served_dsn" if is_served else "migrated_dsn"))
    with contextlib.closing(database.connect(dsn)) as connection:
        empty(connection)
        execute(dsn, "DELETE FROM neighbours RETURNING 1")
        prove(connection, catalog=sandbox_processes.catalog_url, cart=sandbox_processes.cart_url)
    return dsn


def prove(connection: database.Connection, **urls: str) -> None:
    """Let these neighbours be known for taking many calls at once, as after a while."""
    for name, url in urls.items():
        ask(
            connection,
            """INSERT INTO neighbours (name, address, concurrency, is_proven) VALUES (%s, %s, 64, true)
               ON CONFLICT (name, address) DO UPDATE SET concurrency = 64, is_proven = true, wrong_count = 0
               RETURNING 1""",
            (name, digest(url)),
        )


@pytest.fixture
def settings(dsn: str, sandbox: Sandbox) -> Settings:
    """Settings for machinery inside the test's own process; recovery runs when the test says so."""
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        database_url=dsn,
        catalog_url=sandbox.catalog_url,
        cart_url=sandbox.cart_url,
        orders_request_deadline_s=3,
        orders_lease_s=4,
        orders_write_horizon_s=0.6,
        orders_neighbour_timeout_s=0.5,
        orders_breaker_failures=1000,
    )
