"""What a relay is made of: its setting, runs of events, and how long it waits for a broker."""

import builtins
import itertools
from typing import Any
from uuid import uuid4

import hypothesis
import pytest
from hypothesis import strategies

from orders.relays.event import RelayedEvent, runs
from orders.relays.outage import LONGEST_PAUSE_S, Outage
from orders.relays.sinks import sink_of
from orders.settings import SettingsError, load_settings
from orders.settings.relays import Broker, targets


def test_the_setting_names_brokers_of_all_kinds() -> None:
    nats, rabbitmq, kafka = targets(
        "nats://u:p%40@a:1,b:2/orders, second=amqps://host/shop/events,kafka+ssl://a,b:9/orders"
    )
    assert (nats.name, nats.kind, nats.user, nats.password, nats.hosts) == (
        "nats",
        Broker.NATS,
        "u",
        "p@",
        ("a:1", "b:2"),
    )
    assert (rabbitmq.name, rabbitmq.folder, rabbitmq.place) == ("second", "shop", "events")
    assert (kafka.kind, kafka.hosts, kafka.place) == (Broker.KAFKA, ("a", "b:9"), "orders")


def test_no_password_is_shown() -> None:
    (target,) = targets("nats://user:secret@host/orders")
    assert "secret" not in repr(target)
    assert target.digest == targets("nats://other:word@host/orders")[0].digest


@pytest.mark.parametrize(
    "text",
    [
        "secret://host/orders",
        "nats://user:secret@host",
        "nats://user:secret@host/",
        "nats://user:secret@/orders",
        "nats://user:secret@host/orders?x=1",
        "amqp://user:secret@a,b/orders",
        "nats://user:secret@a/orders,nats://b/orders",
        "secret",
    ],
)
def test_what_is_wrong_with_the_setting_is_said_without_quoting_it(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(orders_relays=text, _env_file=None)
    assert "ORDERS_RELAYS" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "library"), [("nats://h/o", "nats"), ("amqp://h/o", "rabbitmq"), ("kafka://h/o", "kafka")]
)
def test_a_missing_library_is_a_sentence_that_says_what_to_install(
    url: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name.startswith("orders.relays") and name.endswith("_sink"):
            raise ModuleNotFoundError(name="nats")
        return original(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=rf"pip install orders\[{library}\]"):
        sink_of(targets(url)[0])


ORDERS = [str(uuid4()) for _ in range(4)]


@hypothesis.given(strategies.lists(strategies.sampled_from(ORDERS)))
def test_a_run_has_one_event_of_each_order_and_runs_have_all_events_in_their_order(orders: list[str]) -> None:
    events = [RelayedEvent(n, f"{order}-{n}", "order.moved", order, {}, b"") for n, order in enumerate(orders)]
    found = list(runs(events))
    assert [event for run in found for event in run] == events
    assert all(len({event.order_id for event in run}) == len(run) > 0 for run in found)


def test_a_broker_that_is_away_is_told_once_a_minute_and_tried_ever_less() -> None:
    outage, now, told = Outage(), 0.0, []
    assert outage.end(now) is None
    while now < 600:
        told += [now] if outage.fail(now) else []
        assert 0.5 <= outage.due_at - now <= LONGEST_PAUSE_S
        now = outage.due_at
    assert told[0] == 0.0
    assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(told))
    assert len(told) >= 5
    assert outage.end(now) == now
    assert outage.end(now) is None
