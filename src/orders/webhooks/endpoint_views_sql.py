"""Reads endpoints as people see them: how they are set up, and how they do."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from orders.errors import Code, OrderError
from orders.postgres.database import Connection, Cursor
from orders.postgres.rows import named_rows
from orders.principal import Seer
from orders.webhooks.model import Endpoint
from orders.webhooks.signing import SignatureKind
from orders.webhooks.tick_sql import ENDPOINT_COLUMNS, endpoint

COUNTED = 10_000
"""Maximum number of deliveries of one endpoint, the newest, that are counted for its health."""


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """How an endpoint does. `behind`: how many positions of the feed it has not passed."""

    state: str
    failing_since: datetime | None
    waiting: int
    behind: int
    lag_s: float
    delivered_24h: int
    failed_24h: int


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint as people see it, without its secrets."""

    id: UUID
    url: str
    description: str | None
    types: list[str]
    channel: str | None
    payload: str
    schema_version: int
    ordering: str
    concurrency: int
    kind: SignatureKind
    public_key: str | None
    old_secret_signs_until: datetime | None
    status: str
    disabled_reason: str | None
    position: int
    version: int
    created_at: datetime
    created_by: str
    health: EndpointHealth


IN_CHANNEL = "(%(channel)s::text IS NULL OR w.channel = %(channel)s)"
"""Condition that the seer may know of the endpoint `w`."""

IN_ITS_OWN = "(d.webhook_id, d.id) >= (w.id, 0) AND (d.webhook_id, d.id) <= (w.id, 9223372036854775807)"
"""Condition that the delivery `d` is the endpoint's, for statements that read some of them by their IDs. With `=`,
PostgreSQL may look for them among the deliveries of all endpoints. Written so, only one index has them in this order.
"""

# What was delivered is not counted beyond the newest: an endpoint can have millions.
_VIEW = f"""
    SELECT w.id, w.url, w.description, w.types, w.channel, w.payload, w.schema_version, w.ordering, w.concurrency,
        s.kind, s.public_key,
        (SELECT max(o.signs_until) FROM webhook_secrets o WHERE o.webhook_id = w.id AND o.signs_until > now())
            AS old_secret_signs_until,
        w.status, w.disabled_reason, w.position, w.version, w.created_at, w.created_by,
        CASE WHEN w.status = 'disabled' THEN 'disabled' WHEN w.failing_since IS NULL THEN 'ok' ELSE 'failing' END
            AS state,
        w.failing_since, backlog.waiting,
        greatest(coalesce((SELECT max(position) FROM events), 0) - w.position, 0) AS behind,
        greatest(coalesce(extract(epoch FROM now() - least(backlog.since, ahead.at)), 0), 0)::float8 AS lag_s,
        day.delivered_24h, day.failed_24h
    FROM webhooks w
    LEFT JOIN webhook_secrets s ON s.webhook_id = w.id AND s.signs_until IS NULL
    CROSS JOIN LATERAL (
        SELECT count(*) AS waiting, min(d.created_at) AS since FROM webhook_deliveries d
        WHERE d.webhook_id = w.id AND d.state IN ('waiting', 'sending')) backlog
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE n.state = 'delivered') AS delivered_24h,
               count(*) FILTER (WHERE n.state = 'failed') AS failed_24h
        FROM (SELECT d.state, d.last_at FROM webhook_deliveries d
              WHERE {IN_ITS_OWN} ORDER BY d.webhook_id DESC, d.id DESC LIMIT {COUNTED}) n
        WHERE n.last_at > now() - interval '24 hours') day
    LEFT JOIN LATERAL (
        SELECT o.at FROM events e JOIN order_events o ON o.order_id = e.order_id AND o.number = e.number
        WHERE e.position > w.position ORDER BY e.position LIMIT 1) ahead ON true
    WHERE {IN_CHANNEL}
"""
_HEALTH = ("state", "failing_since", "waiting", "behind", "lag_s", "delivered_24h", "failed_24h")


def list_endpoints(connection: Connection, seer: Seer) -> list[EndpointView]:
    """The endpoints that the seer may know of, the oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_VIEW} ORDER BY w.created_at, w.id", {"channel": seer.channel})
        return list(_views(cursor))


def find_endpoint(connection: Connection, webhook_id: UUID, seer: Seer) -> EndpointView:
    """The endpoint. Raises OrderError (404) if there is none that the seer may know of."""
    with connection.cursor() as cursor:
        return read_endpoint(cursor, webhook_id, seer)


def find_target(connection: Connection, webhook_id: UUID, seer: Seer) -> Endpoint:
    """The endpoint as it is sent to. Raises OrderError: it is unknown (404) or disabled (409)."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {ENDPOINT_COLUMNS}, status FROM webhooks w WHERE id = %(id)s::uuid AND {IN_CHANNEL}",
            {"id": str(webhook_id), "channel": seer.channel},
        )
        row = next(named_rows(cursor), None)
    if row is None:
        raise no_webhook(str(webhook_id))
    refuse_disabled(row["status"])
    return endpoint(row)


def require_endpoint(cursor: Cursor, webhook_id: UUID, seer: Seer) -> None:
    """Raise OrderError (404) if there is no such endpoint that the seer may know of."""
    parameters = {"id": str(webhook_id), "channel": seer.channel}
    cursor.execute(f"SELECT FROM webhooks w WHERE w.id = %(id)s::uuid AND {IN_CHANNEL}", parameters)
    if not cursor.rowcount:
        raise no_webhook(str(webhook_id))


def read_endpoint(cursor: Cursor, webhook_id: UUID, seer: Seer) -> EndpointView:
    """The endpoint. Raises OrderError (404) if there is none that the seer may know of."""
    cursor.execute(f"{_VIEW} AND w.id = %(id)s::uuid", {"id": str(webhook_id), "channel": seer.channel})
    view = next(_views(cursor), None)
    if view is None:
        raise no_webhook(str(webhook_id))
    return view


def _views(cursor: Cursor) -> Iterator[EndpointView]:
    for row in named_rows(cursor):
        health = EndpointHealth(**{name: row.pop(name) for name in _HEALTH})
        row |= {"id": UUID(row["id"]), "kind": SignatureKind(row["kind"])}
        yield EndpointView(**row, health=health)


def no_webhook(text: str) -> OrderError:
    """The error (404) for a webhook that there is not, or that whoever asks may not know of."""
    return OrderError(Code.WEBHOOK_NOT_FOUND, f"There is no webhook {text[:60]!r}.")


def refuse_disabled(status: str) -> None:
    """Raise OrderError (409) if this is the status of an endpoint to which nothing is sent."""
    if status == "disabled":
        raise OrderError(Code.WEBHOOK_DISABLED, "Nothing is sent to a webhook that is disabled. Enable it first.")
