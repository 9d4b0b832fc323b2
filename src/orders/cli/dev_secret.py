"""The secret of `orders dev`: made once, and kept beside its database."""

import os
import secrets
from pathlib import Path

from orders.settings import Settings

THIS_MACHINE = "127.0.0.0/8,::1,localhost"
"""Where `orders dev` may send webhooks: to programs of whoever tries it."""


def as_dev_has_it(settings: Settings) -> Settings:
    """The settings for a command beside `orders dev`: with its secret, if it has made one and ORDERS_SECRET is not set,
    and with what webhooks may be sent to then.
    """
    if settings.orders_secret is not None or not (settings.orders_data_dir / "secret").exists():
        return settings
    return settings.model_copy(
        update={
            "orders_secret": kept_secret(settings.orders_data_dir),
            "orders_webhook_allow": settings.orders_webhook_allow or THIS_MACHINE,
        }
    )


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
