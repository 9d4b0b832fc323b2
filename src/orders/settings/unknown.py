"""Names in the environment or in `.env` that look like settings and are none: mostly a typo, which would be silent.

They are told, not refused: platforms and other programs write names of their own into the environment that nobody
here can remove, and an older version has to start beside the settings of a newer one.
"""

import logging
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches

from pydantic_settings import DotEnvSettingsSource

from orders.settings import Settings

log = logging.getLogger(__name__)

_OURS = "ORDERS_"
_TESTS = "ORDERS_TEST_"
_LINKS = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
"""What Kubernetes writes into every container for a service that is called `orders`, or `orders-db`."""
_LINKED = re.compile(r"(tcp|udp|sctp)://")

_NEAR = 0.6
"""Least similarity (difflib's ratio) of a name that is proposed for one of ours: any beginning in common counts."""

_NEAREST = 0.88
"""Least similarity at which another name is taken for a typo of one of ours: CATALOGUE_URL has 0.92, DB_PASS 0.78."""


def unknown_settings(environment: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each name that is no setting. No sentence has a value in it."""
    found = {name.upper(): value for name, value in (environment or _everything()).items()}
    known = [name.upper() for name in Settings.model_fields]
    strange = sorted(found.keys() - set(known))
    sentences = [
        f"{name} is no setting of this version and does nothing{_hint(name, known)}"
        for name in strange
        if name.startswith(_OURS) and not name.startswith(_TESTS) and not _is_link(name, found[name])
    ]
    return sentences + [
        f"{name} is no setting and does nothing; {nearest[0]} is not set: is it meant?"
        for name in strange
        if not name.startswith(_OURS) and (nearest := get_close_matches(name, _missing(found, known), 1, _NEAREST))
    ]


def tell_unknown() -> None:
    """Write them to the log."""
    for sentence in unknown_settings():
        log.warning("%s", sentence)


def _everything() -> dict[str, str]:
    """The environment before `.env`, as for the settings themselves."""
    return {**{name: value or "" for name, value in _from_file().items()}, **os.environ}


def _from_file() -> Mapping[str, str | None]:
    try:
        return DotEnvSettingsSource(Settings).env_vars
    except (OSError, UnicodeDecodeError):  # `load_settings` says that it can't be read
        return {}


def _is_link(name: str, value: str) -> bool:
    return _LINKS.search(name) is not None or (name.endswith("_PORT") and _LINKED.match(value) is not None)


def _hint(name: str, known: list[str]) -> str:
    nearest = get_close_matches(name, [ours for ours in known if ours.startswith(_OURS)], 1, _NEAR)
    return f"; did you mean {nearest[0]}?" if nearest else "."


def _missing(found: Mapping[str, str], known: list[str]) -> list[str]:
    """Settings that may be meant by a similar name; not HOST and PORT, for every machine has names like those."""
    names_database = [name for name in known if name.startswith(("DATABASE_", "DB_"))]
    has_database = not found.keys().isdisjoint(names_database)
    wanted = ["CATALOG_URL", "CART_URL", *([] if has_database else names_database)]
    return [name for name in wanted if name not in found]
