"""What can be done with webhooks, for the routes and for the command line.

No transaction is open while a name is looked up, or while anything is sent.
"""

import asyncio
import json
import secrets
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from orders.errors import Code, OrderError, invalid
from orders.order.idempotency import Answer, ClientKey, Keyed
from orders.order.idempotency import replay as replay_answer
from orders.order.keys_sql import KeyInUse
from orders.order.model import Author
from orders.postgres.database import Database
from orders.postgres.lanes import Lane
from orders.principal import Seer
from orders.webhooks import deliveries_sql, endpoint_views_sql, endpoints_sql
from orders.webhooks.deliveries_sql import AttemptView, DeliveryFilters, DeliveryView, Replay
from orders.webhooks.endpoint_views_sql import EndpointView
from orders.webhooks.endpoints_sql import EndpointChange, NewEndpoint, Remembered
from orders.webhooks.model import TEST, Endpoint, Message
from orders.webhooks.resolving import NotSent, Resolver
from orders.webhooks.sending import Sent
from orders.webhooks.signing import Sealing, SignatureKind, SigningKey, given_key, new_key
from orders.webhooks.urls import target_of

LOOK_UP_S = 5.0
"""Timeout for looking up a name when an endpoint is made. It is looked up again whenever something is sent."""


class Sends(Protocol):
    """What sends messages, and has the key that the secrets are encrypted with. None: ORDERS_SECRET is not set."""

    sealing: Sealing | None

    async def send_once(self, endpoint: Endpoint, message: Message) -> Sent | None:
        """Send this now, and record nothing. None: the endpoint's secrets can't be read."""
        ...


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request with an Idempotency-Key: its content, and the JSON of the answer to it, without secrets."""

    key: ClientKey
    content: bytes
    body: Callable[[EndpointView], str]


@dataclass(frozen=True, slots=True)
class Added:
    """An endpoint that was made, and its secret, which nobody can read later."""

    endpoint: EndpointView
    secret: str


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhooks of a database. `most`: how many there can be."""

    database: Database
    sends: Sends
    resolver: Resolver
    most: int

    async def add(
        self,
        new: NewEndpoint,
        secret: SigningKey,
        author: Author,
        request: Repeatable | None = None,
    ) -> Added | Answer:
        """Make an endpoint. A request that is repeated gets its first answer. Raises OrderError."""
        sealing = self._sealing()
        await self._require_allowed(new.url)
        remembered = None
        if request:
            key = request.key.stored(Keyed.WEBHOOK)
            remembered = Remembered(key, sealing.digest(request.content), request.body)
        made = await self.database.run(
            lambda c: endpoints_sql.add_endpoint(c, new, secret, sealing, self.most, author, remembered), Lane.CHANGES
        )
        if isinstance(made, KeyInUse):
            assert remembered
            return replace(replay_answer(made, remembered.fingerprint), status=201)
        return Added(made, secret.text)

    async def all(self, seer: Seer) -> list[EndpointView]:
        """The endpoints that the seer may know of, the oldest first."""
        return await self.database.run(lambda c: endpoint_views_sql.list_endpoints(c, seer), Lane.LISTS)

    async def find(self, webhook_id: UUID, seer: Seer) -> EndpointView:
        """The endpoint. Raises OrderError (404)."""
        return await self.database.run(lambda c: endpoint_views_sql.find_endpoint(c, webhook_id, seer), Lane.LISTS)

    async def change(
        self, webhook_id: UUID, change: EndpointChange, versions: Container[int] | None, author: Author, seer: Seer
    ) -> EndpointView:
        """Change an endpoint. `versions`: those that the author knows. Raises OrderError."""
        if "url" in change.values:
            await self.find(webhook_id, seer)  # nobody has a name looked up for a webhook that is not theirs
            await self._require_allowed(change.values["url"])
        return await self.database.run(
            lambda c: endpoints_sql.change_endpoint(c, webhook_id, change, versions, author, seer), Lane.CHANGES
        )

    async def rotate(self, webhook_id: UUID, keep_old_for: timedelta, author: Author, seer: Seer) -> Added:
        """Give the endpoint a new secret. The old one signs beside it for a while. Raises OrderError."""
        sealing = self._sealing()
        secret, view = await self.database.run(
            lambda c: endpoints_sql.rotate_secret(c, webhook_id, keep_old_for, sealing, author, seer), Lane.CHANGES
        )
        return Added(view, secret.text)

    async def delete(self, webhook_id: UUID, author: Author, seer: Seer) -> None:
        """Delete an endpoint, after its deliveries, which may be many. Raises OrderError (404).

        If it is broken off, the endpoint is disabled; deleting it again goes on.
        """
        while await self.database.run(
            lambda c: endpoints_sql.delete_some_deliveries(c, webhook_id, seer), Lane.CHANGES
        ):
            pass
        await self.database.run(lambda c: endpoints_sql.delete_endpoint(c, webhook_id, author, seer), Lane.CHANGES)

    async def test(self, webhook_id: UUID, seer: Seer) -> Sent:
        """Send the endpoint a message that is no event, now. Raises OrderError."""
        self._sealing()
        endpoint = await self.database.run(lambda c: endpoint_views_sql.find_target(c, webhook_id, seer), Lane.READS)
        sent = await self.sends.send_once(endpoint, _test_message(endpoint))
        if sent is None:
            detail = (
                "The secret of this webhook can't be read: ORDERS_SECRET is another one than when it was made. Set the "
                "earlier one, or rotate the webhook's secret."
            )
            raise OrderError(Code.SECRET_NOT_SET, detail)
        return sent

    async def deliveries(
        self, webhook_id: UUID, filters: DeliveryFilters, limit: int, seer: Seer
    ) -> tuple[list[DeliveryView], int | None]:
        """A page of the endpoint's deliveries, and the ID before which the next one begins. Raises OrderError (404)."""
        return await self.database.run(
            lambda c: deliveries_sql.list_deliveries(c, webhook_id, filters, limit, seer), Lane.LISTS
        )

    async def delivery(self, delivery_id: int, seer: Seer) -> tuple[DeliveryView, list[AttemptView]]:
        """The delivery, and its attempts. Raises OrderError (404)."""
        return await self.database.run(lambda c: deliveries_sql.find_delivery(c, delivery_id, seer), Lane.READS)

    async def redeliver(self, delivery_id: int, author: Author, seer: Seer) -> DeliveryView:
        """Deliver it again. Returns the new delivery. Raises OrderError."""
        return await self.database.run(lambda c: deliveries_sql.redeliver(c, delivery_id, author, seer), Lane.CHANGES)

    async def replay(
        self, webhook_id: UUID, asked: Replay, author: Author, seer: Seer, *, dry_run: bool = False
    ) -> int:
        """Deliver many events again. Returns how many. With `dry_run`: only count them. Raises OrderError."""
        return await self.database.run(
            lambda c: deliveries_sql.replay(c, webhook_id, asked, author, seer, dry_run=dry_run), Lane.CHANGES
        )

    def _sealing(self) -> Sealing:
        """What the secrets are encrypted with. Raises OrderError if there is nothing."""
        if self.sends.sealing is None:
            raise OrderError(Code.SECRET_NOT_SET, "ORDERS_SECRET is not set: the secrets of webhooks can't be kept.")
        return self.sends.sealing

    async def _require_allowed(self, url: str) -> None:
        """Raise OrderError (422) for a URL that nothing may be sent to. A name that can't be looked up now may be good
        later: each message is checked, too.
        """
        try:
            target = target_of(url)
        except ValueError as error:
            raise invalid("#/url", "url_invalid", f"url: it {error}.") from None
        try:
            async with asyncio.timeout(LOOK_UP_S):
                await self.resolver.addresses(target)
        except (NotSent, TimeoutError) as error:
            reason = error.error if isinstance(error, NotSent) else "not_resolved"
            if reason == "not_resolved" and target.is_https:
                return
            raise OrderError(Code.ADDRESS_NOT_ALLOWED, _REFUSALS[reason].format(target.host)) from None


_REFUSALS = {
    "address_not_allowed": "{} is, or leads to, an address that is not of the public internet.",
    "https_required": "Without https, only what is in ORDERS_WEBHOOK_ALLOW can be sent to, and {} is not.",
    "not_resolved": "{} can't be looked up now. Without https, it has to lead to what is in ORDERS_WEBHOOK_ALLOW.",
}


def key_for(kind: SignatureKind, given: str | None) -> SigningKey:
    """The secret that was given, or a new one. Raises OrderError (422)."""
    if given is None:
        return new_key(kind)
    if kind is not SignatureKind.V1:
        raise invalid("#/secret", "secret_invalid", "secret: an ed25519 key is made here; leave this out.")
    try:
        return given_key(given)
    except ValueError as error:
        raise invalid("#/secret", "secret_invalid", f"secret: it {error}.") from None


def _test_message(endpoint: Endpoint) -> Message:
    """A message that no delivery is of. Its ID is larger than any delivery's will ever be."""
    notice = json.dumps({"webhook_id": str(endpoint.id)})
    return Message(2**62 + secrets.randbits(61), endpoint.id, TEST, 1, datetime.now(UTC), notice=notice)
