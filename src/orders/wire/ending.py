"""How a connection ends: its client is told why, after the answers before, and has time to read it.

`bounded_http` and `connections` decide when it has to end.
"""

import asyncio
import json
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from orders.errors import Code, OrderError, problem
from orders.wire.connections import BODY_S, HEAD_S, MAX_CONNECTIONS, Line, Reason
from orders.wire.sweep import connections_of

MAX_SURPLUS_BYTES = 1024 * 1024
"""Maximum number of bytes after the last answer that are read and thrown away. Without this, a client that sends twice
the allowed size would not get to read the error.
"""


class EndingHttp(HttpToolsProtocol):
    """A connection that can be ended at any moment: in a head, in a body, while its answer is written, or idle."""

    most = MAX_CONNECTIONS
    """Maximum number of connections of a server in this process."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.line: Line | None = None
        self.idle_since: float | None = None
        self._others = connections_of(self)
        self._is_in_body = False
        self._is_deaf = False
        """Whether arriving bytes are thrown away, because the connection will be closed."""
        self._held = self._surplus = 0
        """Number of bytes of bodies that are kept, and of bytes after the last answer."""
        self._cycle_before: Any = None
        self._not_started: tuple[Any, Any] | None = None
        """The request whose body is not complete: the app has not been called."""

    # What the server's loop calls

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._others.forget(self)
        self._release()

    def shutdown(self) -> None:
        if before_draining := self.app_state.get("before_draining"):
            before_draining()  # requests that wait for something are answered now, so that nobody waits for them
        if self._not_started is not None:
            self.transport.close()
        else:
            super().shutdown()

    # What `connections` asks

    def unread_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def body_bytes(self) -> int:
        return self._held

    def end(self, reason: Reason) -> None:
        if reason is Reason.ROOM_NEEDED:
            self._make_room()
        elif reason is Reason.LATE_HEAD and self._is_in_head():
            self._refuse(OrderError(Code.REQUEST_TOO_SLOW, f"The headers were not complete within {HEAD_S:g} s."))
        elif reason is Reason.LATE_BODY:
            self._end_late_body()
        elif reason in (Reason.UNREAD, Reason.LEFT) or self.unread_bytes():
            self.transport.abort()
        else:
            self._others.forget(self)
            self.transport.close()

    def _make_room(self) -> None:
        self._release()
        if self.transport.is_closing():
            return
        if self.unread_bytes() or self._is_deaf:
            self.transport.abort()
            return
        if self._is_in_head() or (self._is_in_body and not self._is_answered()):
            self._refuse(OrderError(Code.CONNECTIONS_FULL, "Others needed the connection.", retry_after_s=1))
        self.transport.close()

    def _end_late_body(self) -> None:
        if self._is_answered():
            self._leave()
        elif self.flow.read_paused:  # we are the side that pauses; the time begins anew with the next bytes
            self._others.move(self, self._others.kept, self.loop.time())
        else:
            self._refuse(OrderError(Code.REQUEST_TOO_SLOW, f"The body was not complete within {BODY_S:g} s."))

    # What is under way

    def _is_answered(self) -> bool:
        """Whether every request here has its answer."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _is_in_head(self) -> bool:
        """Whether the headers of a request are incomplete. uvicorn makes a scope when they begin, and a cycle when they
        are complete.
        """
        return self.scope is not None and (self.cycle is None or self.scope is not self.cycle.scope)

    def _release(self) -> None:
        self._others.release(self._held)
        self._held = 0

    # What the client is told

    def _refuse(self, error: OrderError) -> None:
        """Answer the arriving request with `error`, after the requests before it, and read no more."""
        self._others.closed[Reason.REFUSED] += 1
        self._is_deaf = True
        if self._is_in_body and not self.cycle.response_complete:
            self._refuse_body(error)
        elif self._is_answered():
            self._answer(error)
            self._leave()
        else:
            self._leave_after_the_last()

    def _refuse_body(self, error: OrderError) -> None:
        before = self._cycle_before
        if before is not None and not before.response_complete:  # the refused request is still in the pipeline
            self.pipeline.popleft()
            self.cycle = before
            self._is_in_body = False
            self._leave_after_the_last()
            return
        started = self.cycle.response_started
        self._not_started = None
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        if started:
            self.transport.abort()
            return
        self._answer(error)
        self._leave()

    def _leave_after_the_last(self) -> None:
        """Answer the requests that are here, and read no more, even if uvicorn says that reading may go on."""
        self._others.move(self, self._others.kept, self.loop.time())
        self.flow.read_paused = False
        self.transport.pause_reading()

    def _answer(self, error: OrderError) -> None:
        document = problem(error, self.scope.get("path", "/") if self._is_in_body else "/")
        body = json.dumps(document).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after_s))
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[document["status"]] + lines + b"\r\n" + body)

    def close_after_answer(self) -> None:
        """Close, because the client or the answer asked for it. The client may still be sending a body."""
        if self._is_in_body:
            self._leave()
        else:
            self.transport.close()

    def _leave(self) -> None:
        """Close for sending after the last answer, but read what the client still sends: otherwise it would lose that
        answer.
        """
        self._is_deaf = True
        self._surplus = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._others.move(self, self._others.leaving, self.loop.time())
        else:
            self.transport.close()

    def _throw_away(self, count: int) -> None:
        """Count bytes that follow the last answer. A client that keeps on sending is cut."""
        self._surplus += count
        if self._surplus <= MAX_SURPLUS_BYTES:
            return
        if self.line is self._others.leaving:
            self.transport.abort()
        elif self._is_answered():
            self._leave()


class LastAnswer:
    """The transport for an answer after which uvicorn closes. uvicorn would close at once, and a client that is still
    sending its body would lose the answer.
    """

    def __init__(self, connection: EndingHttp) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.close_after_answer
