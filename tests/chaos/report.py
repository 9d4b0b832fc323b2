"""The report of a run: its progress, the table of the verdict, and the same as JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.verdict import Row

_EXAMPLES = 5


@dataclass(frozen=True)
class Report:
    """A run and its verdict."""

    seed: int
    minutes: float
    took_s: int
    replicas: int
    rate: float
    machine: str
    shoppers: int
    placed: int
    answers: Mapping[str, int]
    cancelled: int
    restocks: int
    edits: int
    kills: int
    faults: Mapping[str, int]
    deaths: Sequence[str]
    drifts: int
    log_errors: Sequence[str]
    rows: Sequence[Row]

    @property
    def is_broken(self) -> bool:
        """Whether an invariant is broken."""
        return any(row.broken for row in self.rows)


def machine() -> str:
    """The machine that this ran on."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory_gib:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def show(report: Report, console: Console) -> None:
    """Print the tables."""
    figures = Table(
        title=f"A storm of {report.minutes:g} minutes ({report.took_s} s in all), seed {report.seed}", show_header=False
    )
    for name, figure in _figures(report):
        figures.add_row(name, figure)
    console.print(figures)
    table = Table("", "Invariant", "Looked at", "Broken", title="The verdict", show_lines=True)
    for row in report.rows:
        broken = f"[bold red]{len(row.broken)}[/]" if row.broken else "0"
        table.add_row(row.name, row.promise, row.checked, broken)
    console.print(table)
    for row in report.rows:
        for sentence in row.broken[:_EXAMPLES]:
            console.print(f"[bold red]{row.name}[/] {sentence}", highlight=False)
        if len(row.broken) > _EXAMPLES:
            console.print(f"[bold red]{row.name}[/] … and {len(row.broken) - _EXAMPLES} more", highlight=False)


def _figures(report: Report) -> list[tuple[str, str]]:
    return [
        ("machine", report.machine),
        ("replicas, arrivals", f"{report.replicas}, {report.rate:g} a second"),
        ("customers", f"{report.shoppers:,}, {report.placed:,} with an order, {report.cancelled:,} of them cancelled"),
        ("answers to POST", _counts(report.answers)),
        ("from outside", f"{report.restocks:,} restocks, {report.edits:,} edits under ETags"),
        ("kills", f"{report.kills:,}"),
        ("faults", _counts(report.faults)),
        ("died by themselves", ", ".join(report.deaths) or "none"),
        ("drifts noted", f"{report.drifts}"),
        ("stack traces in logs", "\n".join(report.log_errors) or "none"),
    ]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items(), key=lambda item: -item[1]))


def save(report: Report, path: Path) -> None:
    """Write everything as JSON."""
    path.write_text(json.dumps({**asdict(report), "is_broken": report.is_broken}, indent=2))
