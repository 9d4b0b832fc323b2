"""Writes the files anew: `make snapshots`."""

from pathlib import Path

from orders.postgres import embedded
from tests.conftest import entered_by_all, migrated
from tests.snapshots import openapi, rules, schema


def main() -> None:
    """Say of each file whether it has changed."""
    write(openapi.PATH, openapi.snapshot(openapi.document()))
    with entered_by_all() as folder:
        dsn = migrated(embedded.start(folder), "orders_snapshots")
        try:
            write(schema.PATH, schema.snapshot(dsn))
            write(rules.PATH, rules.snapshot(dsn, rules.PATH.read_text() if rules.PATH.exists() else ""))
        finally:
            embedded.stop(folder)


def write(path: Path, text: str) -> None:
    is_new = not path.exists() or path.read_text() != text
    path.write_text(text)
    print(f"docs/{path.name} {'has changed' if is_new else 'is as it was'}")


if __name__ == "__main__":
    main()
