"""A neighbour on raw sockets: it sends exactly the bytes that it is told to, also such as no HTTP server would send."""

import socketserver
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

Pieces = Iterable[bytes | float]
"""What is sent, piece by piece; a number is a pause in seconds. Afterwards the connection is closed."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes


def reply(body: bytes, *headers: str, status: str = "200 OK") -> Pieces:
    """A proper reply."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return ["\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body]


class RawServer:
    """Answers each request with what `answer` says."""

    def __init__(self, answer: Callable[[Request], Pieces]) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                if request := _read_request(self.rfile):
                    self._send(answer(request))

            def _send(self, pieces: Pieces) -> None:
                try:
                    for piece in pieces:
                        if isinstance(piece, bytes):
                            self.wfile.write(piece)
                        else:
                            time.sleep(piece)
                except OSError:
                    pass  # the client has had enough of it

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _read_request(stream: Any) -> Request | None:
    first = stream.readline().decode("latin-1").split()
    length = 0
    while (line := stream.readline()) not in (b"\r\n", b"\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        length = int(value) if name.lower() == "content-length" else length
    return Request(first[0], first[1], stream.read(length)) if len(first) == 3 else None
