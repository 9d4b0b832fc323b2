"""Access to the embedded PostgreSQL: the account that runs it, and root. No other user is trusted, and there is no
password.

Databases of older versions trusted every local user who reached the socket. They are mended at the next start.
"""

import os
import pwd
import tempfile
from pathlib import Path

from orders.postgres.embedded_home import Home

_MAP = "orders"

_HBA = f"""\
# Written by orders. Only through the socket in this folder, and only the accounts that pg_ident.conf names:
# the system tells the server who is at the other end (peer).
local all         all peer map={_MAP}
local replication all peer map={_MAP}
"""


def lock_out(home: Home, *, is_new: bool) -> None:
    """Let only these two in. The pg_hba.conf of an older database is replaced only if it trusts someone."""
    home.folder.chmod(0o700)
    hba, ident = home.folder / "pg_hba.conf", home.folder / "pg_ident.conf"
    is_open = is_new or "trust" in _methods(hba.read_text(errors="replace"))
    if is_open:
        _replace(hba, _HBA)
    known = ident.read_text(errors="replace").splitlines()
    missing = [line for line in _who(home) if line not in known]
    if missing:
        _replace(ident, "\n".join([*known, *missing, ""]))
    if (is_open or missing) and home.is_running():
        home.run("pg_ctl", "reload")


def _methods(hba: str) -> set[str]:
    """Every word of the lines that count. All words are returned because the method's place depends on the connection
    type.
    """
    return {word for line in hba.splitlines() for word in line.partition("#")[0].lower().split()}


def _who(home: Home) -> list[str]:
    """The lines of pg_ident.conf: the server's own account and root may be any role."""
    owner = pwd.getpwuid(home.folder.stat().st_uid).pw_name
    accounts = dict.fromkeys((owner, pwd.getpwuid(0).pw_name))
    return [f'{_MAP} "{account}" all' for account in accounts]


def _replace(path: Path, text: str) -> None:
    """Write the file anew, with its folder's owner. Never follow a link: root must not write where it leads."""
    owner = path.parent.stat()
    handle, new = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    os.replace(new, path)
