"""Somebody who uses the shop while it is attacked, and a clock that tells how slow the machine is at that moment."""

import contextlib
import http.client
import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

HEALTH_S, ORDER_S, CLOCK_S = 0.025, 0.05, 0.025
"""How often each is asked for, counted from when it was due: a second during which nothing is answered counts as forty
bad moments, not as one.
"""

NOMINAL_CLOCK_S = 0.01
"""What the clock's answer takes on an idle machine with two slow cores, at the 95th percentile; mostly 2 to 4 ms."""

NOMINAL_HEALTH_S, NOMINAL_ORDER_S = 0.025, 0.1
"""What /health and an order take there while nobody attacks, likewise."""

PATIENCE_S = 20.0
"""After so long without an answer there is none."""

_CLOCK = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
client, _ = listener.accept()
while client.recv(1):
    sum(range(30_000))  # about a millisecond of work, as a request is
    client.sendall(b".")
"""


class Clock:
    """A process that has to do only with us: if it answers late, the machine is slow, and not the shop."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-c", _CLOCK], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._client = socket.create_connection(("127.0.0.1", int(self._process.stdout.readline())), PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def tick(self) -> bool:
        self._client.sendall(b".")
        return self._client.recv(1) == b"."


class Bystander:
    """Asks for /health, places orders and looks at the clock, each in its own rhythm, until the block ends."""

    def __init__(self, host: str, port: int, product_id: int, clock: Clock) -> None:
        self._address = host, port
        self._order = json.dumps({"items": [{"product_id": product_id, "quantity": 1}]})
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._clock = clock
        self.health: list[float] = []
        self.orders: list[float] = []
        self.ticks: list[float] = []
        self.trouble: list[str] = []

    def __enter__(self) -> Self:
        rounds = [(self.health, HEALTH_S, self._ask_health), (self.orders, ORDER_S, self._place)]
        for took, every_s, ask in [*rounds, (self.ticks, CLOCK_S, self._clock.tick)]:
            self._threads.append(threading.Thread(target=self._keep_asking, args=(took, every_s, ask)))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def slower(self) -> float:
        """How many times slower than nominal the machine was by the clock, which attacks don't reach; at least 1."""
        return max(1.0, late(self.ticks) / NOMINAL_CLOCK_S)

    @property
    def slower_in_calm(self) -> float:
        """The same where nobody attacked: also by what was asked of the shop."""
        return max(self.slower, late(self.health) / NOMINAL_HEALTH_S, late(self.orders) / NOMINAL_ORDER_S)

    def _keep_asking(self, took: list[float], every_s: float, ask: Callable[[], bool]) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            is_answered = False
            with contextlib.suppress(OSError, http.client.HTTPException):
                is_answered = ask()
            took.append(time.monotonic() - due if is_answered else math.inf)
            due += every_s
            self._ended.wait(max(0.0, due - time.monotonic()))

    def _ask_health(self) -> bool:
        return self._answers("GET", "/health", None, 200)

    def _place(self) -> bool:
        return self._answers("POST", "/orders/7", self._order, 201)

    def _answers(self, method: str, path: str, body: str | None, wanted: int) -> bool:
        """On a new connection: those who come while the shop is attacked have to get in, too."""
        with self._connection() as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            said = response.read()
        if response.status != wanted:
            self.trouble.append(f"{method} {path}: {response.status} {said[:200].decode()}")
        return response.status == wanted

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(*self._address, timeout=PATIENCE_S)
        try:
            yield connection
        except (OSError, http.client.HTTPException) as error:
            self.trouble.append(repr(error))
            raise
        finally:
            connection.close()


def late(took: list[float]) -> float:
    """The 95th percentile. Not the maximum: one moment may fall into a pause of the garbage collector, the database's
    checkpoint or another process's turn, whichever machine it is. A stall is many moments (see HEALTH_S).
    """
    return sorted(took)[math.ceil(len(took) * 0.95) - 1] if took else math.inf
