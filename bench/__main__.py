"""`make bench`: runs every comparison, with progress, a table, JSON and plots. ONLY=3 runs one, ONLY=load the offered
load.

A whole run writes docs/bench.json, the table in docs/speed.md and the plots beside it. QUICK=1 and ONLY write to
.data/bench/results, and show beside each ratio the one in docs/. QUICK leaves out what says little in seconds: the
growth of memory, and the offered load.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import access, placing, plots, reading, replica, report
from bench.comparison import FULL, QUICK, Pace, Result
from bench.load import require_wrk
from bench.world import DATA, BenchError, postgres

COMPARISONS: dict[str, Callable[[str, Pace], list[Result]]] = {
    "1": placing.against_the_naive_way,
    "2": placing.latency_of_one,
    "3": placing.flash_sale,
    "4": reading.one_order,
    "5": reading.one_page,
    "6": placing.inserts_alone,
    "7": reading.many_orders,
    "8": placing.two_replicas,
    "9": replica.memory,
    "10": replica.cold_start,
    "11": access.with_a_key,
}
NOT_QUICK = ("9", "load")
DOCS = Path("docs")
BUSY = 0.5


def main() -> None:
    """Run the comparisons that the environment asks for."""
    pace = QUICK if os.environ.get("QUICK", "") not in ("", "0") else FULL
    only = os.environ.get("ONLY", "")
    if only not in ("", "load", *COMPARISONS):
        raise BenchError(f"ONLY={only}: there is no such comparison; there are {', '.join(COMPARISONS)} and load.")
    require_wrk()
    whole = [name for name in (*COMPARISONS, "load") if pace is FULL or name not in NOT_QUICK]
    found = run(pace, [only] if only else whole)
    if pace is FULL and not only:
        write(found, DOCS)
        report.write_section(DOCS / "speed.md", found)
        print(f"\n{report.table(found)}\nWritten: docs/bench.json, docs/speed.md, the plots in docs/.")
    else:
        write(found, DATA / "results")
        print(f"\n{report.table(found, report.read(DOCS / 'bench.json'))}\nWritten: {DATA / 'results'}.")


def run(pace: Pace, names: list[str]) -> dict[str, Any]:
    """Run these comparisons, and return the document of their results."""
    began_at = time.perf_counter()
    load_before = os.getloadavg()[0]
    if load_before > BUSY:
        print(f"The load average is {load_before:.1f}: something else is running, and the numbers will say little.")
    server = postgres()
    results: list[Result] = []
    curve: list[dict[str, Any]] = []
    for name in names:
        print(f"[{time.perf_counter() - began_at:4.0f} s] {name}: {_title(name)}", flush=True)
        if name == "load":
            curve = placing.offered_load(server, pace)
        else:
            results += COMPARISONS[name](server, pace)
    return report.document(server, results, curve, time.perf_counter() - began_at, load_before)


def write(found: dict[str, Any], folder: Path) -> None:
    """Write bench.json and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    plots.draw(found, folder)


def _title(name: str) -> str:
    what = COMPARISONS.get(name, placing.offered_load)
    return (what.__doc__ or "").splitlines()[0].split(": ", 1)[-1]


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(str(error))
