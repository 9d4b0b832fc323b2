"""Whatever is asked by whomever: what is found is what a plain Python list would give of the orders that they see."""

import asyncio
import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders.errors import Code, OrderError
from orders.finding.export import csv_chunk, ndjson_chunk
from orders.finding.filters import Filters, Position, Sort
from orders.finding.history import read_order_at
from orders.finding.lists_sql import count_orders, list_orders
from orders.finding.past_sql import orders_of_request, read_events, read_known, read_past
from orders.finding.query import FilterQuery, ListQuery, first_id
from orders.finding.service import LOAD, Finding
from orders.order.document import Document
from orders.order.document_sql import find_order, read_orders
from orders.order.statuses import load_workflow
from orders.postgres import database
from orders.postgres.database import Connection, Cursor, Database
from orders.postgres.functions import Function
from orders.principal import SEES_EVERYTHING, Seer
from tests.conftest import execute
from tests.e2e.test_lists import BEGIN, CHANNELS, CUSTOMERS, ORDERS, Made, expected, keep, queries

NOBODY = UUID(int=5)
WORKFLOW = load_workflow()
UNTIL = first_id(BEGIN.replace(year=2100))

bounds = {"customer_id": st.sampled_from([None, *CUSTOMERS, 5]), "channel": st.sampled_from([*CHANNELS, "none"])}
seers = st.builds(Seer, **bounds, sees_private=st.booleans())


def is_seen(seer: Seer, order: Made) -> bool:
    return seer.customer_id in (None, order.customer_id) and seer.channel in (None, order.channel)


def private_note(seer: Seer, order: Made) -> str | None:
    return f"private {order.number}" if seer.sees_private else None


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    """250 orders of three customers and three channels. Each has a private note, and two events."""
    keep(dsn, ORDERS)
    execute(
        dsn,
        """ALTER TABLE orders DISABLE TRIGGER USER;
           UPDATE orders SET public_note = 'public ' || number, private_note = 'old ' || number;
           INSERT INTO order_events (order_id, number, type, before, after, actor, note, request_id)
               SELECT id, 1, 'placed', '{"status": "Pending"}', NULL, 'customer:' || customer_id, 'mine', 'r-' || number
               FROM orders;
           INSERT INTO order_events (order_id, number, type, before, after, details, actor, note, request_id)
               SELECT id, 2, 'described', orders_attached(orders),
                      jsonb_set(orders_attached(orders), '{notes,private}', to_jsonb('private ' || number)),
                      CASE WHEN number % 2 = 0
                      THEN '{"cut": [{"pointer": "/after/notes/private", "characters": 999}], "more": 1}'::jsonb
                      ELSE '{"cut": [{"pointer": "/after/notes/private", "characters": 999}]}' END,
                      'key:shop/anna', 'hers', 'r-all' FROM orders;
           UPDATE orders SET version = 2, private_note = 'private ' || number;
           ALTER TABLE orders ENABLE TRIGGER USER""",
    )
    opened = database.connect(dsn)
    yield opened
    opened.close()
    execute(dsn, "TRUNCATE orders CASCADE")


def asked(query: dict[str, Any]) -> tuple[Filters, Sort]:
    texts = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in query.items()}
    sent = {name.replace("[", "_").rstrip("]"): value for name, value in texts.items() if "metadata" not in name}
    members = [f"{name[9:-1]}={value}" for name, value in query.items() if "metadata" in name]
    parsed = ListQuery.model_validate({**sent, "metadata": members})
    return parsed.to_filters(WORKFLOW), parsed.to_sort()


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(query=queries, seer=seers)
def test_lists_and_exports_have_what_the_seer_sees_and_the_filters_leave(
    connection: Connection, query: dict[str, Any], seer: Seer
) -> None:
    filters, sort = asked(query)
    wanted = [order for order in expected(query) if is_seen(seer, order)]
    found = listed(connection, seer, filters, sort, query["limit"])
    assert [order["id"] for order in found] == [order.id for order in wanted]
    shown = [(order["channel"], order["notes"]["private"], order["notes"]["public"]) for order in found]
    assert shown == [(order.channel, private_note(seer, order), f"public {order.number}") for order in wanted]
    assert count_orders(connection, seer, filters) == len(wanted)
    text, count, _ = csv_chunk(connection, seer, filters, None, UNTIL)
    lines = list(csv.DictReader(text.decode().splitlines()))
    assert {line["order_id"]: line["private_note"] or None for line in lines} == {
        order.id: private_note(seer, order) for order in wanted
    }
    text, count, _ = ndjson_chunk(connection, seer, filters, None, UNTIL)
    assert count == len(wanted)
    assert {order["id"]: order for order in map(json.loads, text.splitlines())} == {o["id"]: o for o in found}


def listed(connection: Connection, seer: Seer, filters: Filters, sort: Sort, limit: int) -> list[dict[str, Any]]:
    found: list[str] = []
    after: Position | None = None
    while True:
        page = list_orders(connection, seer, filters, sort, after, limit=limit)
        found += page.orders
        after = page.end
        if after is None:
            return list(map(json.loads, found))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(wanted=st.lists(st.tuples(st.sampled_from(ORDERS), seers), max_size=30))
