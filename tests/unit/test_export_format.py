"""Which format an export is written in."""

from pathlib import Path

import pytest

from orders.cli.export_file import ExportFailed, Format, format_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orders.csv", Format.CSV),
        ("orders.ndjson", Format.NDJSON),
        ("Orders.PARQUET", Format.PARQUET),
        ("orders", Format.CSV),
        ("-", Format.CSV),
    ],
)
def test_the_ending_of_the_name_says_it(name: str, expected: Format) -> None:
    assert format_of(Path(name)) is expected


def test_another_ending_is_not_guessed_at() -> None:
    with pytest.raises(ExportFailed, match=r"orders\.xls ends with none of csv, ndjson, parquet"):
        format_of(Path("orders.xls"))
