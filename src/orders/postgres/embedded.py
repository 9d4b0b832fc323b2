"""The embedded PostgreSQL: a real server from a Python package, for when no database is configured.

It listens on a socket in a folder that only its own account can enter, and lets in that account and root.
`embedded_home` decides which folder, account and programs these are.
"""

import atexit
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from orders.postgres.connecting import dsn_from_parts
from orders.postgres.embedded_home import Home, ProgramFailed, find_home, refuse_anothers, settle
from orders.postgres.embedded_locks import lock_out
from orders.postgres.unavailable import DatabaseUnavailable

_START_S = 60
"""Timeout for the server to start or to stop: after a crash it first reads what it had written."""

_users: dict[Path, int] = {}
"""For each data folder, the file that this process has locked as a user of the server there."""


def start(data_dir: Path) -> str:
    """Start PostgreSQL with its data under `data_dir`, or join the server that runs there. Returns its DSN.

    The server stops with the last process that uses it. Raises SettingsError if it can't live there, or
    DatabaseUnavailable.
    """
    data_dir = data_dir.absolute()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        refuse_anothers(data_dir)
        with _alone(data_dir):
            home = find_home(data_dir)
            _run(home, data_dir)
    except (OSError, ProgramFailed) as error:
        raise DatabaseUnavailable(f"the embedded PostgreSQL in {data_dir} does not start: {error}") from error
    return dsn_from_parts("postgres", "postgres", None, str(home.folder), 5432)


def stop(data_dir: Path) -> None:
    """Stop using the server. The last process to do so stops it. Safe to repeat."""
    data_dir = data_dir.absolute()
    if data_dir not in _users:
        return
    with contextlib.suppress(OSError, ProgramFailed), _alone(data_dir):
        users = _users.pop(data_dir)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while another process uses the server
            find_home(data_dir).run("pg_ctl", "stop", "--mode=fast", f"--timeout={_START_S}")
        finally:
            os.close(users)


def _run(home: Home, data_dir: Path) -> None:
    is_new = not home.is_settled
    if is_new:
        settle(home)
    lock_out(home, is_new=is_new)
    _forget_a_dead_server(home.folder)
    if not home.is_running():
        home.run(
            "pg_ctl", "start", f"--timeout={_START_S}", f"--log={home.folder / 'log'}", f"--options={home.options}"
        )
    if data_dir not in _users:
        _users[data_dir] = _locked(data_dir / ".postgres-users", fcntl.LOCK_SH)
        atexit.register(stop, data_dir)


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Keep other processes from starting or stopping this server meanwhile. The lock ends with its process, however
    that dies.
    """
    lock = _locked(data_dir / ".postgres-lock", fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


def _locked(path: Path, how: int) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, how)
    return file


def _forget_a_dead_server(folder: Path) -> None:
    """Remove a dead server's PID file. After a container restarts, that process ID often belongs to another process and
    looks alive.
    """
    pid_file = folder / "postmaster.pid"
    with contextlib.suppress(OSError, ValueError, IndexError):
        process = Path("/proc") / str(int(pid_file.read_text().splitlines()[0]))
        if Path("/proc/self").exists() and (process / "comm").read_text().strip() != "postgres":
            pid_file.unlink()
