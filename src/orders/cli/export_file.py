"""`orders export`: writes an export into a file, with a progress bar. The file appears once it is complete."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from orders.errors import OrderError
from orders.finding.export import COLUMNS, chunks, csv_chunk, ndjson_chunk, rows_chunk
from orders.finding.filters import Filters
from orders.finding.lists_sql import count_orders, statuses_there_are
from orders.postgres.database import Database, opened
from orders.principal import SEES_EVERYTHING

ROW_GROUP = 50_000
"""Number of lines of a Parquet file that are gathered before they are written: some ten megabytes."""


class Format(StrEnum):
    """The formats of an export."""

    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"


class ExportFailed(Exception):
    """No file was written. The message says why, and what to do."""


def format_of(output: Path) -> Format:
    """The format by the ending of the file's name. CSV without an ending. Raises ExportFailed for any other ending."""
    ending = output.suffix.removeprefix(".").lower() or Format.CSV
    if ending not in list(Format):
        raise ExportFailed(f"{output} ends with none of {', '.join(Format)}; say with --format which of them it is.")
    return Format(ending)


class _Writer(Protocol):
    def write(self, lines: Any) -> object:
        """Write the next lines."""


def read_statuses(dsn: str) -> list[str]:
    """The statuses that orders have. Raises DatabaseUnavailable."""
    with opened(dsn) as connection:
        return statuses_there_are(connection)


async def export_file(dsn: str, filters: Filters, kind: Format, output: Path) -> int:
    """Write the orders of this list to `output` (`-`: standard output). Returns how many there are.

    The file appears under its name once it is complete. Raises ExportFailed, DatabaseUnavailable or OrderError.
    """
    read: Any = {Format.CSV: csv_chunk, Format.NDJSON: ndjson_chunk, Format.PARQUET: rows_chunk}[kind]
    database, done = Database(dsn, threads=1), 0
    try:
        with _opened(output, kind) as writer, _bar() as bar:
            task = bar.add_task("orders", total=await _count(database, filters))
            async for lines, count in chunks(database, read, SEES_EVERYTHING, filters, asyncio.Semaphore(1)):
                writer.write(lines)
                done += count
                bar.update(task, completed=done)
            bar.update(task, total=done)
    finally:
        database.close()
    return done


async def _count(database: Database, filters: Filters) -> int | None:
    try:
        return await database.run(lambda c: count_orders(c, SEES_EVERYTHING, filters))
    except OrderError:
        return None  # too many to count in time: the bar then shows no end


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


@contextlib.contextmanager
def _opened(output: Path, kind: Format) -> Iterator[_Writer]:
    if str(output) == "-":
        with _writing(sys.stdout.buffer, kind) as writer:
            yield writer
        return
    unfinished = output.with_name(f"{output.name}.part")
    try:
        with unfinished.open("wb") as file, _writing(file, kind) as writer:
            yield writer
        unfinished.replace(output)
    except OSError as error:
        raise ExportFailed(f"{output} can't be written: {error.strerror or error}.") from None
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(file: IO[bytes], kind: Format) -> Iterator[_Writer]:
    if kind is not Format.PARQUET:
        yield file
        return
    parquet = _Parquet(file)
    yield parquet
    parquet.close()


class _Parquet:
    """Writes rows of COLUMNS into a Parquet file, a row group at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import pyarrow  # noqa: PLC0415 (large, and an optional dependency)
            import pyarrow.parquet  # noqa: PLC0415
        except ImportError:
            raise ExportFailed(
                "Parquet needs pyarrow, which is not installed: pip install -r requirements-parquet.txt"
            ) from None
        whole, time = pyarrow.int64(), pyarrow.timestamp("us", tz="UTC")
        types = {"created_at": time, "updated_at": time}
        types |= dict.fromkeys(("version", "quantity", "cancelled", "returned"), pyarrow.int32())
        types |= dict.fromkeys(
            ("number", "customer_id", "total", "item_id", "product_id", "unit_price", "item_total"), whole
        )
        self._schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in COLUMNS])
        self._table = pyarrow.Table.from_arrays
        self._array = pyarrow.array
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Any] = []

    def write(self, lines: list[Any]) -> None:
        """Write the next rows."""
        self._rows += lines
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows, and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [self._array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(self._table(arrays, schema=self._schema))
            self._rows = []
