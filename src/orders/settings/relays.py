"""The setting ORDERS_RELAYS: brokers, and the place in each that events are relayed to."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from orders.settings.address import shown


class Broker(StrEnum):
    """A kind of broker. Each has an extra of this name, with the library that it needs."""

    NATS = "nats"
    RABBITMQ = "rabbitmq"
    KAFKA = "kafka"


_KINDS = {
    "nats": Broker.NATS,
    "tls": Broker.NATS,
    "amqp": Broker.RABBITMQ,
    "amqps": Broker.RABBITMQ,
    "kafka": Broker.KAFKA,
    "kafka+ssl": Broker.KAFKA,
}
"""Kinds of brokers by the scheme of a URL."""

_NEXT = re.compile(r",(?=\s*(?:[a-z0-9_-]+=)?[a-z+]+://)", re.IGNORECASE)
"""Between two relays. Other commas are between the hosts of one."""

_RELAY = re.compile(
    r"\s*(?:(?P<name>[a-z0-9_-]{1,60})=)?(?P<url>(?P<scheme>[a-z+]+)://(?P<authority>[^/?#\s]+)"
    r"(?P<folder>/[^?#\s]*)?/(?P<place>[A-Za-z0-9_-]{1,100}))\s*"
)
_EXAMPLE = "nats://broker.internal:4222/orders"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a relay sends events. `place`: the name of the stream, exchange or topic. `folder`: what stands before it,
    for RabbitMQ the virtual host. `repr` hides the user and the password.
    """

    name: str
    kind: Broker
    url: str
    scheme: str
    user: str | None
    password: str | None
    hosts: tuple[str, ...]
    folder: str
    place: str

    @property
    def shown(self) -> str:
        """The URL for people, without the user and the password."""
        return shown(self.url)

    @property
    def digest(self) -> str:
        """A digest of the URL without the user and the password."""
        return hashlib.sha256(self.shown.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Target({self.name}: {self.shown})"


def relays(text: str) -> str:
    """Relays with commas. Raises ValueError, which quotes nothing: what is wrong may be a password."""
    names = [target.name for target in targets(text)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two relays are called {twice[0]!r}; give them names, as in second={_EXAMPLE}")
    return text


def targets(text: str) -> tuple[Target, ...]:
    """The relays in the setting. Raises ValueError."""
    return tuple(_target(part) for part in _NEXT.split(text)) if text.strip() else ()


def _target(part: str) -> Target:
    found = _RELAY.fullmatch(part)
    if found is None or found["scheme"] not in _KINDS:
        raise ValueError(
            f"must be like {_EXAMPLE}, or several with commas; the schemes are {', '.join(_KINDS)}, and the last part "
            "of the path is the name of the stream, exchange or topic"
        )
    kind = _KINDS[found["scheme"]]
    credentials, _, hosts = found["authority"].rpartition("@")
    user, colon, password = credentials.partition(":")
    return Target(
        name=found["name"] or kind.value,
        kind=kind,
        url=found["url"],
        scheme=found["scheme"],
        user=unquote(user) if user else None,
        password=unquote(password) if colon else None,
        hosts=_hosts(hosts, kind),
        folder=unquote((found["folder"] or "").removeprefix("/")),
        place=found["place"],
    )


def _hosts(text: str, kind: Broker) -> tuple[str, ...]:
    hosts = tuple(text.split(","))
    if not all(hosts):
        raise ValueError("has an empty host")
    if kind is Broker.RABBITMQ and len(hosts) > 1:
        raise ValueError("names one host of RabbitMQ; put a load balancer before several")
    return hosts


_SOURCE = re.compile(r"[!-~]+")


def source(text: str) -> str:
    """The source of CloudEvents. Raises ValueError."""
    if not _SOURCE.fullmatch(text) or any(character in text for character in '"%<>\\^`{|}'):
        raise ValueError("must be a URL or a path in ASCII without spaces, as in https://orders.shop.example")
    return text.rstrip("/") or "/"
