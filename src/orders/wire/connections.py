"""The open connections of a server: decides which are let in, which have to go, and when.

Knows no HTTP library and no socket. Time is a parameter.
"""

import enum
import resource
from collections import Counter, OrderedDict
from typing import Protocol

from orders.settings import SettingsError

MAX_CONNECTIONS = 500
"""Maximum number of open connections, unless ORDERS_CONNECTIONS says otherwise. If all of them send at the same moment,
other requests wait for a tenth of a second. A gateway needs a few dozen.
"""

HEAD_S = 10.0
"""Timeout for the request line and all headers, from the first byte; for a new connection from when it was opened."""

BODY_S = 30.0
"""Timeout for the whole body, from when the headers are complete: 1 MB needs 35 kB/s, which a bad phone line has."""

IDLE_S = 75.0
"""Timeout for the next request on a connection that is kept open. It is longer than that of common load balancers (60
s), because the client has to close first: otherwise a request meets a closed connection.
"""

UNREAD_S = 30.0
"""Timeout for a client that reads nothing of the answer that waits for it."""

LEAVING_S = 2.0
"""How long a connection stays open after its last answer, so that a client which is still sending reads that answer."""

MAX_BODIES_BYTES = 32 * 1024 * 1024
"""Maximum size of all bodies that have arrived and are not answered, over all connections: 32 bulk requests at once."""

SMALL_BODY_BYTES = 16 * 1024
"""Maximum size of a body that is let in even when MAX_BODIES_BYTES is reached: an order of 200 lines fits."""

MAX_UNREAD_BYTES = 32 * 1024 * 1024
"""Maximum size of all answers that clients have not read, over all connections: eight pages of orders of the largest
size. Beyond it, clients that read nothing for STALLED_S are cut. Beyond twice as much, any client is cut, the slowest
first.
"""

STALLED_S = 1.0
"""How long a client reads nothing before it counts as stalled. Hiccups of a network are shorter."""


class Reason(enum.Enum):
    """The reason why we closed a connection. The value is for the log."""

    LATE_HEAD = "sent no complete headers in time"
    LATE_BODY = "sent no complete body in time"
    IDLE = "sent no further request in time"
    UNREAD = "did not read their answers"
    ROOM_NEEDED = "made room for others"
    TURNED_AWAY = "were turned away: all connections were busy"
    REFUSED = "sent what is no request, or too much"
    LEFT = "had been answered for the last time"


class Connection(Protocol):
    """The methods that a connection has to have."""

    line: "Line | None"
    idle_since: float | None
    """The time since which every request on it is answered, or None while one waits for its answer."""

    def unread_bytes(self) -> int:
        """Number of bytes that were written and that the client has not read."""

    def body_bytes(self) -> int:
        """Number of bytes of request bodies that are held until they are answered."""

    def end(self, reason: Reason) -> None:
        """Close it. With ROOM_NEEDED, close it at once."""


Line = OrderedDict[Connection, float]
"""Connections that wait for the same thing, each with the time since when. The longest wait is first."""


