"""A server that is not there is waited for; one that is there and won't have us ends the start with a sentence.

On the embedded PostgreSQL, on Debian's, and on Debian's through PgBouncer: each says it in its own way.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from orders.postgres.connecting import wait_until_up
from orders.postgres.unavailable import DatabaseUnavailable
from orders.settings import SettingsError
from tests import servers
from tests.conftest import debian_cluster, execute, free_port

ROLES = (
    "CREATE ROLE shop LOGIN PASSWORD 'right'",
    "CREATE ROLE stranger LOGIN",
    "CREATE DATABASE closed",
    "REVOKE CONNECT ON DATABASE closed FROM public",
)
POOLED = {"shop": "right", "ghost": "boo"}


def with_roles(cluster: servers.Cluster) -> servers.Cluster:
    cluster.ask_for_passwords()
    cluster.start(fsync="off")
    for statement in ROLES:
        execute(cluster.dsn, statement)
    return cluster


@pytest.fixture(scope="module", params=["embedded", "debian", "pooled"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a server that wants passwords: host and port, and whom `postgres` is."""
    with contextlib.ExitStack() as stack:
        cluster = debian_cluster() if request.param != "embedded" else servers.Cluster(servers.EMBEDDED)
        stack.callback(cluster.remove)
        if request.param == "embedded":
            cluster.initialize()
        with_roles(cluster)
        yield stack.enter_context(servers.pooled(cluster, POOLED)) if request.param == "pooled" else cluster.dsn


def at(server: str, **more: str) -> str:
    return str(psycopg2.extensions.make_dsn(server, **more))


def test_who_is_let_in_is_up(server: str) -> None:
    wait_until_up(at(server, user="shop", password="right"))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"user": "shop", "password": "wrong"}, "password authentication failed"),
        ({"user": "shop", "password": "right", "dbname": "nowhere"}, 'database "nowhere" does not exist'),
        ({"user": "shop", "password": "right", "dbname": "closed"}, "permission denied for database"),
        ({"user": "ghost", "password": "boo"}, "password authentication failed"),
    ],
)
def test_a_refusal_ends_the_start(server: str, wrong: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=f"(?s)The database refuses this service.*{sentence}.*DATABASE_URL") as said:
        wait_until_up(at(server, **wrong))
    assert not any(password in str(said.value) for password in ("wrong", "right", "boo"))


def test_a_server_that_wants_a_password_where_none_is_set_ends_the_start(server: str) -> None:
    with pytest.raises(SettingsError, match="no password supplied"):
        wait_until_up(at(server, user="shop", password=""))


def test_a_role_that_no_line_lets_in_and_a_missing_tls_end_the_start() -> None:
    cluster = servers.Cluster(servers.EMBEDDED, free_port())
    try:
        cluster.initialize()
        with_roles(cluster)
        with pytest.raises(SettingsError, match=r"no pg_hba\.conf entry"):
            wait_until_up(at(cluster.dsn, user="stranger"))
        with pytest.raises(SettingsError, match=r"does not support SSL.*sslmode"):
            wait_until_up(at(cluster.dsn, sslmode="require"))
    finally:
        cluster.remove()


def test_a_server_that_is_not_ready_yet_is_waited_for() -> None:
    """A standby that takes no queries says for ever what a server says while it starts: 57P03."""
    cluster = servers.Cluster(servers.EMBEDDED)
    try:
        cluster.initialize()
        cluster.start(fsync="off")
        cluster.stop()
        cluster.be_standby()
        cluster.launch(hot_standby="off")
        with pytest.raises(DatabaseUnavailable, match=r"starting up|not accepting connections"):
            wait_until_up(cluster.dsn, patience_s=2)
    finally:
        cluster.remove()


@contextlib.contextmanager
def server_that_says(severity: str, code: str, message: str, has_tls: bytes = b"N") -> Iterator[str]:
    """The DSN of a server that refuses everyone in its own language."""
    fields = f"S{severity}\0C{code}\0M{message}\0\0".encode()
    answer = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    while client.recv(1000)[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):  # asks for TLS, GSS
                        client.sendall(has_tls)
                    client.sendall(answer)

    threading.Thread(target=refuse_all, daemon=True).start()
    yield f"host=127.0.0.1 port={listener.getsockname()[1]} user=shop dbname=shop"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_refusal_is_understood_in_every_language() -> None:
    said = 'пользователь "shop" не прошёл проверку подлинности (по паролю)'
    with server_that_says("ВАЖНО", "28P01", said) as dsn, pytest.raises(SettingsError, match="не прошёл"):
        wait_until_up(dsn)
    with (
        server_that_says("ВАЖНО", "57P03", "система баз данных запускается") as dsn,
        pytest.raises(DatabaseUnavailable),
    ):
        wait_until_up(dsn, patience_s=0.5)


def test_a_missing_root_certificate_ends_the_start(tmp_path: Path) -> None:
    """What meets whoever sets the host of an Amazon RDS, and not yet its certificates."""
    with (
        server_that_says("FATAL", "28P01", "not reached", has_tls=b"S") as dsn,
        pytest.raises(SettingsError, match=r"root certificate file .* does not exist.*sslrootcert"),
    ):
        wait_until_up(at(dsn, sslmode="verify-full", sslrootcert=str(tmp_path / "none.crt")))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("08P01", "client_login_timeout (server down)"),
        ("08P01", "pgbouncer cannot connect to server"),
        ("53300", "sorry, too many clients already"),
        ("57P01", "terminating connection due to administrator command"),
    ],
)
def test_what_passes_is_waited_for(code: str, message: str) -> None:
    with server_that_says("FATAL", code, message) as dsn, pytest.raises(DatabaseUnavailable):
        wait_until_up(dsn, patience_s=0.3)
