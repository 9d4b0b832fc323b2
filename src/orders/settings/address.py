"""Addresses that may carry a password: checked, refused without being quoted, and shown without it.

Whatever is wrong with an address may be its password, so no message here repeats any part of one.
"""

import re
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

_HIDDEN = "***"
_OUTSIDE = re.compile(r"[\x00-\x20\x7f\ud800-\udfff\\]")  # no URL has these; escaped (%20) they may be in a password
_LOOSE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SCHEME = re.compile(r"([a-z][a-z0-9+.:-]*)://", re.IGNORECASE)
_POSTGRES = ("postgresql", "postgres")
_KNOWN_STRANGERS = ("ftp", "ws", "wss", "file", "postgres", "postgresql", "tcp")
"""Schemes that are named where one is wrong. Another could be the beginning of a password."""


def base_url(text: str) -> str:
    """The base URL of a neighbour without slashes at its end. Raises ValueError, which quotes nothing."""
    url = text.strip()
    if _OUTSIDE.search(url):
        raise ValueError("must be a URL without spaces, backslashes and control characters; in a password write %20")
    parts = _split(url)
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("must have no query (?) and no fragment (#); in a password write %3F and %23")
    if "@" in parts.path:
        raise ValueError("has an @ after a slash; in a user or a password write %2F for / and %40 for @")
    if _LOOSE_PERCENT.search(parts.netloc) or not _is_utf8(parts.netloc):
        raise ValueError("has a % that begins no escape of UTF-8; in a password write %25")
    return url.rstrip("/")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_numbered = parts.port != 0
    except ValueError:  # its message would quote the address
        raise ValueError("has a host or a port that can't be; in a user or a password write %2F for /") from None
    if parts.scheme not in ("http", "https"):
        seen = f", not with {parts.scheme}://" if parts.scheme in _KNOWN_STRANGERS else ""
        raise ValueError(f"must begin with http:// or https://{seen}, as in http://catalog.internal:8001")
    if not parts.hostname or not is_numbered:
        raise ValueError("must name a host, and a port from 1 to 65535 or none, as in http://catalog.internal:8001")
    return parts


def _is_utf8(text: str) -> bool:
    try:
        unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return False
    return True


def shown(url: str) -> str:
    """A base URL for people: its user and password are hidden, both, because a token may be either."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    _, at, host = authority.rpartition("@")
    return f"{scheme}://{_HIDDEN}@{host}{slash}{path}" if at else url


def database_address(text: str) -> str:
    """What libpq may be given: a URL, or pairs. Raises ValueError for what libpq would misread, and quotes nothing.

    libpq ends the user and password at the first @ or /, and would take the rest of a password for the host.
    """
    dsn = text.strip()
    if re.search(r"[\x00\ud800-\udfff]", dsn):
        raise ValueError("has a character that is no text")
    scheme = _SCHEME.match(dsn)
    if scheme is None:
        return dsn
    if scheme[1] not in _POSTGRES:
        raise ValueError("must begin with postgresql:// (no driver after it), or be key=value pairs")
    place = dsn[scheme.end() :].partition("?")[0]
    user, at, _ = place.partition("@")
    if place.count("@") > 1 or (at and "/" in user):
        raise ValueError("has an @ or a / in its user or password; write %40 and %2F")
    return dsn
