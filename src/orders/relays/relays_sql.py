"""Where each relay stands, who relays, and the events that come next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orders.finding.history import as_of
from orders.finding.past_sql import read_pasts
from orders.order.statuses import Workflow
from orders.postgres.database import Connection
from orders.postgres.rows import named_rows
from orders.relays.event import RelayedEvent, relayed
from orders.webhooks.body_sql import EVENTS_TO_SEND, RECEIVER

LEASE_S = 30.0
"""Time after which another replica may relay. A replica that ends well lets go at once."""

MOST = 200
"""Maximum number of events that are taken at once. They are published again if the process ends in between."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The next events, and the position up to which they were read. `moved_from`: the digest of the broker's address
    before, if it is another now.
    """

    events: Sequence[RelayedEvent]
    begin: int
    end: int
    moved_from: str | None = None


@dataclass(frozen=True, slots=True)
class Taker:
    """What takes events for a relay. `holder` is different in each process."""

    name: str
    url_hash: str
    holder: UUID
    workflow: Workflow
    source: str


def take(connection: Connection, taker: Taker) -> Batch | None:
    """Take the lease, or keep it, and read the next events. None: another replica has the lease.

    No transaction is open afterwards. Whoever calls has to stop publishing when LEASE_S are over.
    """
    _begin(connection, taker)
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, _parameters(taker))
        if (row := cursor.fetchone()) is None:
            return None
    position, before = row
    end, events = _read(connection, position, taker)
    return Batch(events, position, end, before if before != taker.url_hash else None)


def _begin(connection: Connection, taker: Taker) -> None:
    """Make the relay's row if it is not there. A new relay begins with the first event that is kept."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM relays WHERE name = %s", (taker.name,))
        if cursor.fetchone() is None:
            cursor.execute(
                """INSERT INTO relays (name, url_hash, position)
                   SELECT %(name)s, %(url_hash)s, forgotten FROM events_head ORDER BY events_head.position DESC LIMIT 1
                   ON CONFLICT DO NOTHING""",
                _parameters(taker),
            )


# A lease that is long enough is not written again: an idle relay writes nothing for half of it.
_TAKE = f"""
    WITH found AS (
        SELECT name, position, url_hash, holder = %(holder)s::uuid AND url_hash = %(url_hash)s
                   AND lease_until > now() + {LEASE_S / 2} * interval '1 second' AS is_mine
        FROM relays
        WHERE name = %(name)s
          AND (holder IS NULL OR holder = %(holder)s::uuid OR lease_until < now())),
    taken AS (
        UPDATE relays r
        SET holder = %(holder)s::uuid, lease_until = now() + {LEASE_S} * interval '1 second', url_hash = %(url_hash)s
        FROM found WHERE r.name = found.name AND found.is_mine IS NOT TRUE
          AND (r.holder IS NULL OR r.holder = %(holder)s::uuid OR r.lease_until < now())
        RETURNING r.position, found.url_hash)
    SELECT position, url_hash FROM taken
    UNION ALL SELECT position, url_hash FROM found WHERE is_mine
"""


def _parameters(taker: Taker) -> dict[str, Any]:
    return {"name": taker.name, "url_hash": taker.url_hash, "holder": str(taker.holder)}


def _read(connection: Connection, position: int, taker: Taker) -> tuple[int, list[RelayedEvent]]:
    """The position up to which was read, and the events. An order that is not there any more has none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT position, order_id, number FROM events WHERE position > %s ORDER BY position LIMIT %s",
            (position, MOST),
        )
        places = list(named_rows(cursor))
        if not places:
            return position, []
        parameters = {f"{name}s": [place[name] for place in places] for name in ("number", "position")}
        EVENTS_TO_SEND.call(cursor, {**parameters, "ids": [place["order_id"] for place in places]})
        found = dict(cursor.fetchall())
    versions = [(UUID(place["order_id"]), place["number"]) for place in places]
    pasts = read_pasts(connection, versions, RECEIVER)
    orders = {version: as_of(past, version[1], taker.workflow) for version, past in pasts.items()}
    events = [relayed(found[n], orders.get(versions[n - 1]), taker.source) for n in sorted(found)]
    return places[-1]["position"], events


def record(connection: Connection, taker: Taker, position: int) -> None:
    """Write that the broker has acknowledged all events up to a position. Nothing is written if another replica relays
    now: then it publishes them once more.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE relays SET position = %(position)s, error = NULL, at = now()
               WHERE name = %(name)s AND holder = %(holder)s::uuid
                 AND (position <> %(position)s OR error IS NOT NULL)""",
            {**_parameters(taker), "position": position},
        )


def let_go(connection: Connection, taker: Taker, error: str | None = None) -> None:
    """Let another replica relay from now on. `error`: why the broker is away."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE relays SET holder = NULL, lease_until = NULL, error = coalesce(%(error)s, error),
                                 at = CASE WHEN %(error)s IS NULL THEN at ELSE now() END
               WHERE name = %(name)s AND holder = %(holder)s::uuid""",
            {**_parameters(taker), "error": error},
        )


def is_well(connection: Connection, name: str) -> bool:
    """Whether the broker acknowledged what was published last."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM relays WHERE name = %s AND error IS NULL", (name,))
        return cursor.fetchone() is not None


def set_position(connection: Connection, taker: Taker, position: int) -> None:
    """Let the relay go on after a position. Events that a replica is just publishing do not move it."""
    _begin(connection, taker)
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE relays SET position = %(position)s, holder = NULL, lease_until = NULL, at = now()
               WHERE name = %(name)s""",
            {**_parameters(taker), "position": position},
        )


def forget(connection: Connection, name: str) -> bool:
    """Delete a relay's position. Returns whether there was one."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM relays WHERE name = %s", (name,))
        return cursor.rowcount > 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a relay stands: its position, the number of events behind it, and why its broker is away."""

    name: str
    position: int
    behind: int
    error: str | None


def read_standings(connection: Connection) -> list[Standing]:
    """How all relays stand."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT name, position, h.head - position AS behind, error
               FROM relays, (SELECT max(position) AS head FROM events_head) h ORDER BY name"""
        )
        return [Standing(**row) for row in named_rows(cursor)]
