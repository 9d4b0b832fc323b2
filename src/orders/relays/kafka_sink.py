"""Kafka: each event goes to a topic, to the partition of its order, and is acknowledged by all replicas in sync."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from orders.relays.event import CONTENT_TYPE, RelayedEvent
from orders.relays.sink import CLOSE_S, PUBLISH_S, BrokerAway, acknowledged, reason
from orders.settings.relays import Target

DEFAULT_PORT = 9092
"""The port of a broker whose address names none."""

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its errors are also raised; it logs each several times


class KafkaSink:
    """A topic. Whether it is made if it is not there, is the brokers' setting."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._servers = [host if ":" in host else f"{host}:{DEFAULT_PORT}" for host in target.hosts]
        self._producer: AIOKafkaProducer | None = None

    async def publish(self, events: Sequence[RelayedEvent]) -> None:
        """As `Sink.publish`."""
        try:
            async with asyncio.timeout(PUBLISH_S):
                producer = self._producer or await self._connect()
                answers = [await self._send(producer, event) for event in events]
            await acknowledged(answers)
        except Exception as error:  # the library raises several unrelated kinds
            raise BrokerAway(reason(error)) from error

    async def close(self) -> None:
        """As `Sink.close`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _end(producer)

    async def _connect(self) -> AIOKafkaProducer:
        await self.close()
        is_encrypted, has_user = self._target.scheme == "kafka+ssl", self._target.user is not None
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            client_id="orders",
            enable_idempotence=True,
            acks="all",
            request_timeout_ms=int(PUBLISH_S * 1000),
            security_protocol=("SASL_" if has_user else "") + ("SSL" if is_encrypted else "PLAINTEXT"),
            ssl_context=ssl.create_default_context() if is_encrypted else None,
            sasl_plain_username=self._target.user,
            sasl_plain_password=self._target.password,
        )
        try:
            await producer.start()
        except BaseException:
            await _end(producer)
            raise
        self._producer = producer
        return producer

    async def _send(self, producer: AIOKafkaProducer, event: RelayedEvent) -> "asyncio.Future[object]":
        headers = [(name, value.encode()) for name, value in event.headers("ce_").items()]
        answer: asyncio.Future[object] = await producer.send(
            self._target.place,
            event.body,
            key=event.order_id.encode(),
            headers=[("content-type", CONTENT_TYPE.encode()), *headers],
        )
        return answer


async def _end(producer: AIOKafkaProducer) -> None:
    """Stop the producer. What it still holds must not be sent: a new one sends it again, and goes on."""
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait((stopping,), timeout=CLOSE_S)
    if not stopping.done():
        stopping.cancel()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await producer._sender.close()
        with contextlib.suppress(Exception):
            await producer.client.close()
    await asyncio.gather(stopping, return_exceptions=True)
