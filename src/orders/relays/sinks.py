"""The sink of each kind of broker. Its library is imported only if a relay needs it."""

from orders.relays.sink import Sink
from orders.settings import SettingsError
from orders.settings.relays import Broker, Target


def sink_of(target: Target) -> Sink:
    """The sink of this target. It does not connect yet. Raises SettingsError if its library is not installed."""
    try:
        return _sink_of(target)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"ORDERS_RELAYS: the relay {target.name!r} needs {error.name}, which is not installed: "
            f"pip install orders[{target.kind.value}]"
        ) from None


def _sink_of(target: Target) -> Sink:
    match target.kind:
        case Broker.NATS:
            from orders.relays.nats_sink import NatsSink  # noqa: PLC0415 (an optional dependency)

            return NatsSink(target)
        case Broker.RABBITMQ:
            from orders.relays.rabbitmq_sink import RabbitmqSink  # noqa: PLC0415

            return RabbitmqSink(target)
        case Broker.KAFKA:
            from orders.relays.kafka_sink import KafkaSink  # noqa: PLC0415

            return KafkaSink(target)
