"""Brokers that tests start, kill and read: NATS JetStream, RabbitMQ, and librdkafka's mock of a Kafka cluster.

None runs as root, and each has a folder and ports of its own.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aio_pika
import confluent_kafka
import nats
from cloudevents.core.bindings import http, kafka, rabbitmq
from nats.js.api import ConsumerConfig, DeliverPolicy

from tests.servers import _WHO

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
TOPICS = "orders"


@dataclass(frozen=True)
class Got:
    """A message, as `cloudevents` parses it: its attributes, its data, and the key that the broker keeps it by."""

    attributes: dict[str, Any]
    data: Any
    body: bytes
    key: str

    @property
    def id(self) -> str:
        return str(self.attributes["id"])

    @property
    def event(self) -> tuple[str, int]:
        order_id, _, number = self.id.rpartition("-")
        return order_id, int(number)


class Broker(Protocol):
    url: str

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def remove(self) -> None: ...

    async def read(self) -> list[Got]:
        """All messages so far, in the broker's order."""
        ...


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Process:
    """A program with a folder of its own; it is there when its port answers."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix="orders-broker-"))
        if _WHO:
            os.chown(self.folder, _WHO["user"], _WHO["group"])
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self, *words: object, **environment: object) -> None:
        given = {**os.environ, **{name: str(value) for name, value in environment.items()}}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, words)),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=given,
                start_new_session=True,
                **_WHO,
            )
        until = time.monotonic() + 90
        while not _answers(self.port):
            assert time.monotonic() < until, (self.folder / "log").read_text()[-2000:]
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9 of the program and its children."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Nats(Process):
    def __init__(self) -> None:
        super().__init__(free_port())
        self.url = f"nats://127.0.0.1:{self.port}/{TOPICS}"

    def start(self) -> None:
        program = Path(sys.executable).with_name("nats-server")
        self.launch(program, "-js", "-sd", self.folder / "js", "-a", "127.0.0.1", "-p", self.port)

    async def read(self) -> list[Got]:
        client = await nats.connect(f"nats://127.0.0.1:{self.port}")
        try:
            stream = client.jetstream()
            count = (await stream.stream_info(TOPICS)).state.messages
            config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
            reading = await stream.pull_subscribe(f"{TOPICS}.>", config=config)
            messages: list[Any] = []
            while len(messages) < count:
                messages += await reading.fetch(count - len(messages), timeout=10)
            return [_from_nats(message) for message in messages]
        finally:
            await client.close()


def _from_nats(message: Any) -> Got:
    event = http.from_binary_event(http.HTTPMessage(message.headers, message.data))
    assert message.headers["Nats-Msg-Id"] == event.get_id()
    assert message.subject == f"{TOPICS}.{event.get_type()}"
    return Got(event.get_attributes(), event.get_data(), message.data, str(event.get_attributes()["partitionkey"]))


class Rabbitmq(Process):
    """Without the plugins. The queue is there from the first start on."""

    def __init__(self) -> None:
        super().__init__(free_port())
        self.url = f"amqp://127.0.0.1:{self.port}/{TOPICS}"
        self._epmd = Process(free_port())
        self._distribution = free_port()

    def start(self) -> None:
        if self._epmd.process is None:
            self._epmd.launch("epmd", "-port", self._epmd.port)
        folder = self.folder
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        self.launch(
            RABBITMQ,
            HOME=folder,
            ERL_EPMD_PORT=self._epmd.port,
            RABBITMQ_NODENAME=f"orders{self.port}@localhost",
            RABBITMQ_DIST_PORT=self._distribution,
            RABBITMQ_MNESIA_BASE=folder / "mnesia",
            RABBITMQ_LOG_BASE=folder / "logs",
            RABBITMQ_LOGS="-",
            RABBITMQ_PID_FILE=folder / "pid",
            RABBITMQ_ENABLED_PLUGINS_FILE=folder / "plugins",
            RABBITMQ_CONFIG_FILE=folder / "rabbitmq",
        )

    def remove(self) -> None:
        super().remove()
        self._epmd.remove()

    async def bind(self) -> None:
        connection = await aio_pika.connect(self.url.removesuffix(f"/{TOPICS}"))
        async with connection, connection.channel() as channel:
            exchange = await channel.declare_exchange(TOPICS, aio_pika.ExchangeType.TOPIC, durable=True)
            queue = await channel.declare_queue(TOPICS, durable=True)
            await queue.bind(exchange, "order.*")

    async def read(self) -> list[Got]:
        connection = await aio_pika.connect(self.url.removesuffix(f"/{TOPICS}"))
        async with connection, connection.channel() as channel:
            queue = await channel.get_queue(TOPICS)
            messages = []
            while message := await queue.get(fail=False, no_ack=False):  # what is not acknowledged goes back
                messages.append(message)
            return [_from_rabbitmq(message) for message in messages]


def _from_rabbitmq(message: Any) -> Got:
    event = rabbitmq.from_binary_event(
        rabbitmq.RabbitMQMessage(dict(message.headers), message.content_type, message.body)
    )
    assert message.routing_key == event.get_type()
    assert message.message_id == event.get_id()
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    return Got(event.get_attributes(), event.get_data(), message.body, str(event.get_attributes()["partitionkey"]))


MOCK = """
import time, confluent_kafka
mock = confluent_kafka.Producer({"bootstrap.servers": "", "test.mock.num.brokers": 3, "log_level": 0})
brokers = mock.list_topics(timeout=30).brokers.values()
print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
time.sleep(100_000)
"""


class KafkaMock:
    """Three brokers of librdkafka's mock cluster in a process. It keeps its messages in memory, so it can't be killed
    and come back: `kill` stops the process, which leaves connections open that nobody answers.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", MOCK], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        with self._process.stdout as said:
            self._brokers = said.readline().strip()
        self.url = f"kafka://{self._brokers}/{TOPICS}"

    def start(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def remove(self) -> None:
        self._process.kill()
        self._process.wait()

    async def read(self) -> list[Got]:
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self._brokers,
                "group.id": f"reader-{time.monotonic_ns()}",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        partitions = consumer.list_topics(TOPICS, timeout=10).topics[TOPICS].partitions
        consumer.assign(
            [confluent_kafka.TopicPartition(TOPICS, n, confluent_kafka.OFFSET_BEGINNING) for n in partitions]
        )
        messages, ended = [], set()
        while len(ended) < len(partitions):
            message = consumer.poll(10)
            assert message is not None
            if message.error():
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                ended.add(message.partition())
            else:
                messages.append(message)
        consumer.close()
        return [_from_kafka(message) for message in messages]


def _from_kafka(message: Any) -> Got:
    event = kafka.from_binary_event(kafka.KafkaMessage(dict(message.headers()), message.key(), message.value()))
    return Got(event.get_attributes(), event.get_data(), message.value(), message.key().decode())


@contextlib.contextmanager
def started(broker: Any) -> Iterator[Any]:
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


def data_of(got: Got) -> Any:
    return json.loads(got.body)["data"]
