"""uvicorn's HTTP/1.1 with bounds: how much one client may send, how slowly, and how many connections there are.

`connections` decides, and this module carries it out; `ending` has how a connection ends. uvicorn itself parses and
answers.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from orders.errors import Code, OrderError
from orders.wire.connections import Reason
from orders.wire.ending import EndingHttp, LastAnswer

MAX_HEAD_BYTES = 32 * 1024
"""Maximum size of the request line and all headers, and of other bytes that are no part of a body (trailers, chunk
extensions). Browsers and proxies stay below 16 kB.
"""

MAX_HEADERS = 100
"""Maximum number of headers of a request: each costs Python more than its bytes, and requests have about ten."""

PIECE_BYTES = 8 * 1024
"""Maximum number of bytes that are parsed at a time: too many headers are noticed after a thousand, within a
millisecond.
"""

MAX_PIPELINED = 8
"""Maximum number of requests that wait behind the one being answered. Further ones are not read, and the connection is
closed.
"""

WHOLE_BODY_BYTES = 256 * 1024
"""Maximum size of a body that is awaited before the app is called: a client that is cut before has cost only this
memory. Larger bodies are for the app to refuse, or to read as they come.
"""

MAX_SMALL_CHUNKS = 100
"""Maximum number of chunks in one read (up to 256 kB) that may be short. With more, their average has to be
MIN_CHUNK_BYTES. Each chunk costs Python the same, however short: 40,000 in one read would stop all other requests for
0.1 s.
"""

MIN_CHUNK_BYTES = 64
"""Minimum average size of the chunks in such a read. Clients that use chunks send some kB each."""


class BoundedHttp(EndingHttp):
    """One client's connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._unfinished = 0
        """Number of bytes since a head, or a part of a body, was complete."""
        self._has_progressed = False
        self._chunks = self._body_bytes = 0
        """Number of chunks, and of their bytes, in the read that is being parsed."""

    # What the server's loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._others.admit(self, self.loop.time()):
            self._others.closed[Reason.TURNED_AWAY] += 1
            self._refuse(OrderError(Code.CONNECTIONS_FULL, "All connections are busy.", retry_after_s=1))

    def data_received(self, data: bytes) -> None:
        self._chunks = self._body_bytes = 0
        if self._is_deaf:
            self._throw_away(len(data))
        elif len(data) <= min(PIECE_BYTES, MAX_HEAD_BYTES - self._unfinished):
            self._feed(data)
        else:
            self._feed_in_pieces(memoryview(data))
        if self._is_in_body or not self._has_progressed or self.line is not self._others.kept:
            self._stand_in_line()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._others.wait_for_reader(self, self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._others.has_read(self)

    # What the parser calls

    def on_headers_complete(self) -> None:
        if len(self.headers) > MAX_HEADERS:
            raise _too_many_headers()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise OrderError(Code.CONNECTIONS_FULL, "Too many requests are waiting on this connection.")
        before = self.cycle
        super().on_headers_complete()
        self._cycle_before = before
        self._is_in_body = self._has_progressed = True
        if not self.cycle.keep_alive:
            self.cycle.transport = LastAnswer(self)  # type: ignore[assignment]  # all that a cycle uses of one
        self.idle_since = None
        self._surplus = 0

    def on_body(self, body: bytes) -> None:
        self._has_progressed = True
        self._chunks += 1
        self._body_bytes += len(body)
        if self._chunks > MAX_SMALL_CHUNKS and self._body_bytes < self._chunks * MIN_CHUNK_BYTES:
            raise OrderError(Code.NOT_HTTP, f"Send the body in chunks of at least {MIN_CHUNK_BYTES} bytes.")
        if self.cycle.response_complete:
            self._throw_away(len(body))
            return
        self._held += len(body)
        if not self._others.has_room_for(self, len(body)):
            raise OrderError(Code.CONNECTIONS_FULL, "Too much is being sent at once. Send less.", retry_after_s=1)
        if self._not_started is None:
            super().on_body(body)
            return
        self.cycle.body += body
        if len(self.cycle.body) > WHOLE_BODY_BYTES:
            self._start()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_in_body = False
        self._has_progressed = True
        if self._not_started is not None:
            self._start()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Start the app when the body is complete, and not, as uvicorn does, when the headers are. The app is started
        at once if the client waits for it (100-continue), or if the body is large.
        """
        if cycle is not self.cycle or not cycle.more_body or cycle.waiting_for_100_continue or _is_large(cycle.scope):
            super()._start_asgi_task(cycle, app)
        else:
            self._not_started = cycle, app

    def _start(self) -> None:
        assert self._not_started is not None
        super()._start_asgi_task(*self._not_started)
        self._not_started = None

    # What the answer's cycle calls

    def on_response_complete(self) -> None:
        """As in uvicorn, but without a timer for each request: `connections` keeps the time of all connections."""
        self.server_state.total_requests += 1
        if self._held and not self.pipeline:
            self._release()
        if self.transport.is_closing():
            if self.unread_bytes():
                self._others.wait_for_reader(self, self.loop.time())
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._is_deaf:
            self.transport.resume_reading()
            self._leave()
        elif self._others.is_crowded:
            self.transport.close()
        else:
            self.idle_since = self.loop.time()
        if self._is_in_body or self._is_in_head():
            self._stand_in_line()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore the upgrade, as HTTP allows. Close afterwards: the bytes that follow could be of either protocol."""
        self.cycle.keep_alive = False

    # Reading

    def _feed_in_pieces(self, data: memoryview) -> None:
        """Feed pieces no larger than the bytes that may still be unfinished, so that the parser never gets more."""
        while data and not self._is_deaf and not self.transport.is_closing():
            room = min(PIECE_BYTES, MAX_HEAD_BYTES - self._unfinished)
            if room <= 0:
                detail = f"The request line and headers are at most {MAX_HEAD_BYTES} bytes."
                self._refuse(OrderError(Code.HEAD_TOO_LARGE, detail))
                return
            self._feed(data[:room])
            if self.headers and len(self.headers) > MAX_HEADERS and not self._is_deaf:
                self._refuse(_too_many_headers())
            data = data[room:]

    def _feed(self, piece: bytes | memoryview) -> None:
        self._has_progressed = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._unsupported_upgrade_warning()
        except httptools.HttpParserError as error:
            reason = error.__context__
            self._refuse(reason if isinstance(reason, OrderError) else OrderError(Code.NOT_HTTP, _sentence(error)))
        self._unfinished = 0 if self._has_progressed else self._unfinished + len(piece)

    def _stand_in_line(self) -> None:
        """Move to the line of what is expected next: the rest of a head, the rest of a body, or nothing."""
        if self._is_deaf or self.transport.is_closing():
            return
        if self._is_in_body and not self.pipeline:
            line = self._others.bodies
        elif self._is_answered() and (self.cycle is None or self._is_in_head()):
            line = self._others.heads
        else:
            line = self._others.kept
        if line is not self.line:
            self._others.move(self, line, self.loop.time())


def _too_many_headers() -> OrderError:
    return OrderError(Code.HEAD_TOO_LARGE, f"A request has at most {MAX_HEADERS} headers.")


def _sentence(error: Exception) -> str:
    return f"This can't be read as HTTP/1.1: {str(error)[:100] or 'it is malformed'}."


def _is_large(scope: Any) -> bool:
    """Whether the body announces a size above what is awaited. The app refuses such a body unread, or reads it as it
    comes.
    """
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return bool(announced.isdigit()) and int(announced[:20]) > WHOLE_BODY_BYTES
