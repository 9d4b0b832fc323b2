"""One attempt to send: receivers that misbehave in every way, and addresses that must not be reached."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orders.webhooks import clients, resolving
from orders.webhooks.addresses import Allowed
from orders.webhooks.model import Message
from orders.webhooks.sending import KEPT_CHARACTERS, Sender, Sent
from orders.webhooks.signing import SignatureKind, SigningKey, new_key
from tests.conftest import free_port
from tests.receiver import Got, Receiver, answer, require_signed, signatures

KEY = new_key(SignatureKind.V1)
BODY = b'{"type":"webhook.test","timestamp":"2026-11-28T00:00:00.000000Z","data":{"a":"\xc3\xa4"}}'


def message(attempt: int = 1) -> Message:
    return Message(7, uuid4(), "webhook.test", attempt, datetime.now(UTC), notice="{}")


@contextlib.asynccontextmanager
async def sender(*allowed: str, timeout_s: float = 5.0) -> AsyncIterator[Callable[..., Any]]:
    """A function that sends BODY to a URL."""
    made = Sender(Allowed(allowed), timeout_s, "1.2.3")

    async def send(url: str, *keys: SigningKey, attempt: int = 1) -> Sent:
        return await made.send(url, message(attempt), BODY, keys or (KEY,))

    try:
        yield send
    finally:
        await made.close()


async def test_a_request_is_what_standard_webhooks_says() -> None:
    async with Receiver() as receiver, sender("127.0.0.1") as send:
        sent = await send(receiver.url)
    (got,) = receiver.got
    assert (sent.result.status, sent.result.error, sent.result.reply) == (200, None, "ok")
    assert sent.result.is_success
    assert got.body == sent.body == BODY
    assert got.headers["content-type"] == "application/json"
    assert got.headers["user-agent"] == "orders/1.2.3"
    assert got.headers["accept-encoding"] == "identity"
    assert got.headers.items() >= sent.headers.items()
    assert got.id == "notice-7"
    require_signed(got, KEY.text)


async def test_during_a_rotation_both_secrets_find_it_good() -> None:
    old, signer = new_key(SignatureKind.V1), new_key(SignatureKind.V1A)
    async with Receiver() as receiver, sender("127.0.0.1") as send:
        await send(receiver.url, KEY, old, signer)
    (got,) = receiver.got
    require_signed(got, KEY.text)
    require_signed(got, old.text)
    assert len(signatures(got)) == 3


async def slowly(_: Got) -> bytes:
    await asyncio.sleep(60)
    raise AssertionError


HTTP_200 = b"HTTP/1.1 200 OK\r\n"
GZIPPED = gzip.compress(b"\0" * 10_000_000)
SHORT = b"HTTP/1.1 500 Oh\r\ncontent-length: 1000000\r\n\r\nbegins"
FLOOD = HTTP_200 + b"".join(b"h-%d: %s\r\n" % (n, b"y" * 1000) for n in range(5000)) + b"\r\n"


@pytest.mark.parametrize(
    ("behave", "status", "error", "reply"),
    [
        (lambda _: answer(204, body=b""), 204, None, None),
        (lambda _: answer(500, body=b"sorry\0\x1b[31m"), 500, None, "sorry\ufffd\ufffd[31m"),
        (lambda _: answer(410), 410, None, "no"),
        (lambda _: answer(301, "location: http://127.0.0.1:1/"), 301, "redirected", "no"),
        (lambda _: answer(302, "location: /other"), 302, "redirected", "no"),
        (lambda _: answer(200, "content-encoding: gzip", body=GZIPPED), 200, None, ...),
        (lambda _: answer(400, body=b"x" * 1_000_000), 400, None, "x" * KEPT_CHARACTERS),
        (lambda _: answer(200, body=b"\xff\xfe"), 200, None, "\N{REPLACEMENT CHARACTER}" * 2),
        (lambda _: SHORT, 500, None, "begins"),
        (lambda _: HTTP_200 + b"transfer-encoding: chunked\r\n\r\nZZZ\r\n", 200, None, None),
        (lambda _: None, None, "connection_lost", None),
        (lambda _: b"\0\1rubbish\r\n\r\n" * 100, None, "bad_answer", None),
        (lambda _: b"HTTP/1.1 2000 OK\r\n\r\n", None, "bad_answer", None),
        (lambda _: FLOOD, None, "bad_answer", None),
        (slowly, None, "timed_out", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_every_way_to_answer_ends_in_time_and_in_a_word(
    behave: Any, status: int | None, error: str | None, reply: Any
) -> None:
    async with Receiver(behave) as receiver, sender("127.0.0.1", timeout_s=1.0) as send:
        async with asyncio.timeout(10):
            result = (await send(receiver.url)).result
    assert (result.status, result.error) == (status, error)
    assert result.reply == reply or (reply is ... and len(result.reply) <= KEPT_CHARACTERS)
    assert len(receiver.got) == 1


async def test_an_endless_reply_is_not_read_to_its_end() -> None:
    sent_bytes = 0
    closed = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HTTP_200 + b"content-type: text/plain\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent_bytes += 65536
        closed.set()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server, sender("127.0.0.1", timeout_s=30) as send:
        result = (await send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")).result
        async with asyncio.timeout(10):
            await closed.wait()  # long before the timeout: the connection is dropped
    assert result.is_success
    assert result.reply == "x" * KEPT_CHARACTERS
    assert sent_bytes < 50_000_000


@pytest.mark.parametrize("status", [429, 503])
async def test_both_forms_of_retry_after_are_understood(status: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    async with Receiver() as receiver, sender("127.0.0.1") as send:
        for header, expected in (("120", 120.0), (date, 120.0), ("soon", None)):
            receiver.behave = lambda _, header=header: answer(status, f"retry-after: {header}")
            result = (await send(receiver.url)).result
            assert result.retry_after_s == (None if expected is None else pytest.approx(expected, abs=3))
            assert result.asks_for_a_pause == (expected is not None)


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with Receiver() as receiver, sender("127.0.0.1") as send:
        assert (await send(receiver.url)).result.is_success


async def test_where_nobody_listens_the_connection_is_refused() -> None:
    async with sender("127.0.0.1") as send:
        assert (await send(f"http://127.0.0.1:{free_port()}/")).result.error == "connection_refused"


async def test_a_connection_is_used_again() -> None:
    connections = 0

    class Counting(Receiver):
        async def _serve(self, *streams: Any) -> None:
            nonlocal connections
            connections += 1
            await super()._serve(*streams)

    async with Counting() as receiver, sender("127.0.0.1") as send:
        for _ in range(5):
            await send(receiver.url)
    assert connections == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://10.1.2.3/", "https://169.254.169.254/latest/meta-data/", "https://[::1]/",
        "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::a9fe:a9fe]/", "https://100.100.100.200/", "https://0.0.0.0/",
        "http://127.0.0.1:8000/",
    ],
)  # fmt: skip
async def test_nothing_is_sent_to_a_private_address(url: str) -> None:
    async with sender("192.168.7.0/24") as send:
        sent = await send(url)
    assert (sent.result.status, sent.result.error, sent.headers) == (None, "address_not_allowed", {})


async def test_without_https_nothing_is_sent_unless_the_target_is_allowed() -> None:
    async with sender("127.0.0.1") as send:
        assert (await send("http://1.1.1.1/")).result.error == "https_required"


@pytest.mark.parametrize(
    "url", ["https://u:p@shop.example/", "https://0x7f.1/", "ftp://shop.example/", "https://shop.example:25/"]
)
async def test_a_url_that_is_none_is_not_tried(url: str) -> None:
    async with sender("127.0.0.1") as send:
        assert (await send(url)).result.error == "bad_url"


class Names:
    """A name server of the tests: what a name leads to at each lookup, the last one for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        found = self.answers.get(host.partition(".")[0])
        if not found:
            raise socket.gaierror(-2, "Name or service not known")
        addresses = found.pop(0) if len(found) > 1 else found[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


async def test_a_name_that_leads_elsewhere_later_is_not_followed(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as receiver, sender("hook.allowed") as send:
        url = f"http://hook.allowed:{receiver.port}/"
        names.answers["hook"] = [["127.0.0.1"]]
        assert (await send(url)).result.is_success
        names.answers["shop"] = [["1.1.1.1"], ["127.0.0.1"]]
        rebound = f"https://shop.example:{receiver.port}/"
        monkeypatch.setattr("orders.webhooks.sending.Sender._post", _noted := Noted())
        assert (await send(rebound)).result.error == "public"
        monkeypatch.undo()
        monkeypatch.setattr(socket, "getaddrinfo", names)
        monkeypatch.setattr(resolving, "FRESH_S", -1.0)
        async with sender() as send_again:
            names.answers["shop"] = [["127.0.0.1"]]
            assert (await send_again(rebound)).result.error == "address_not_allowed"
    assert len(receiver.got) == 1
    assert _noted


class Noted:
    """Stands for a request to a public address: nothing leaves this machine in tests."""

    async def __call__(self, *_: Any) -> Any:
        raise resolving.NotSent("public")


@pytest.mark.parametrize("addresses", [["1.1.1.1", "127.0.0.1"], ["127.0.0.1", "1.1.1.1"], ["1.1.1.1", "10.0.0.1"]])
async def test_every_address_of_a_name_has_to_be_allowed(addresses: list[str], names: Names) -> None:
    names.answers["shop"] = [addresses]
    async with sender() as send:
        assert (await send("https://shop.example/")).result.error == "address_not_allowed"


async def test_a_name_is_looked_up_once_a_minute_and_once_for_all_who_ask(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.answers["hook"] = [["127.0.0.1"]]
    async with Receiver() as receiver, sender("hook.allowed") as send:
        url = f"http://hook.allowed:{receiver.port}/"
        await asyncio.gather(*(send(url) for _ in range(8)))
        assert names.asked == ["hook.allowed"]
        assert {got.headers["host"] for got in receiver.got} == {f"hook.allowed:{receiver.port}"}
        monkeypatch.setattr(resolving, "FRESH_S", -1.0)
        await send(url)
        assert len(names.asked) == 2


async def test_an_unknown_name_is_not_resolved(names: Names) -> None:
    async with sender() as send:
        assert (await send("https://nowhere.example/")).result.error == "not_resolved"
        names.answers["nowhere"] = [["127.0.0.1"]]
        assert (await send("https://nowhere.example/")).result.error == "address_not_allowed", "asked again"


async def test_a_name_with_a_dot_at_its_end_leads_to_the_checked_address(names: Names) -> None:
    names.answers["hook"] = [["127.0.0.1"]]
    async with Receiver() as receiver, sender("127.0.0.1") as send:
        assert (await send(f"http://HOOK.test.:{receiver.port}/")).result.is_success


async def test_the_next_attempt_tries_the_next_address(names: Names) -> None:
    async with Receiver() as receiver, sender("127.0.0.0/8") as send:
        names.answers["hook"] = [["127.0.0.2", "127.0.0.1"]]  # on the first one nobody listens
        url = f"http://hook.test:{receiver.port}/"
        assert (await send(url)).result.error == "connection_refused"
        assert (await send(url, attempt=2)).result.is_success


async def test_a_slow_name_server_delays_no_other_name(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(host: str, *more: Any, **named: Any) -> Any:
        if host.startswith("slow"):
            release.wait(30)
        return names(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    names.answers["hook"] = [["127.0.0.1"]]
    async with Receiver() as receiver, sender("127.0.0.1", timeout_s=1.0) as send:
        slow_ones = [asyncio.create_task(send(f"https://slow{n}.example/")) for n in range(8)]
        assert (await send(f"http://hook.test:{receiver.port}/")).result.is_success
        assert {(await one).result.error for one in slow_ones} == {"timed_out"}
        release.set()


async def test_clients_that_were_not_used_for_long_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "MAX_CLIENTS", 2)
    held = asyncio.Event()

    async def hold(_: Got) -> bytes:
        await held.wait()
        return answer(200)

    async with Receiver(hold) as receiver, sender("127.0.0.0/8") as send:
        waiting = asyncio.create_task(send(receiver.url))
        await receiver.until(lambda: receiver.got)
        for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            await send(f"http://{host}:{free_port()}/")
        held.set()
        assert (await waiting).result.is_success, "a request that is under way goes on"


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, names: Names) -> None:
    names.answers["hook"] = [["127.0.0.1"]]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_own_certificate(tmp_path))
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(10))
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server, sender("127.0.0.1") as send:
        result = (await send(f"https://hook.test:{server.sockets[0].getsockname()[1]}/")).result
    assert (result.error, asked) == ("tls_failed", [])


def _own_certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hook.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hook.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "own.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(pem))
    return path
