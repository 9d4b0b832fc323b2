"""RabbitMQ: each event goes to a topic exchange, persistent, and is acknowledged by a publisher confirm."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange
from aio_pika.connection import make_url

from orders.relays.event import CONTENT_TYPE, RelayedEvent
from orders.relays.sink import CLOSE_S, PUBLISH_S, BrokerAway, acknowledged, reason
from orders.settings.relays import Target

for _library in ("aio_pika", "aiormq"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)  # their errors are also raised


class RabbitmqSink:
    """An exchange. It is made if it is not there."""

    def __init__(self, target: Target) -> None:
        self._place = target.place
        host, _, port = target.hosts[0].partition(":")
        self._url = make_url(
            host=host,
            port=int(port or (5671 if target.scheme == "amqps" else 5672)),
            login=target.user or "guest",
            password=target.password or "guest",
            virtualhost=target.folder or "/",
            ssl=target.scheme == "amqps",
        )
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None

    async def publish(self, events: Sequence[RelayedEvent]) -> None:
        """As `Sink.publish`. RabbitMQ acknowledges, and drops, what no queue is bound for."""
        try:
            async with asyncio.timeout(PUBLISH_S):
                exchange = self._exchange or await self._connect()
            await acknowledged(
                exchange.publish(_message(event), event.type, mandatory=False, timeout=PUBLISH_S) for event in events
            )
        except Exception as error:  # the library raises several unrelated kinds
            raise BrokerAway(reason(error)) from error

    async def close(self) -> None:
        """As `Sink.close`."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await connection.close()

    async def _connect(self) -> AbstractExchange:
        await self.close()
        # Not connect_robust: it would send again by itself, after what a new connection has sent.
        self._connection = connection = aio_pika.Connection(self._url, client_properties={"connection_name": "orders"})
        await connection.connect(timeout=PUBLISH_S)
        channel = await connection.channel(publisher_confirms=True)
        self._exchange = await channel.declare_exchange(self._place, aio_pika.ExchangeType.TOPIC, durable=True)
        return self._exchange


def _message(event: RelayedEvent) -> aio_pika.Message:
    return aio_pika.Message(
        event.body,
        headers=dict(event.headers("ce-")),
        content_type=CONTENT_TYPE,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=event.id,
        type=event.type,
        app_id="orders",
    )