def connections_allowed(given: int | None) -> int:
    """Maximum number of connections: the setting or, without it, half of the files that this process may open, and at
    most MAX_CONNECTIONS. The other half is for the database, the neighbours and newcomers.

    Raises SettingsError if `given` is too many.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if given is None:
        return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(16, min(MAX_CONNECTIONS, files // 2))
    if files != resource.RLIM_INFINITY and given > files * 4 // 5:
        raise SettingsError(
            f"ORDERS_CONNECTIONS: {given} connections need more than the {files} files that this process may open; "
            "a fifth of them is for the database and the neighbours. Raise `ulimit -n`, or allow fewer."
        )
    return given


class Connections:
    """The connections of one server. This class decides; connections close themselves."""

    def __init__(self, most: int, idle_s: float = IDLE_S) -> None:
        self.heads, self.bodies, self.leaving = Line(), Line(), Line()
        self.kept = Line()
        """Connections that are being answered or idle. Requests don't move them, because that would cost each request
        time. sweep() sorts them.
        """
        self.closed: Counter[Reason] = Counter()
        self._most = most
        self._idle_s = idle_s
        self._open: set[Connection] = set()
        self._unread: dict[Connection, tuple[int, float]] = {}
        self._bodies_bytes = 0

    @property
    def count(self) -> int:
        """Number of open connections."""
        return len(self._open)

    @property
    def is_crowded(self) -> bool:
        """Whether more connections are open than the maximum, because all were busy when a newcomer came."""
        return len(self._open) > self._most

    def admit(self, newcomer: Connection, now: float) -> bool:
        """Let a new connection in. When the maximum is reached, an idle or slow connection makes room for it.

        When all are busy, up to an eighth more are let in. After that, returns False.
        """
        if len(self._open) >= self._most:
            self._make_room(now)
        if len(self._open) >= self._most + self._most // 8:
            return False
        self._open.add(newcomer)
        self.move(newcomer, self.heads, now)
        return True

    def move(self, connection: Connection, line: Line, now: float) -> None:
        """Note what the connection waits for from now on. Moving it to its own line changes nothing."""
        if connection.line is line:
            return
        if connection.line is not None:
            del connection.line[connection]
        connection.line = line
        line[connection] = now

    def forget(self, connection: Connection) -> None:
        """Forget a connection that is closed or about to be. Safe to repeat."""
        self._open.discard(connection)
        self._unread.pop(connection, None)
        if connection.line is not None:
            del connection.line[connection]
            connection.line = None

    def has_room_for(self, newcomer: Connection, count: int) -> bool:
        """Note `count` more bytes of the newcomer's body. Returns False if all bodies together are too large, and this
        one is not small.
        """
        self._bodies_bytes += count
        if self._bodies_bytes <= MAX_BODIES_BYTES or newcomer.body_bytes() <= SMALL_BODY_BYTES:
            return True
        largest = max(self.bodies, key=lambda other: other.body_bytes(), default=newcomer)
        if largest is newcomer or largest.body_bytes() <= newcomer.body_bytes():
            return False
        self._end(largest, Reason.ROOM_NEEDED)
        return self._bodies_bytes <= MAX_BODIES_BYTES

    def release(self, count: int) -> None:
        """Note that `count` bytes of bodies were answered, or are gone."""
        self._bodies_bytes -= count

    def wait_for_reader(self, connection: Connection, now: float) -> None:
        """Note that the client has to read before more is written."""
        self._unread[connection] = connection.unread_bytes(), now
        self._limit_unread(now)

    def has_read(self, connection: Connection) -> None:
        """Note that the client has read (nearly) all."""
        self._unread.pop(connection, None)

    def sweep(self, now: float) -> None:
        """End every connection whose time is over."""
        self._end_late(self.heads, now - HEAD_S, Reason.LATE_HEAD)
        self._end_late(self.bodies, now - BODY_S, Reason.LATE_BODY)
        self._end_idle(now - self._idle_s)
        self._end_late(self.leaving, now - LEAVING_S, Reason.LEFT)
        self._note_reading(now)
        self._end_stalled(now - UNREAD_S, down_to=0)
        self._limit_unread(now)

    def _make_room(self, now: float) -> None:
        victim = (
            next(iter(self.leaving), None)
            or next(iter(self.heads), None)
            or next((each for each in self.kept if each.idle_since is not None), None)
            or next((each for each, (_, since) in self._unread.items() if since <= now - STALLED_S), None)
            or next(iter(self.bodies), None)
        )
        if victim is not None:
            self._end(victim, Reason.ROOM_NEEDED)

    def _end_late(self, line: Line, since: float, reason: Reason) -> None:
        for connection, at in list(line.items()):
            if at > since:
                return
            self._end(connection, reason)

    def _end_idle(self, since: float) -> None:
        idle = [(each.idle_since, n) for n, each in enumerate(self.kept) if each.idle_since is not None]
        everyone = list(self.kept)
        for at, n in sorted(idle, reverse=True):
            self.kept.move_to_end(everyone[n], last=False)
            if at <= since:
                self._end(everyone[n], Reason.IDLE)

    def _note_reading(self, now: float) -> None:
        for connection, (before, since) in list(self._unread.items()):
            left = connection.unread_bytes()
            self._unread[connection] = left, (now if left < before else since)
            if left == 0:
                self.has_read(connection)

    def _limit_unread(self, now: float) -> None:
        self._end_stalled(now - STALLED_S, down_to=MAX_UNREAD_BYTES)
        self._end_stalled(now, down_to=2 * MAX_UNREAD_BYTES)

    def _end_stalled(self, since: float, down_to: int) -> None:
        """End connections that read nothing since `since`, the slowest first, until the rest is at most `down_to`
        bytes.
        """
        if (total := sum(size for size, _ in self._unread.values())) <= down_to:
            return
        for connection, (size, at) in sorted(self._unread.items(), key=lambda item: item[1][1]):
            if at > since or total <= down_to:
                return
            total -= size
            self._end(connection, Reason.UNREAD)

    def _end(self, connection: Connection, reason: Reason) -> None:
        self.closed[reason] += 1
        if reason in (Reason.ROOM_NEEDED, Reason.UNREAD, Reason.IDLE, Reason.LEFT):
            self.forget(connection)
        connection.end(reason)
