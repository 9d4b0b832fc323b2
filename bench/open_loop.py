"""An open loop: orders are sent at their time, whether or not earlier ones are answered.

`python -m bench.open_loop URL RATE SECONDS PRODUCTS CUSTOMER` prints JSON. Latency counts from the moment at which the
order was due. So the wait shows even if this client sends late (coordinated omission); `lateness_p99_ms` says how late
it was. An idle connection is used again. If none is idle, another one is opened.
"""

import asyncio
import contextlib
import json
import random
import sys
from collections import defaultdict
from typing import Any

import httptools
import uvloop

PATIENCE_S = 15.0
"""Timeout for answers after the last order was sent: longer than the service's deadline."""

HEADERS = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: %d"
REQUEST = f"POST /orders/%d HTTP/1.1\r\n{HEADERS}\r\n\r\n%s"
ITEMS = '{"items":[{"product_id":%d,"quantity":1},{"product_id":%d,"quantity":1}]}'


class Caller(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, run: "Run") -> None:
        self._run = run
        self._parser = httptools.HttpResponseParser(self)
        self._due_at: float | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, request: bytes, due_at: float) -> None:
        """Send the request, and remember since when its answer is awaited."""
        self._due_at = due_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Note the answer. The connection is idle again."""
        if self._due_at is not None:
            self._run.answered(self._parser.get_status_code(), self._due_at)
        self._due_at = None
        if self._parser.should_keep_alive():
            self._run.idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self in self._run.idle:
            self._run.idle.remove(self)


class Run:
    """One run at one rate."""

    def __init__(self, host: str, port: int, products: int, customer: int) -> None:
        self.idle: list[Caller] = []
        self._loop = asyncio.get_running_loop()
        self._address = (host, port)
        self._products = products
        self._customer = customer
        self._took_ms: dict[int, list[float]] = defaultdict(list)
        self._late_ms: list[float] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = 0
        self._awaited = -1  # below zero while orders are still being sent
        self._all_answered = asyncio.Event()

    async def offer(self, rate: float, seconds: float) -> dict[str, Any]:
        """Send `rate` orders per second for `seconds`, wait for the answers, and return the results."""
        began_at = self._loop.time()
        total = round(rate * seconds)
        for n in range(total):
            due_at = began_at + n / rate
            if (early_s := due_at - self._loop.time()) > 0:
                await asyncio.sleep(early_s)
            self._late_ms.append((self._loop.time() - due_at) * 1000)
            self._send(due_at)
        self._awaited = total - self._answers
        if self._awaited:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), PATIENCE_S)
        return self._found(total)

    def answered(self, status: int, due_at: float) -> None:
        """Note that an answer has come."""
        self._answers += 1
        self._awaited -= 1
        if self._awaited == 0:
            self._all_answered.set()
        self._took_ms[status].append((self._loop.time() - due_at) * 1000)

    def _send(self, due_at: float) -> None:
        self._customer += 1
        body = ITEMS % tuple(random.sample(range(1, self._products + 1), 2))
        request = (REQUEST % (self._customer, len(body), body)).encode()
        if self.idle:
            self.idle.pop().send(request, due_at)
        else:
            task = self._loop.create_task(self._connect_and_send(request, due_at))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect_and_send(self, request: bytes, due_at: float) -> None:
        _, caller = await self._loop.create_connection(lambda: Caller(self), *self._address)
        caller.send(request, due_at)

    def _found(self, total: int) -> dict[str, Any]:
        return {
            "sent": total,
            "unanswered": total - self._answers,
            "lateness_p99_ms": _percentile(self._late_ms, 99),
            "answers": {
                str(status): {"count": len(took), **{f"p{p}_ms": _percentile(took, p) for p in (50, 95, 99)}}
                for status, took in sorted(self._took_ms.items())
            },
        }


def _percentile(values: list[float], percent: int) -> float:
    return round(sorted(values)[len(values) * percent // 100], 2)


async def main(url: str, rate: float, seconds: float, products: int, customer: int) -> None:
    """One run."""
    host, port = url.removeprefix("http://").split(":")
    print(json.dumps(await Run(host, int(port), products, customer).offer(rate, seconds)))


if __name__ == "__main__":
    target, rate, seconds, products, customer = sys.argv[1:]
    uvloop.run(main(target, float(rate), float(seconds), int(products), int(customer)))
