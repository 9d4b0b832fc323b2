"""Which addresses and URLs a webhook may be sent to."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.webhooks.addresses import Allowed, is_public, may_be_sent_to
from orders.webhooks.urls import target_of

SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # the metadata of Alibaba's machines
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",  # the metadata of most clouds
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::1",  # Teredo
    "2001:2::1",
    "2001:db8::1",
    "2002:7f00:1::1",  # 6to4 of 127.0.0.1
    "2002:a9fe:a9fe::1",  # 6to4 of the metadata
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # the metadata of AWS over IPv6
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "172.32.0.1",
    "223.255.255.255",
    "2606:4700::1111",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("text", SPECIAL)
def test_no_special_address_is_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_internet_are(text: str) -> None:
    assert is_public(ip_address(text))


@given(st.ip_addresses())
def test_what_python_calls_not_global_is_never_public(address: IPv4Address | IPv6Address) -> None:
    if isinstance(address, IPv6Address) and address in SOME_NAT64:
        return
    assert address.is_global or not is_public(address)


SOME_NAT64 = IPv6Network("64:ff9b::/96")


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_form(address: IPv4Address) -> None:
    mapped, nat64 = IPv6Address(f"::ffff:{address}"), IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))
    assert is_public(mapped) == is_public(nat64) == is_public(address)


def test_every_address_of_a_name_has_to_be_public() -> None:
    public, private = ip_address("1.1.1.1"), ip_address("10.0.0.1")
    nothing = Allowed()
    assert may_be_sent_to("shop.example", [public], nothing)
    assert not may_be_sent_to("shop.example", [public, private], nothing)
    assert not may_be_sent_to("shop.example", [], nothing)


def test_the_operator_can_allow_networks_and_names() -> None:
    allowed = Allowed(["10.1.0.0/16", "fd00::/8", "hook.internal", "127.0.0.1"])
    for host, address in (("a", "10.1.2.3"), ("a", "fd00::1"), ("HOOK.internal", "10.9.9.9"), ("a", "127.0.0.1")):
        assert may_be_sent_to(host, [ip_address(address)], allowed)
    assert not may_be_sent_to("a", [ip_address("10.2.0.1")], allowed)
    assert not may_be_sent_to("a", [ip_address("10.1.0.1"), ip_address("10.2.0.1")], allowed)
    with pytest.raises(ValueError, match=r"10\.1\.0\.0/99"):
        Allowed(["10.1.0.0/99"])


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://shop.example/hook?a=b", "shop.example", 443),
        ("https://SHOP.example:8443/hook", "shop.example", 8443),
        ("http://127.0.0.1:3000/hook", "127.0.0.1", 3000),
        ("https://[2606:4700::1111]/", "2606:4700::1111", 443),
        ("https://shop.example.", "shop.example", 443),
    ],
)
def test_good_urls(url: str, host: str, port: int) -> None:
    target = target_of(url)
    assert (target.host, target.port, target.is_https) == (host, port, url.startswith("https"))


BAD_URLS = [
    "",
    "shop.example/hook",
    "ftp://shop.example/",
    "file:///etc/passwd",
    "https://",
    "https:///hook",
    "https://user@shop.example/",
    "https://user:secret@shop.example/",
    "https://@shop.example/",
    "https://shop.example/#part",
    "https://shop.example/#",
    "https://shop.example:22/",
    "https://shop.example:0/",
    "https://shop.example:99999/",
    "https://shop.example:80/",
    "http://shop.example:443/",
    "https://shop example/",
    "https://shop.example/a b",
    "https://shop.example/\n",
    "https://shop.example\\@evil.example/",
    "https://shöp.example/",
    "https://0x7f.1/",
    "https://2130706433/",
    "https://127.1/",
    "https://0177.0.0.1/",
    "https://[::1",
    "https://[v1.x]/",
    "https://shop.example/" + "a" * 2048,
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_urls_are_refused_with_a_reason(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(must|can't)"):
        target_of(url)
