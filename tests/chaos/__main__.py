"""`make chaos`: real processes, a load, a storm, and a verdict. Exit code 0: every promise held. 1: one is broken."""

import asyncio
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.chaos import report
from tests.chaos.report import Report
from tests.chaos.run import Wish, run

console = Console(width=None if sys.stdout.isatty() else 120)


def chaos(
    minutes: Annotated[
        float, typer.Option(min=0.1, help="How long the storm lasts; quiet and verdict come after.")
    ] = 1.5,
    seed: Annotated[
        int | None, typer.Option(help="What the storm and the load are drawn from; else by chance.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Customers that arrive per second.")] = 50,
    replicas: Annotated[int, typer.Option(min=2, max=16, help="Replicas of the service.")] = 4,
    pause_s: Annotated[float, typer.Option(min=0.1, help="The mean pause between two faults.")] = 2.5,
    slack_s: Annotated[float, typer.Option(min=0, help="What the machine's business may add to I5's time.")] = 3.0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep logs and evidence also where nothing is broken.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the verdict there as well.")] = None,
) -> None:
    """Orders under a storm of faults, and whether every promise held: exit code 0 if so, 1 if not."""
    wish = Wish(minutes, random.randrange(10**6) if seed is None else seed, rate, replicas, pause_s, slack_s)
    console.print(f"Seed {wish.seed}: `make chaos MINUTES={minutes:g} SEED={wish.seed}` draws the same storm.")
    logging.getLogger("orders").setLevel(logging.ERROR)  # that the database is away is no news here
    folder = Path(tempfile.mkdtemp(prefix="orders-chaos-"))
    try:
        verdict = _run(wish, folder)
    except asyncio.CancelledError:
        console.print(f"Interrupted; nothing is left running. The logs are in {folder}.")
        sys.exit(130)
    except Exception:
        console.print(f"The storm itself went wrong; that is no verdict. The logs are in {folder}.")
        console.print(traceback.format_exc(), highlight=False, markup=False)
        sys.exit(2)
    report.show(verdict, console)
    if json:
        report.save(verdict, json)
    if verdict.is_broken or keep:
        console.print(f"The processes' logs, and what was seen, are in {folder}.")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if verdict.is_broken else 0)


def _run(wish: Wish, folder: Path) -> Report:
    async def main() -> Report:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        if console.is_terminal:
            with console.status("starting") as status:
                return await run(wish, folder, status.update)
        return await run(wish, folder, _every(20))

    return asyncio.run(main())


def _every(seconds: float) -> Callable[[str], None]:
    """A function that prints a line at most every so many seconds."""
    last = float("-inf")

    def say(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            console.print(line, highlight=False)

    return say


if __name__ == "__main__":
    typer.run(chaos)
