"""Load generators: wrk (closed loop), pgbench, and the open loop. Each is a process of its own and reports what it
measured.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.world import DATA, BenchError, libpq_environment, tool

SCRIPTS = Path(__file__).parent / "wrk"
_customers = random.SystemRandom().randrange(10**9, 10**12)


@dataclass(frozen=True)
class Load:
    """The measured load: answers of 2xx per second, all other answers, and the median and 99th
    percentile of latency.
    """

    rate: float
    refused: int
    p50_ms: float
    p99_ms: float
    seconds: float = 0.0


@dataclass(frozen=True)
class Orders:
    """POSTs by wrk, each with `lines` different products, drawn evenly from `first` … `last`. `key`: an API key."""

    url: str
    clients: int
    first: int = 1
    last: int = 10_000
    lines: int = 2
    key: str = ""


def require_wrk() -> None:
    """Raise BenchError unless wrk is there."""
    if not shutil.which("wrk"):
        raise BenchError("wrk is missing: it makes the load. On Debian: apt-get install wrk.")


def place(seconds: float, *loads: Orders) -> Load:
    """Place orders for `seconds`, with one wrk for each of `loads` at once. Each order is for another customer."""
    running = []
    for load in loads:
        variables = {"FIRST": load.first, "LAST": load.last, "LINES": load.lines, "KEY": load.key}
        variables["CUSTOMER"] = _new_customers()
        running.append(_start_wrk(load.url, "place", load.clients, seconds, variables))
    results = [_result(process) for process in running]
    return Load(
        sum(r.rate for r in results),
        sum(r.refused for r in results),
        median(r.p50_ms for r in results),
        max(r.p99_ms for r in results),
        results[0].seconds,
    )


def get(seconds: float, url: str, paths: Path, clients: int, key: str = "") -> Load:
    """GET the paths in this file, one after the other, over and over. `key`: an API key."""
    return _result(_start_wrk(url, "get", clients, seconds, {"PATHS": str(paths), "KEY": key}))


def alternate(seconds: float, url: str, product_id: int, methods: str) -> Load:
    """Call the catalog as one client: GET, or PUT, or GET and PUT in turn (`methods`: "GET", "PUT", "GET PUT")."""
    return _result(_start_wrk(url, "product", 1, seconds, {"PRODUCT": product_id, "METHODS": methods}))


def pgbench(dsn: str, script: str, clients: int, seconds: float, mode: str = "prepared") -> Load:
    """Run this script as transactions. Returns transactions per second, and the median of their latency."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "script.sql").write_text(script)
        command = [tool("pgbench"), "--no-vacuum", "--protocol", mode, "--file=script.sql", "--log"]
        command += [f"--client={clients}", f"--time={max(1, round(seconds))}"]
        environment = {**os.environ, **libpq_environment(dsn)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"pgbench: {done.stderr.strip()}")
        log = "".join(path.read_text() for path in Path(folder).glob("pgbench_log.*"))
    took_ms = sorted(int(line.split()[2]) / 1000 for line in log.splitlines())
    rate = float(done.stdout.split("tps = ")[1].split()[0])
    return Load(rate, 0, median(took_ms), took_ms[len(took_ms) * 99 // 100])


def offer(url: str, rate: float, seconds: float, products: int) -> dict[str, Any]:
    """Send orders at this rate, whether or not they are answered (bench/open_loop.py)."""
    arguments = [url, str(rate), str(seconds), str(products), str(_new_customers())]
    command = [sys.executable, "-m", "bench.open_loop", *arguments]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def _new_customers() -> int:
    """The first of a million customer IDs that were never used."""
    global _customers  # noqa: PLW0603
    _customers += 1_000_000
    return _customers


def _start_wrk(
    url: str, script: str, clients: int, seconds: float, variables: dict[str, Any]
) -> "subprocess.Popen[str]":
    # wrk takes whole seconds. One of its threads makes ten times the requests that anything here can answer.
    command = ["wrk", "--threads=1", f"--connections={clients}", f"--duration={max(1, round(seconds))}s"]
    command += ["--timeout=60s", f"--script={SCRIPTS / script}.lua", url]
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _result(process: "subprocess.Popen[str]") -> Load:
    said, _ = process.communicate()
    if process.returncode or "RESULT" not in said:
        raise BenchError(f"wrk failed: {said.strip()[-500:]}")
    found: dict[str, float] = json.loads(said.split("RESULT ")[1].splitlines()[0])
    if broken := {name: found[name] for name in ("connect", "read", "write", "timeout") if found[name]}:
        raise BenchError(f"Requests without an answer: {broken}; {DATA / 'servers.log'} may say why.")
    if not found["answers"]:
        raise BenchError("Not one answer came before the load ended.")
    return Load(
        (found["answers"] - found["refused"]) / found["seconds"],
        int(found["refused"]),
        found["p50_us"] / 1000,
        found["p99_us"] / 1000,
        found["seconds"],
    )


def rates(loads: Sequence[Load]) -> list[float]:
    """The rates of these loads."""
    return [load.rate for load in loads]
