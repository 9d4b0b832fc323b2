"""The secret of `orders dev`: made once, and kept beside its database."""

import os
import secrets
from pathlib import Path


def kept_secret(folder: Path) -> str:
    """The secret in this folder. It is made if there is none, and only its owner can read it. Raises OSError."""
    path = folder / "secret"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
    except FileExistsError:
        pass
    return path.read_text().strip()
