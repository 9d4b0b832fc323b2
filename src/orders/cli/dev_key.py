"""The admin's key of `orders dev --access closed`: made at the first start, and kept beside the data."""

import os
from pathlib import Path

from orders.access.granting import Caller, Grant
from orders.access.keys import has_digest, id_of, is_key
from orders.access.keys_sql import create_key, find_usable
from orders.postgres.database import Connection, opened
from orders.principal import PRESETS

FILE = "dev-key"
"""Name of the file with the key, in ORDERS_DATA_DIR. Only its owner may read it."""


def dev_key(dsn: str, folder: Path) -> str:
    """The key that is kept in the folder. A new one if there is none that this database knows and that still holds."""
    file = folder / FILE
    kept = file.read_text("latin-1").strip() if file.exists() else ""
    with opened(dsn) as connection:
        if is_key(kept) and _is_usable(connection, kept):
            file.chmod(0o600)
            return kept
        made, _ = create_key(connection, Grant("dev", PRESETS["admin"]), Caller("cli"))
    folder.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)  # whatever it was, and whoever might read it
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        new.write(f"{made}\n")
    return made


def _is_usable(connection: Connection, text: str) -> bool:
    found = find_usable(connection, [id_of(text)])
    return any(has_digest(text, key.digest) for key in found)
