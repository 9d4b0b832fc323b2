"""Which addresses a webhook may be sent to: public ones, and those that the operator allows. Pure.

`ipaddress.is_global` alone is not enough: it says yes to multicast, and to IPv6 addresses that lead to a private IPv4
address (NAT64).
"""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by providers; the metadata of Alibaba's machines
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
_UNICAST_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, with Teredo and ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: leads to an IPv4 address
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""Well-known prefix of NAT64 (RFC 6052): the last 32 bits are the IPv4 address that it leads to."""


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet, whatever form it is written in."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address.scope_id is not None:
        return False
    if embedded := _embedded_v4(address):
        return is_public(embedded)
    return address in _UNICAST_V6 and not any(address in network for network in _SPECIAL_V6)


def _embedded_v4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that the address stands for, or None."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


class Allowed:
    """The private targets that the operator allows (ORDERS_WEBHOOK_ALLOW): networks, and names of hosts."""

    def __init__(self, entries: Collection[str] = ()) -> None:
        """Raises ValueError for a network that is none."""
        self._networks = tuple(ip_network(entry) for entry in entries if _is_network(entry))
        self._names = frozenset(entry.lower() for entry in entries if not _is_network(entry))

    def has(self, host: str, addresses: Iterable[Address]) -> bool:
        """Whether the host is allowed by its name, or each of its addresses by its network."""
        return host.lower() in self._names or all(self._has_address(address) for address in addresses)

    def _has_address(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._networks)


def _is_network(entry: str) -> bool:
    try:
        ip_address(entry.partition("/")[0])
    except ValueError:
        return False
    return True


def may_be_sent_to(host: str, addresses: Collection[Address], allowed: Allowed) -> bool:
    """Whether a request to the host may be sent to these addresses. Each of them has to be public, or allowed."""
    if not addresses:
        return False
    return all(is_public(address) for address in addresses) or allowed.has(host, addresses)
