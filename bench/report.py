"""The table of ratios, and the JSON file that it is made from."""

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench.comparison import Result
from bench.world import sql

BEGIN, END = "<!-- made by `make bench` from bench.json -->", "<!-- until here -->"

_POSTGRES = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size",
    "max_connections", "io_method", "jit",
)  # fmt: skip
_PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "psycopg2-binary", "pyreqwest")


def document(
    server: str, results: Sequence[Result], curve: list[dict[str, Any]], took_s: float, load_before: float
) -> dict[str, Any]:
    """The content of the JSON file. `load_before`: the machine's load average before anything was started."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(took_s),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed_since": bool(_git("status", "--porcelain", "--", "src", "bench", "requirements.txt")),
        "machine": {
            "processor": _processor(),
            "cores": len(_lines("/proc/cpuinfo", "processor")),
            "memory_gb": round(int(_lines("/proc/meminfo", "MemTotal")[0].split()[0]) / 2**20),
            "system": platform.platform(),
            "load_before": round(load_before, 2),
            "python": platform.python_version(),
        },
        "postgres": {name: sql(server, f"SHOW {name}")[0][0] for name in _POSTGRES},
        "packages": {name: version(name) for name in _PACKAGES},
        "comparisons": [result.document() for result in results],
        "offered_load": curve,
    }


def table(found: dict[str, Any], before: dict[str, Any] | None = None) -> str:
    """The comparisons as a Markdown table. With `before` (an earlier document) it has the earlier ratios, too."""
    rows = [["#", "Work", "Measured against", "Goal", "Ratio (lowest - highest)", "Absolute", "Reached"]]
    known = {_key(c): _ratio(c) for c in before["comparisons"]} if before else {}
    if before:
        rows[0].append("In docs/")
    for c in found["comparisons"]:
        row = [str(c["number"]), c["work"], c["against"], c["goal"], _ratio(c), _absolute(c), _verdict(c)]
        rows.append([*row, known.get(_key(c), "")] if before else row)
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def section(found: dict[str, Any]) -> str:
    """The text between BEGIN and END in docs/speed.md."""
    machine, postgres = found["machine"], found["postgres"]
    changed = " with changes that were not committed" if found["changed_since"] else ""
    settings = ", ".join(f"`{name} = {value}`" for name, value in postgres.items())
    return (
        f"{table(found)}\n"
        f"Commit `{found['commit']}`{changed}, {found['measured_at'][:10]}, in {found['took_s']} seconds, on "
        f"{machine['cores']} cores of {machine['processor']} with {machine['memory_gb']} GB, {machine['system']}, "
        f"Python {machine['python']}. PostgreSQL: {settings}.\n"
    )


def write_section(page: Path, found: dict[str, Any]) -> None:
    """Put the table into the page."""
    head, rest = page.read_text().split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{section(found)}\n{END}{rest.split(END)[1]}")


def read(file: Path) -> dict[str, Any] | None:
    """The document in this file, or None."""
    return dict(json.loads(file.read_text())) if file.exists() else None


def _key(c: dict[str, Any]) -> tuple[int, str]:
    return c["number"], c["label"]


def _ratio(c: dict[str, Any]) -> str:
    ratios = c["ratios"]
    return f"{_short(median(ratios))} ({_short(min(ratios))} - {_short(max(ratios))})" if ratios else "-"


def _absolute(c: dict[str, Any]) -> str:
    ours = f"{_short(median(c['ours']))} {c['unit']}"
    said = f"{ours} to {_short(median(c['other']))}" if c["other"] else ours
    return f"{said}; {c['note']}" if c["note"] else said


def _verdict(c: dict[str, Any]) -> str:
    if c["goal"] == "reported":
        return ""
    return "yes" if c["is_reached"] else "**no**"


def _short(value: float) -> str:
    """The value with three significant figures."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()


def _lines(file: str, name: str) -> list[str]:
    lines = Path(file).read_text().splitlines()
    return [line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name]


def _processor() -> str:
    return (_lines("/proc/cpuinfo", "model name") or [platform.machine()])[0]
