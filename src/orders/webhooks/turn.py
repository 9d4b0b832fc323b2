"""One turn at the database for one endpoint: results are recorded, and what may be sent is taken and read.

In one go, because each way to the database counts. No transaction is open afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from orders.order.statuses import Workflow
from orders.postgres.database import Connection
from orders.webhooks.body_sql import bodies
from orders.webhooks.model import Endpoint, Message, Result
from orders.webhooks.record_sql import NOTHING_NEW, Recorded, record
from orders.webhooks.secrets_sql import signing_keys
from orders.webhooks.signing import Sealing, SigningKey
from orders.webhooks.tick_sql import read_enabled, tick


@dataclass(frozen=True, slots=True)
class Ready:
    """A message and all that is needed to send it. `body` is None if its event is not there any more."""

    message: Message
    endpoint: Endpoint
    keys: Sequence[SigningKey]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn brought. `behind_at`: the endpoint's position, if there are events that have no deliveries to it yet.

    `has_keys`: whether its secrets could be read. Without them nothing is taken.
    """

    ready: Sequence[Ready] = ()
    recorded: Recorded = NOTHING_NEW
    behind_at: int | None = None
    has_keys: bool = True


@dataclass(frozen=True, slots=True)
class Turns:
    """What turns need. `retries`: the pauses before each attempt, in seconds."""

    workflow: Workflow
    sealing: Sealing
    retries: Sequence[float]

    def take(self, connection: Connection, webhook_id: UUID, results: Sequence[Result], *, takes_more: bool) -> Turn:
        """Record these results. With `takes_more`: take what may be sent now."""
        recorded = record(connection, webhook_id, results, self.retries) if results else NOTHING_NEW
        if not takes_more:
            return Turn(recorded=recorded)
        if not (keys := signing_keys(connection, [webhook_id], self.sealing).get(webhook_id)):
            return Turn(recorded=recorded, has_keys=False)
        messages = tick(connection, webhook_id)
        present = read_enabled(connection, webhook_id)
        if present is None:  # it was disabled a moment ago: what was taken counts as lost
            return Turn(recorded=recorded)
        ready = self._read(connection, present.endpoint, messages, keys) if messages else ()
        return Turn(ready, recorded, present.position if present.is_behind else None)

    def prepare(self, connection: Connection, endpoint: Endpoint, message: Message) -> Ready | None:
        """What is needed to send this message, which is not taken. None: the endpoint's secrets can't be read."""
        keys = signing_keys(connection, [endpoint.id], self.sealing).get(endpoint.id)
        return self._read(connection, endpoint, [message], keys)[0] if keys else None

    def _read(
        self, connection: Connection, endpoint: Endpoint, messages: Sequence[Message], keys: Sequence[SigningKey]
    ) -> list[Ready]:
        found = bodies(connection, self.workflow, endpoint.payload, messages)
        return [Ready(message, endpoint, keys, found.get(message.delivery_id)) for message in messages]
