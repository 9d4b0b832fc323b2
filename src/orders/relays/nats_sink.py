"""NATS JetStream: each event goes to the subject `orders.order.placed`, and is acknowledged once the stream has it."""

import asyncio
import contextlib
from collections.abc import Sequence

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from orders.relays.event import CONTENT_TYPE, RelayedEvent
from orders.relays.sink import CLOSE_S, PUBLISH_S, BrokerAway, acknowledged, reason
from orders.settings.relays import Target


class NatsSink:
    """A stream of JetStream. It is made if no stream has the subjects."""

    def __init__(self, target: Target) -> None:
        self._place = target.place
        credentials, at, _ = target.url.partition("://")[2].rpartition("@")
        self._servers = [f"{target.scheme}://{credentials}{at}{host}" for host in target.hosts]
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._gone = asyncio.Event()

    async def publish(self, events: Sequence[RelayedEvent]) -> None:
        """As `Sink.publish`. The stream leaves out an event that it got in the last two minutes."""
        try:
            async with asyncio.timeout(PUBLISH_S):
                stream = self._stream or await self._connect()
                answers = [await self._send(stream, event) for event in events]
            await self._unless_gone(answers)
        except Exception as error:  # the library raises several unrelated kinds
            raise BrokerAway(reason(error)) from error

    async def close(self) -> None:
        """As `Sink.close`."""
        client, self._client, self._stream = self._client, None, None
        if client is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await client.close()

    async def _connect(self) -> JetStreamContext:
        await self.close()
        gone = self._gone = asyncio.Event()

        async def closed() -> None:
            gone.set()

        # It must not connect again by itself: then it sends what waits, after what a new connection has sent.
        self._client = Client()
        await self._client.connect(
            self._servers,
            name="orders",
            allow_reconnect=False,
            connect_timeout=int(PUBLISH_S),
            error_cb=_ignore,
            closed_cb=closed,
            disconnected_cb=closed,
        )
        stream = self._client.jetstream(timeout=PUBLISH_S)
        try:
            await stream.find_stream_name_by_subject(f"{self._place}.order.placed")
        except NotFoundError:
            await stream.add_stream(name=self._place, subjects=[f"{self._place}.>"])
        self._stream = stream
        return stream

    async def _send(self, stream: JetStreamContext, event: RelayedEvent) -> "asyncio.Future[object]":
        headers = {**event.headers("ce-"), "content-type": CONTENT_TYPE, "Nats-Msg-Id": event.id}
        answer: asyncio.Future[object] = await stream.publish_async(  # type: ignore[assignment]
            f"{self._place}.{event.type}", event.body, wait_stall=PUBLISH_S, headers=headers
        )
        return answer

    async def _unless_gone(self, answers: Sequence["asyncio.Future[object]"]) -> None:
        """Wait for the answers. Raises ConnectionError if the connection ends: then they never come."""
        ended = asyncio.create_task(self._gone.wait())
        all_of_them = asyncio.create_task(acknowledged(answers))
        try:
            await asyncio.wait((ended, all_of_them), return_when=asyncio.FIRST_COMPLETED)
            if not all_of_them.done():
                raise ConnectionError("the connection ended")
            await all_of_them
        finally:
            ended.cancel()
            all_of_them.cancel()
            await asyncio.gather(ended, all_of_them, return_exceptions=True)


async def _ignore(error: Exception) -> None:
    """Errors are also raised where something is sent. The library would write a traceback for each."""
