"""The URL of an endpoint: what is a good one, and how it is read. Pure."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from orders.webhooks.addresses import Address

MAX_URL_LENGTH = 2048
"""Maximum length of an endpoint's URL, in characters."""

MIN_FREE_PORT = 1024
"""Minimum port of a webhook, beside 443 (https) and 80 (http). Below it are mail, SSH, and the like."""

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint's URL, taken apart. `host` is without brackets, in lower case."""

    url: str
    host: str
    port: int
    is_https: bool

    @property
    def address(self) -> Address | None:
        """The host as an address. None if it is a name."""
        return as_address(self.host)


def target_of(url: str) -> Target:
    """The target of the URL. Raises ValueError with the reason if it is not a good one."""
    _require_plain(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"can't be read: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("must be like https://shop.example/hook")
    if "[" in parts.netloc and as_address(parts.hostname) is None:
        raise ValueError("must have an IPv6 address between the brackets")
    usual = _DEFAULT_PORTS[parts.scheme]
    port = usual if port is None else port
    if port != usual and port < MIN_FREE_PORT:
        raise ValueError(f"must have the port {usual}, or one from {MIN_FREE_PORT}")
    return Target(url, _host(parts.hostname), port, parts.scheme == "https")


def _require_plain(url: str) -> None:
    """Raise ValueError for a URL that is too long, or has parts that programs read differently or that do not belong
    there.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"must have at most {MAX_URL_LENGTH} characters")
    if not url.isascii() or any(character <= " " or character in '"<>\\^`{|}\x7f' for character in url):
        raise ValueError("must be ASCII without spaces; write other characters as %XX, and names in punycode")
    if "#" in url:
        raise ValueError("must not have a fragment (#…)")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError("must not have a user or a password in it")


def as_address(host: str) -> Address | None:
    """The host as an address. None if it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _host(host: str) -> str:
    """The host in lower case. Raises ValueError for a number that only some programs read as an address (0x7f.1)."""
    if as_address(host):
        return host.lower()
    host = host.rstrip(".").lower()
    last = host.rpartition(".")[2]
    if not _NAME.fullmatch(host) or last.isdigit() or last.startswith("0x"):
        raise ValueError("must have a name, or an address in its usual form")
    return host
