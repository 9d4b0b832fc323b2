"""Break it at every step: a replica that sends to webhooks dies, or loses an answer, at each of its outside effects.

Afterwards another replica goes on, and the receiver has to have everything, each order's events in their order.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from orders.events.assign_sql import assign
from orders.events.feed import Positions
from orders.order.statuses import load_workflow
from orders.postgres.database import Connection, Database, DatabaseUnavailable, connect
from orders.webhooks import turn
from orders.webhooks.addresses import Allowed
from orders.webhooks.dispatch import Dispatch
from orders.webhooks.sending import Sender, Sent
from orders.webhooks.signing import Sealing
from tests.conftest import ask, empty
from tests.integration.sabotage import Died, How
from tests.integration.test_assigning import make_orders
from tests.integration.test_webhooks import events_of, require_in_order, states
from tests.receiver import OK, SECRET, Got, Receiver, add_webhook, answer

LATE_S = 0.05
RETRIES = (0.0,) * 10
LEASES_END = "UPDATE webhook_deliveries SET due_at = now() WHERE state = 'sending'"
"""Time passes, while nothing is under way."""


class Saboteur:
    """Counts the effects of a replica (a tick, a record, a request), and spoils the `at`-th. The first two are made on
    database threads.
    """

    def __init__(self, at: int, how: How) -> None:
        self.effects: list[str] = []
        self.is_dead = False
        self._at = at
        self._how = how

    def begin(self, name: str) -> bool:
        """Whether this one is to be spoilt."""
        self.require_alive()
        if self._how is not How.LATE or name == "POST":
            self.effects.append(name)
            if len(self.effects) == self._at:
                if self._how is How.DIE_BEFORE:
                    self._die()
                return True
        return False

    def end(self, name: str, is_it: bool) -> None:
        self.require_alive()
        if is_it and self._how is How.DIE_AFTER:
            self._die()
        if is_it and self._how is How.LOST and name != "POST":
            raise DatabaseUnavailable(f"the answer to {name} was lost")

    def require_alive(self) -> None:
        if self.is_dead:
            raise Died

    def _die(self) -> None:
        self.is_dead = True
        raise Died


class SpoiltSender(Sender):
    """Sends, unless it is spoilt."""

    def __init__(self, saboteur: Saboteur) -> None:
        super().__init__(Allowed(["127.0.0.1"]), 5.0, "1")
        self.saboteur = saboteur
        self.late: list[asyncio.Task[Sent]] = []

    async def send(self, *request: Any) -> Sent:
        is_it = self.saboteur.begin("POST")
        if is_it and self.saboteur._how is How.LATE:
            self.late.append(asyncio.create_task(self._send_late(*request)))
            await asyncio.sleep(0)
            return self._given_up(await super().send("ftp://nowhere", *request[1:]))
        sent = await super().send(*request)
        self.saboteur.end("POST", is_it)
        return self._given_up(sent) if is_it and self.saboteur._how is How.LOST else sent

    async def _send_late(self, *request: Any) -> Sent:
        await asyncio.sleep(LATE_S)
        return await super().send(*request)

    def _given_up(self, sent: Sent) -> Sent:
        return replace(sent, result=replace(sent.result, status=None, error="timed_out"))


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with contextlib.closing(connect(dsn)) as connection:
        yield connection


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orders.webhooks.dispatch.LOOK_S", 0.01)
    monkeypatch.setattr("orders.webhooks.dispatch.CLOSE_S", 0.0)
    monkeypatch.setattr("orders.webhooks.work.AGAIN_S", 0.0)


def two_events_of_two_orders(connection: Connection, receiver: Receiver) -> None:
    add_webhook(connection, receiver.url)
    make_orders(connection, 2, events=2)


def a_failure_in_between(connection: Connection, receiver: Receiver) -> None:
    add_webhook(connection, receiver.url, concurrency=1)
    make_orders(connection, 1, events=3)
    receiver.behave = _second_fails(receiver)


def without_ordering(connection: Connection, receiver: Receiver) -> None:
    add_webhook(connection, receiver.url, ordering="none")
    make_orders(connection, 1, events=4)


def _second_fails(receiver: Receiver) -> Callable[[Got], bytes]:
    return lambda _: answer(500) if len(receiver.got) == 2 else OK


SCENARIOS = [two_events_of_two_orders, a_failure_in_between, without_ordering]


@pytest.mark.parametrize("how", How)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
async def test_spoilt_at_any_step_everything_arrives(
    scenario: Callable[[Connection, Receiver], None], how: How, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = await run(scenario, Saboteur(0, how), connection, monkeypatch)
    assert set(effects) == ({"POST"} if how is How.LATE else {"tick", "record", "POST"})
    for at in range(1, len(effects) + 1):
        empty(connection)
        saboteur = Saboteur(at, how)
        try:
            await run(scenario, saboteur, connection, monkeypatch)
        except AssertionError as error:
            raise AssertionError(f"it {how.value} effect {at} of {saboteur.effects}: {error}") from error


async def run(
    scenario: Callable[[Connection, Receiver], None],
    saboteur: Saboteur,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """The scenario with a replica that is spoilt, and one that goes on. Returns the effects of the first."""
    async with Receiver() as receiver:
        scenario(connection, receiver)
        while (done := assign(connection)) is None or done.given or done.is_walking:
            pass
        expected = events_of(connection)
        with monkeypatch.context() as spoilt:
            for name in ("tick", "record"):
                spoilt.setattr(turn, name, _spoilt(getattr(turn, name), name, saboteur))
            sender = SpoiltSender(saboteur)
            await work(connection, sender, len(expected), saboteur)
            await asyncio.gather(*sender.late)
        effects = list(saboteur.effects)
        ask(connection, LEASES_END)
        await work(connection, Sender(Allowed(["127.0.0.1"]), 5.0, "1"), len(expected))
    assert states(connection) == {"delivered": len(expected)}
    if scenario is without_ordering:
        assert {one.event for one in receiver.got} == set(expected)
    else:
        require_in_order(receiver.got, expected)
    return effects


async def work(connection: Connection, sender: Sender, count: int, saboteur: Saboteur | None = None) -> None:
    """Let a replica send until all is delivered, or it is dead."""
    database = Database(connection.dsn, 4)
    dispatch = Dispatch(database, Positions(), load_workflow(None), sender, Sealing(SECRET), RETRIES)
    async with asyncio.timeout(30):
        while states(connection) != {"delivered": count} and not (saboteur and saboteur.is_dead):
            await dispatch.look_once()
            await asyncio.gather(*(task for _, task in dispatch._works.values()), return_exceptions=True)
            ask(connection, LEASES_END)
    await dispatch.close()
    await asyncio.to_thread(database.close)


def _spoilt(function: Callable[..., Any], name: str, saboteur: Saboteur) -> Callable[..., Any]:
    def wrapped(*arguments: Any) -> Any:
        is_it = saboteur.begin(name)
        result = function(*arguments)
        saboteur.end(name, is_it)
        return result

    return wrapped
