"""The real processes of a run: replicas, catalog, carts and PostgreSQL. Each can be killed and started again."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orders.postgres.database import migrate
from tests.chaos.http import Http, NoAnswer, NotReached
from tests.servers import EMBEDDED, Cluster

log = logging.getLogger(__name__)

ORDERS = (sys.executable, "-m", "orders.cli")
GUARDED_AFTER_S = 8.0
"""Time after which no PUT without an ETag can land: longer than an order that began before ETags were switched on, and
its late PUT, may take.
"""


class Process:
    """One process: how it is started, and what happened to it. Its output goes to a file in `logs`."""

    def __init__(self, name: str, words: tuple[str, ...], port: int, logs: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.log = logs / f"{name}.log"
        self.killed_at: list[float] = []
        """Times at which it was killed, in seconds since 1970."""

        self.slept: list[tuple[float, float]] = []
        """Times from when to when it was frozen."""

        self._listened = False
        self._frozen_at: float | None = None
        self._port = port
        self._command = [*ORDERS, *words]
        self._environment = {**os.environ, **settings}
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process exists."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def is_well(self) -> bool:
        """Whether it serves: it listens, and was neither killed nor frozen since it began to."""
        return self.is_running and self._listened and self._frozen_at is None

    @property
    def has_died(self) -> bool:
        """Whether it ended by itself, without a kill."""
        return self._popen is not None and self._popen.poll() is not None

    def start(self) -> None:
        """Start it, unless it runs. It has a session of its own, so Ctrl-C in a terminal does not reach it."""
        if self.is_running:
            return
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """Kill it with SIGKILL (kill -9)."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            self._popen = None
            self._listened = False
            self._frozen_at = None
            self.killed_at.append(time.time())

    def freeze(self) -> None:
        """Freeze it with SIGSTOP: it does nothing, and does not know it."""
        if self._popen is not None and self.is_running:
            self._popen.send_signal(signal.SIGSTOP)
            self._frozen_at = time.time()

    def thaw(self) -> None:
        """Thaw it with SIGCONT."""
        if self._popen is not None and self._frozen_at is not None:
            self.slept.append((self._frozen_at, time.time()))
            self._frozen_at = None
            self._popen.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self._popen is None:
            return
        self.thaw()
        self._popen.terminate()
        try:
            self._popen.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def listens(self) -> bool:
        """Whether a connection can be made."""
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        self._listened = True
        return True


@dataclass
class Neighbour:
    """The catalog or the carts: a process with faults that can be switched on."""

    process: Process
    http: Http
    etags: bool = True
    """Whether it should have ETags. Kept through restarts."""

    one_at_a_time: bool = False
    """Whether it mixes up calls that overlap. Kept through restarts."""

    etags_since: float | None = None
    """The time since which every GET has given an ETag, or None."""

    @property
    def is_guarded(self) -> bool:
        """Whether each writer has read an ETag, so that a stock which changed meanwhile is noticed."""
        return self.etags_since is not None and time.monotonic() - self.etags_since > GUARDED_AFTER_S

    async def suffer(self, **faults: Any) -> None:
        """Switch these faults on, and all others off. A process that is down suffers already."""
        with contextlib.suppress(NotReached, NoAnswer):
            none = {"slow_s": 0, "error_rate": 0, "lost_rate": 0, "late_rate": 0, "rubbish_rate": 0}
            wanted = {**none, "etags": self.etags, "one_at_a_time": self.one_at_a_time, **faults}
            await self.http.send("PUT", f"{self.process.url}/faults", wanted)
            if self.etags and self.etags_since is None:
                self.etags_since = time.monotonic()

    async def heal(self) -> None:
        """Switch all faults off."""
        await self.suffer()


@dataclass
class World:
    """All processes of a run."""

    database: Cluster
    catalog: Neighbour
    carts: Neighbour
    replicas: list[Process]
    deaths: list[str] = field(default_factory=list)
    """Processes that ended by themselves, without a kill."""

    database_is_ours: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Lock of the database: held until it runs again, by the task that stops it or needs it."""

    @property
    def processes(self) -> Iterator[Process]:
        """All processes except PostgreSQL."""
        yield from (self.catalog.process, self.carts.process, *self.replicas)

    async def restart(self, process: Process, within_s: float = 180) -> None:
        """Start the process and wait until it listens. Raises TimeoutError."""
        neighbours = [neighbour for neighbour in (self.catalog, self.carts) if neighbour.process is process]
        async with asyncio.timeout(within_s):
            while not process.listens():
                if process.has_died:
                    self.deaths.append(process.name)
                    process.kill()
                for neighbour in neighbours:
                    neighbour.etags_since = None  # it begins without ETags, even if they were on before its death
                process.start()
                await asyncio.sleep(0.1)
        for neighbour in neighbours:
            await neighbour.heal()

    async def watch(self) -> None:
        """Restart processes that ended by themselves, until cancelled, as a service manager does."""
        while True:
            for process in self.processes:
                if process.has_died:
                    await self.restart(process)
            await asyncio.sleep(0.3)

    async def start_database(self, within_s: float = 60) -> None:
        """Start PostgreSQL, without fsync: processes die here, not machines. Raises TimeoutError.

        After a kill -9 it refuses to start until the kernel has ended all of its processes.
        """
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await asyncio.to_thread(self.database.start, fsync="off")
                except RuntimeError as error:
                    log.warning("PostgreSQL does not start yet: %s", str(error).splitlines()[-1])
                    await asyncio.sleep(0.5)
                else:
                    return

    async def mend(self) -> None:
        """Start what does not run, and switch all faults off."""
        for process in self.processes:
            process.thaw()
        await asyncio.gather(*map(self.restart, self.processes))
        for neighbour in (self.catalog, self.carts):
            await neighbour.heal()


@contextlib.asynccontextmanager
async def running_world(folder: Path, replicas: int, settings: Mapping[str, str]) -> AsyncIterator[World]:
    """Start everything, each process on a port of its own, with files in `folder`. At the end nothing stays running."""
    world = _build(folder, replicas, settings)
    try:
        await asyncio.to_thread(world.database.initialize)
        await world.start_database()
        migrate(world.database.dsn)
        await world.mend()
        yield world
    finally:
        for process in world.processes:
            process.kill()
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(world.database.folder / "log", folder / "database.log")
        world.database.remove()
        await world.catalog.http.close()


def _build(folder: Path, replicas: int, settings: Mapping[str, str]) -> World:
    database = Cluster(EMBEDDED)
    http = Http("the storm")
    catalog_port, carts_port, *ports = _free_ports(2 + replicas)
    data = ("--data", str(folder / "sandbox"))
    catalog_words = ("sandbox", "catalog", "--no-samples", "--catalog-port", str(catalog_port), *data)
    catalog = Process("catalog", catalog_words, catalog_port, folder, {})
    carts = Process("carts", ("sandbox", "carts", "--cart-port", str(carts_port), *data), carts_port, folder, {})
    environment = {**settings, "DATABASE_URL": database.dsn, "CATALOG_URL": catalog.url, "CART_URL": carts.url}
    return World(
        database,
        Neighbour(catalog, http),
        Neighbour(carts, http),
        [
            Process(f"replica-{n}", ("serve",), port, folder, {**environment, "PORT": str(port)})
            for n, port in enumerate(ports, 1)
        ],
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]
