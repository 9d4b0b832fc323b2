"""An issuer of tokens that tests make up: its keys, what it signs (also what no issuer would), and its HTTP server."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER = "https://login.shop.example/"
AUDIENCE = "orders"
NOW = 1_800_000_000
"""The time at which tokens are checked, unless a test says otherwise."""

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "other"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
EVERY_KEY: tuple[Key, ...] = (RSA, EC, ED)

CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 600, "sub": "anna", "customer_id": 42}


def claims(**changed: Any) -> dict[str, Any]:
    """Valid claims of customer 42 with some changed; ... takes one out."""
    return {name: value for name, value in {**CLAIMS, **changed}.items() if value is not ...}


def part(content: Any) -> str:
    """A part of a token: bytes as they are, anything else as JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(payload: Any, header: Any = None, key: Any = RSA, algorithm: str = "RS256") -> str:
    """A token, signed by the key with the algorithm whatever the header says. It need not be a sane one."""
    shown = {"alg": algorithm, "kid": key.kid} if header is None else header
    begin = f"{part(shown)}.{part(payload)}"
    return f"{begin}.{part(JWSRegistry.algorithms[algorithm].sign(begin.encode(), key))}"


def customer(**changed: Any) -> str:
    """A token with valid claims but for what is changed."""
    return signed(claims(**changed))


def public(*keys: Key) -> dict[str, Any]:
    """The JSON Web Key Set of these keys."""
    return {"keys": [key.as_dict(private=isinstance(key, OctKey)) for key in keys]}


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """An HTTP server that answers each path with what it was told to, and remembers what was asked."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    end: threading.Event = field(default_factory=threading.Event)

    def say(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(raw)

        self.answers[path] = answer


@contextmanager
def serving() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked.append(self.path)
            try:
                server.answers[self.path](self)
            except (BrokenPipeError, ConnectionResetError):  # the client has had enough
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = Server(f"http://127.0.0.1:{httpd.server_port}")
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.end.set()
    httpd.shutdown()
    httpd.server_close()
