"""Whatever an issuer answers over HTTP: its usable keys are taken, or nothing is, in time and with one log line."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey
from joserfc.util import int_to_base64, urlsafe_b64encode
from pyreqwest.client import Client

from orders.access.issuer import DISCOVERY, MAX_DOCUMENT_BYTES, Issuer, IssuerAway
from orders.access.issuer_keys import IssuerKeys
from orders.access.jwks import MAX_KEYS, KeySet, read_key_set
from orders.neighbours.reply import build_client
from tests.conftest import free_port
from tests.made_up_issuer import EC, ED, OTHER_RSA, RSA, Server, public, serving

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
TIMEOUT_S = 0.5

# A client that hangs up in the middle of a large reply leaves the end of the server's answer to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    client = build_client(timeout_s=30)
    yield client
    await client.close()


def by_discovery(server: Server) -> Issuer:
    return Issuer(server.url, None, ALGORITHMS, TIMEOUT_S)


def discovery(server: Server, **changed: Any) -> None:
    """The issuer tells where its keys are: at /keys."""
    server.say(DISCOVERY, {"issuer": server.url, "jwks_uri": f"{server.url}/keys", **changed})


def kids(keys: KeySet) -> list[str | None]:
    return [key.kid for key in keys.keys]


async def test_keys_are_found_by_discovery(server: Server, client: Client) -> None:
    discovery(server)
    server.say("/keys", public(RSA, EC, ED))
    assert kids(await by_discovery(server).key_set(client)) == ["rsa", "ec", "ed"]
    assert server.asked == [DISCOVERY, "/keys"]


async def test_keys_are_read_where_the_setting_says_without_discovery(server: Server, client: Client) -> None:
    server.say("/keys?p=policy", public(RSA))
    issuer = Issuer("https://login.shop.example", f"{server.url}/keys?p=policy", ALGORITHMS, TIMEOUT_S)
    assert kids(await issuer.key_set(client)) == ["rsa"]
    assert server.asked == ["/keys?p=policy"]


async def test_a_slash_at_the_issuers_end_is_not_doubled_and_counts(server: Server, client: Client) -> None:
    discovery(server, issuer=f"{server.url}/")
    server.say("/keys", public(RSA))
    assert await Issuer(f"{server.url}/", None, ALGORITHMS, TIMEOUT_S).key_set(client)
    with pytest.raises(IssuerAway, match="names another issuer"):
        await by_discovery(server).key_set(client)


# Misbehaviour --------------------------------------------------------------------------------------------------------

Misbehave = Callable[[Server], None]


def never(server: Server) -> None:
    """Nothing comes, until the test is over."""

    def wait(_: BaseHTTPRequestHandler) -> None:
        server.end.wait()

    server.answers["/keys"] = wait


def drop_by_drop(server: Server) -> None:
    """A space now and then, forever: it is JSON so far."""

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not server.end.wait(0.02):
            request.wfile.write(b" ")

    server.answers["/keys"] = drip


def endless(server: Server) -> None:
    """As much as the client takes, with no length said."""

    def flood(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not server.end.is_set():
            request.wfile.write(b" " * 65536)

    server.answers["/keys"] = flood


def hangs_up(server: Server) -> None:
    def end(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b'{"keys": [')
        request.close_connection = True

    server.answers["/keys"] = end


def says(body: Any, status: int = 200, **headers: str) -> Misbehave:
    return lambda server: server.say("/keys", body, status, **headers)


def elsewhere(**changed: Any) -> Misbehave:
    return lambda server: discovery(server, **changed)


MISBEHAVIOUR: dict[str, tuple[Misbehave, str]] = {
    "never answers": (never, "no answer within 0.5 s"),
    "answers drop by drop": (drop_by_drop, "no answer within 0.5 s"),
    "is endless": (endless, f"larger than {MAX_DOCUMENT_BYTES} bytes"),
    "is huge": (says(b" " * (MAX_DOCUMENT_BYTES + 1)), f"larger than {MAX_DOCUMENT_BYTES} bytes"),
    "hangs up": (hangs_up, "did not answer"),
    "HTML": (says(b"<!doctype html><title>Sign in</title>", **{"Content-Type": "text/html"}), "not JSON"),
    "rubbish": (says(b"\x00\xff\xfe\x80"), "not JSON"),
    "nothing": (says(b""), "not JSON"),
    "deep": (says(b"[" * 100_000 + b"]" * 100_000), "not JSON"),
    "a number without end": (says(b'{"keys": ' + b"9" * 100_000 + b"}"), "not JSON"),
    "keys twice": (says(b'{"keys": [], "keys": []}'), "not JSON"),
    "a list": (says([RSA.as_dict(private=False)]), "no list `keys`"),
    "null": (says(b"null"), "no list `keys`"),
    "keys is an object": (says({"keys": {"rsa": RSA.as_dict(private=False)}}), "no list `keys`"),
    "404": (says(public(RSA), 404), "answered 404"),
    "500": (says(public(RSA), 500), "answered 500"),
    "204": (says(b"", 204), "answered 204"),
    "a redirect": (says(public(RSA), 302, Location="/trap"), "answered 302"),
    "a redirect that stays": (says(public(RSA), 308, Location="/trap"), "answered 308"),
    "discovery names another": (elsewhere(issuer="https://evil.example"), "names another issuer: 'https://evil"),
    "discovery names nobody": (elsewhere(issuer=None), "names another issuer: 'None'"),
    "discovery has no address": (elsewhere(jwks_uri=None), "no usable jwks_uri"),
    "discovery names a file": (elsewhere(jwks_uri="file:///etc/passwd"), "no usable jwks_uri"),
    "discovery names a number": (elsewhere(jwks_uri=1), "no usable jwks_uri"),
    "discovery names no host": (elsewhere(jwks_uri="http://"), "no usable jwks_uri"),
    "discovery names no port": (elsewhere(jwks_uri="http://127.0.0.1:port/"), "no usable jwks_uri"),
    "discovery names a host that can't be": (elsewhere(jwks_uri="http://xn--999/"), "did not answer"),
    "discovery names two lines": (elsewhere(jwks_uri="http://127.0.0.1/a\nb"), "no usable jwks_uri"),
    "discovery names a long address": (elsewhere(jwks_uri="http://a/" + "x" * 5000), "no usable jwks_uri"),
    "discovery names a closed port": (elsewhere(jwks_uri=f"http://127.0.0.1:{free_port()}/"), "did not answer"),
    "discovery is a list": (lambda server: server.say(DISCOVERY, []), "names another issuer"),
    "discovery is a redirect": (lambda server: server.say(DISCOVERY, {}, 301, Location="/trap"), "answered 301"),
}


@pytest.mark.parametrize("way", MISBEHAVIOUR)
async def test_an_issuer_that_misbehaves_gives_no_keys_and_one_line_in_the_log(
    way: str, server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    misbehave, sentence = MISBEHAVIOUR[way]
    discovery(server)
    server.say("/trap", public(OTHER_RSA))
    misbehave(server)
    keys = IssuerKeys(by_discovery(server))
    keys.connect(client)
    await keys.refresh_once()
    assert keys.current() is None
    assert "/trap" not in server.asked
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert told[0].startswith(f"The keys of {server.url} can't be fetched: ")
    assert sentence in told[0]
    assert len(told[0]) < 300


@pytest.mark.parametrize("way", ["never answers", "HTML", "404", "discovery names another"])
async def test_keys_that_are_known_outlive_an_issuer_that_misbehaves(way: str, server: Server, client: Client) -> None:
    clock = [0.0]
    keys = IssuerKeys(by_discovery(server), lambda: clock[0])
    keys.connect(client)
    discovery(server)
    server.say("/keys", public(RSA))
    await keys.refresh_once()
    MISBEHAVIOUR[way][0](server)
    clock[0] += 600
    await keys.refresh_once()
    known = keys.current()
    assert known
    assert kids(known) == ["rsa"]


async def test_an_issuer_that_is_away_or_has_no_such_host_gives_no_keys(client: Client) -> None:
    for address in (f"http://127.0.0.1:{free_port()}", "http://no.such.host.invalid"):
        with pytest.raises(IssuerAway, match=r"did not answer|no answer within"):
            await Issuer(address, None, ALGORITHMS, TIMEOUT_S).key_set(client)


@pytest.mark.parametrize(
    ("name", "address", "may"),
    [
        ("https://login.shop.example", "https://keys.example/keys?p=1", True),
        ("https://login.shop.example", "http://login.shop.example/keys", False),
        ("https://login.shop.example", "HTTP://login.shop.example/keys", False),
        ("http://login.internal", "https://login.internal/keys", True),
        ("http://login.internal", "http://login.internal/keys", True),
        ("http://login.internal", "ftp://login.internal/keys", False),
    ],
)
def test_the_keys_of_an_https_issuer_do_not_come_over_http(name: str, address: str, may: bool) -> None:
    assert Issuer(name, None, ALGORITHMS, TIMEOUT_S)._may_be_at(address) == may


async def test_a_password_in_the_address_of_the_keys_is_sent_and_never_told(server: Server, client: Client) -> None:
    sent: list[str | None] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        sent.append(request.headers["Authorization"])
        request.send_error(403)

    server.answers["/keys"] = note
    url = server.url.replace("http://", "http://orders:geheim@")
    with pytest.raises(IssuerAway) as caught:
        await Issuer("https://login.shop.example", f"{url}/keys", ALGORITHMS, TIMEOUT_S).key_set(client)
    assert sent == ["Basic b3JkZXJzOmdlaGVpbQ=="]
    assert "geheim" not in str(caught.value)


async def test_a_fetch_that_is_cancelled_at_the_end_leaves_nothing_behind(server: Server, client: Client) -> None:
    discovery(server)
    never(server)
    fetching = asyncio.create_task(by_discovery(server).key_set(client))
    while "/keys" not in server.asked:
        await asyncio.sleep(0.001)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching


# Keys that are ignored -----------------------------------------------------------------------------------------------


def changed(key: Any, **members: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **members}


def of_bits(bits: int) -> str:
    """An odd modulus of so many bits. Nobody needs to know its factors."""
    return int_to_base64((1 << (bits - 1)) + 1)


PADDED = urlsafe_b64encode(bytes(128) + b"\xff" * 128).decode()
"""A modulus of 1,024 bits that looks like one of 2,048."""

IGNORED: dict[str, tuple[Any, str]] = {
    "symmetric": (OctKey.generate_key(256, {"kid": "rsa"}).as_dict(private=True), "symmetric"),
    "symmetric, for RS256": (OctKey.generate_key(256).as_dict(private=True, alg="RS256"), "symmetric"),
    "of an unknown type": ({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}, "of an unknown type"),
    "without a type": ({"kid": "x"}, "of an unknown type"),
    "type is a list": ({"kty": ["RSA"]}, "of an unknown type"),
    "for encryption": (changed(RSA, use="enc"), "not for signatures"),
    "use is a list": (changed(RSA, use=["sig"]), "not for signatures"),
    "only for signing": (changed(RSA, key_ops=["sign"]), "not for signatures"),
    "key_ops is text": (changed(RSA, key_ops="verify"), "not for signatures"),
    "key_ops is a number": (changed(RSA, key_ops=1), "not for signatures"),
    "of another curve": (changed(ECKey.generate_key("P-384")), "of an algorithm"),
    "of a curve that nobody knows": (changed(EC, crv="P-1"), "of an algorithm"),
    "for exchanging keys": (changed(OKPKey.generate_key("X25519")), "of an algorithm"),
    "for another algorithm": (changed(RSA, alg="PS256"), "of an algorithm"),
    "for HS256": (changed(RSA, alg="HS256"), "of an algorithm"),
    "for encrypting": (changed(RSA, alg="RSA-OAEP"), "of an algorithm"),
    "a small modulus": (changed(RSA, n=of_bits(2047)), "of a size"),
    "a small modulus with zeros before it": (changed(RSA, n=PADDED), "of a size"),
    "a huge modulus": (changed(RSA, n=of_bits(8193)), "of a size"),
    "an empty modulus": (changed(RSA, n=""), "of a size"),
    "a long exponent": (changed(RSA, e="AQAB" * 100), "of a size"),
    "an exponent of 1": (changed(RSA, e="AQ"), "broken"),
    "an empty exponent": (changed(RSA, e=""), "broken"),
    "no exponent": ({"kty": "RSA", "n": RSA.as_dict(private=False)["n"]}, "broken"),
    "modulus is a number": (changed(RSA, n=5), "broken"),
    "modulus is no base64": (changed(RSA, n="!" * 342), "broken"),
    "modulus is no text": (changed(RSA, n="\ud800" * 342), "broken"),
    "a point that is not on the curve": (changed(EC, x=EC.as_dict(private=False)["y"]), "broken"),
    "a point that is too short": (changed(ED, x="AAAA"), "broken"),
    "kid is a number": (changed(RSA, kid=1), "kid or alg is no text"),
    "alg is a list": (changed(RSA, alg=["RS256"]), "kid or alg is no text"),
    "no object": ("rsa", "no object"),
    "null": (None, "no object"),
}


@pytest.mark.parametrize("kind", IGNORED)
def test_a_key_that_can_not_be_used_is_ignored_and_the_others_are_taken(kind: str) -> None:
    entry, why = IGNORED[kind]
    keys = read_key_set({"keys": [entry, *public(OTHER_RSA)["keys"]]}, ALGORITHMS)
    assert kids(keys) == ["other"]
    assert keys.ignored.startswith("1 (")
    assert why in keys.ignored


@pytest.mark.parametrize(
    "key", [changed(RSA, n=of_bits(2048)), changed(RSA, n=of_bits(8192)), changed(RSA, e="AQABAQAB")]
)
def test_the_smallest_and_the_largest_rsa_keys_are_taken(key: dict[str, Any]) -> None:
    assert kids(read_key_set({"keys": [key]}, ALGORITHMS)) == ["rsa"]


def test_how_many_keys_are_ignored_for_which_reason_is_counted() -> None:
    entries = [changed(RSA, use="enc"), None, changed(EC, use="enc")]
    assert read_key_set({"keys": entries}, ALGORITHMS).ignored == "2 (not for signatures), 1 (no object)"


def test_only_the_public_part_of_a_private_key_is_taken() -> None:
    shown_by_mistake = RSA.as_dict(private=True)
    (taken,) = read_key_set({"keys": [shown_by_mistake]}, ALGORITHMS).keys
    assert not taken.key.is_private
    assert shown_by_mistake["d"] not in json.dumps(taken.key.as_dict())


def test_more_keys_than_any_issuer_has_are_ignored() -> None:
    entries = [changed(EC, kid=str(number)) for number in range(MAX_KEYS + 5)]
    keys = read_key_set({"keys": entries}, ALGORITHMS)
    assert len(keys.keys) == MAX_KEYS
    assert keys.ignored == f"5 (more than {MAX_KEYS})"
    assert read_key_set({"keys": entries[:MAX_KEYS]}, ALGORITHMS).ignored == ""


@pytest.mark.parametrize(
    ("kid", "algorithm", "chosen"),
    [
        ("rsa", "RS256", "rsa"),
        ("rsa", "PS256", None),  # the issuer says that it is for RS256
        ("other", "RS256", "other"),
        ("other", "PS256", "other"),
        ("ec", "ES256", "ec"),
        ("ec", "RS256", None),
        ("rsa", "ES256", None),
        ("nobody", "RS256", None),
        ("", "ES256", None),
        (None, "RS256", None),  # two keys fit
        (None, "PS256", "other"),
        (None, "ES256", "ec"),
        (None, "EdDSA", None),
    ],
)
def test_a_key_is_chosen_by_its_id_and_its_algorithm(kid: str | None, algorithm: str, chosen: str | None) -> None:
    entries = [changed(RSA, alg="RS256"), changed(OTHER_RSA), changed(EC, alg="ES256")]
    keys = read_key_set({"keys": entries}, {"RS256", "PS256", "ES256", "EdDSA"})
    assert (keys.knows("rsa"), keys.knows("nobody"), keys.ignored) == (True, False, "")
    key = keys.choose(kid, algorithm)
    assert [known.kid for known in keys.keys if known.key is key] == ([chosen] if chosen else [])


def test_keys_of_one_kid_are_told_apart_by_their_algorithm() -> None:
    keys = read_key_set({"keys": [changed(EC, kid="same"), changed(RSA, kid="same")]}, ALGORITHMS)
    chosen = [keys.choose("same", algorithm) for algorithm in ("ES256", "RS256", "EdDSA")]
    assert [key and key.key_type for key in chosen] == ["EC", "RSA", None]


def test_of_two_keys_of_one_kid_and_algorithm_the_first_is_taken() -> None:
    keys = read_key_set({"keys": [changed(RSA, kid="same"), changed(OTHER_RSA, kid="same")]}, ALGORITHMS)
    assert keys.choose("same", "RS256") is keys.keys[0].key


async def test_keys_are_ignored_with_one_line_in_the_log(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.say("/keys", {"keys": [IGNORED["symmetric"][0], *public(RSA)["keys"]]})
    discovery(server)
    keys = IssuerKeys(by_discovery(server))
    keys.connect(client)
    await keys.refresh_once()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("orders.")]
    assert ours == [f"{server.url} has usable keys: 1. Ignored: 1 (symmetric)."]