def test_one_statement_gives_each_seer_what_it_sees(connection: Connection, wanted: list[tuple[Made, Seer]]) -> None:
    keys = [(UUID(order.id), seer) for order, seer in wanted]
    found = read_orders(connection, [*keys, (NOBODY, SEES_EVERYTHING), (NOBODY, Seer(customer_id=1))])
    assert found.keys() == {key for (order, seer), key in zip(wanted, keys, strict=True) if is_seen(seer, order)}
    for (order, seer), key in zip(wanted, keys, strict=True):
        if is_seen(seer, order):
            assert found[key].version == 2
            assert json.loads(found[key].json)["notes"]["private"] == private_note(seer, order)
        there = UUID(order.id) if is_seen(seer, order) else None
        assert find_order(connection, UUID(order.id), None, seer) == there
        assert find_order(connection, None, order.number, seer) == there


SEERS = [
    SEES_EVERYTHING,
    Seer(sees_private=False),
    Seer(customer_id=1, sees_private=False),
    Seer(customer_id=2, channel="web"),
    Seer(channel="shop", sees_private=False),
]


@pytest.mark.parametrize("seer", SEERS)
def test_the_history_of_a_foreign_order_does_not_exist(connection: Connection, seer: Seer) -> None:
    for order in ORDERS:
        events = read_events(connection, UUID(order.id), seer, 0, 10)
        known = read_known(connection, UUID(order.id), seer, None)
        if not is_seen(seer, order):
            assert (events, known) == (None, None)
            with pytest.raises(IndexError):  # nobody asks for the past of an order that is not known
                read_past(connection, UUID(order.id), seer, 1)
            continue
        assert events is not None
        assert known is not None
        first, second = map(json.loads, events.events)
        assert (first["actor"], first["note"], first["after"]) == (f"customer:{order.customer_id}", "mine", None)
        names = ("key:shop/anna", "hers") if seer.sees_private else ("shop", None)
        assert (second["actor"], second["note"]) == names
        if not seer.sees_private:
            assert second["details"] == (None if order.number % 2 else {"more": 1})
        else:
            assert "cut" in second["details"]
        notes = [second[side]["notes"] for side in ("before", "after")]
        hidden = [f"old {order.number}", f"private {order.number}"] if seer.sees_private else [None, None]
        assert [one["private"] for one in notes] == hidden
        assert {one["public"] for one in notes} == {f"public {order.number}"}
    everything = [UUID(order.id) for order in ORDERS if is_seen(seer, order)]
    assert orders_of_request(connection, "r-all", seer) == sorted(everything)


@pytest.mark.parametrize("seer", SEERS)
def test_an_order_as_it_was_is_seen_as_it_is_now(connection: Connection, dsn: str, seer: Seer) -> None:
    reader = Database(dsn, threads=1)

    async def as_of(order: Made, version: int) -> Any:
        try:
            return await read_order_at(reader, WORKFLOW, UUID(order.id), seer, version)
        except OrderError as error:
            return error.code

    async def check(order: Made) -> None:
        was, now = await as_of(order, 1), await as_of(order, 2)
        if not is_seen(seer, order):
            assert (was, now) == (Code.ORDER_NOT_FOUND, Code.ORDER_NOT_FOUND)
            return
        number, private = order.number, seer.sees_private
        assert was["notes"] == {"public": f"public {number}", "private": f"old {number}" if private else None}
        assert now["notes"] == {"public": f"public {number}", "private": f"private {number}" if private else None}

    async def check_all() -> None:
        for order in ORDERS[::5]:
            await check(order)

    asyncio.run(check_all())
    reader.close()


def test_reads_of_several_seers_share_statements(
    connection: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    call = Function.call

    def counted(self: Function, cursor: Cursor, parameters: Mapping[str, Any]) -> None:
        calls.append(1)
        call(self, cursor, parameters)

    monkeypatch.setattr(Function, "call", counted)
    reader = Database(dsn, threads=2)
    asking = [(order, seer) for order in ORDERS[:40] for seer in SEERS]

    async def read_all() -> list[Document | None]:
        finding = Finding(reader, WORKFLOW)
        return await asyncio.gather(*(finding.read_order(UUID(order.id), seer) for order, seer in asking))

    found = asyncio.run(read_all())
    reader.close()
    for (order, seer), document in zip(asking, found, strict=True):
        assert (document is not None) == is_seen(seer, order)
        assert document is None or json.loads(document.json)["notes"]["private"] == private_note(seer, order)
    assert len(calls) <= -(-len(asking) // LOAD) + 1  # the first call asks alone


def test_a_seer_that_sees_private_things_sees_them_for_its_own_orders_only(connection: Connection) -> None:
    order = next(order for order in ORDERS if order.channel == "web" and order.customer_id == 2)
    own = Seer(customer_id=2, channel="web")
    for seer in (replace(own, customer_id=1), replace(own, channel="shop")):
        assert read_orders(connection, [(UUID(order.id), seer)]) == {}
    assert len(read_orders(connection, [(UUID(order.id), own)])) == 1


def test_a_filter_for_a_channel_and_a_seer_of_another_find_nothing(connection: Connection) -> None:
    filters = FilterQuery(channel="web").to_filters(WORKFLOW)
    assert count_orders(connection, Seer(channel="web"), filters) == count_orders(connection, SEES_EVERYTHING, filters)
    assert count_orders(connection, Seer(channel="shop"), filters) == 0
