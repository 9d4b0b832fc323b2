"""What each statement of a batch's life touches, row by row: all that it has to, and nothing of another batch.

There are two batches of the same shape in one database, `a` with the products 1 to 5 and `b` with 11 to 15. Calls are
for `a`, and name rows of `b` as well: only what the statement itself asks for keeps these as they are.
"""

import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from orders.order import keys_sql
from orders.order.keys_sql import Outcome
from orders.order.model import Author, Line
from orders.placing import closings_sql
from orders.postgres.database import Connection, connect
from orders.principal import SEES_EVERYTHING
from orders.stock import claim_sql, orphans_sql
from orders.stock.abandon_sql import abandon
from orders.stock.batch_lost_sql import BatchLost
from orders.stock.claim_sql import Due
from orders.stock.intend_sql import Intent, NewOrder, intend
from orders.stock.orphans_sql import Ended, Orphan
from orders.stock.plan import Adjustment
from orders.stock.settle_sql import Settlement, read_placed, settle
from tests.conftest import ask

BATCH = {"a": UUID(int=0xA), "b": UUID(int=0xB), "new": UUID(int=0xC)}
MINUTE = "interval '1 min'"
REFUSED = Outcome(400, "no", None)

KEYS = {
    "stock_claims": "product_id", "orders": "id", "order_items": "id", "idempotency_keys": "key",
    "stock_returns": "order_id || ' ' || product_id || ' ' || number", "cart_closings": "order_id",
    "order_events": "order_id", "stock_record": "product_id",
}  # fmt: skip
SHORT = {
    "stock_claims": "claim", "orders": "order", "idempotency_keys": "key", "stock_returns": "return",
    "cart_closings": "closing", "order_events": "event", "stock_record": "record", "order_items": "item",
}  # fmt: skip

Rows = dict[str, dict[str, Any]]


@pytest.fixture
def database(dsn: str) -> Iterator[Connection]:
    connection = connect(dsn)
    furnish(connection, "a", 0)
    furnish(connection, "b", 10)
    yield connection
    connection.close()


def order_id(name: str) -> UUID:
    return UUID(bytes=name.encode().rjust(16, b"\0"))


def furnish(c: Connection, batch: str, first: int) -> None:
    """Four orders of every kind, their products and keys; stock that is due back, carried by the batch and not."""
    for product, change in ((1, (5, 4)), (2, (7, 5)), (3, None), (4, (9, 8)), (5, (3, 3))):
        claim(c, first + product, batch, change)
    order(c, f"{batch}1", batch, "Pending", {first + 1: 1, first + 2: 2}, cart=first + 1)
    order(c, f"{batch}2", batch, "Pending", {first + 2: 1, first + 4: 1})
    order(c, f"{batch}3", batch, "Failed", {first + 1: 3, first + 4: 3})
    order(c, f"{batch}4", batch, "Ordered", {first + 1: 4, first + 2: 4})
    order(c, f"{batch}5", batch, "Pending", {first + 6: 1})
    for key in ("1", "2", "5"):
        ask(c, "INSERT INTO idempotency_keys VALUES (%s, '', %s)", (f"{batch}{key}", str(BATCH[batch])))
    done = "INSERT INTO idempotency_keys (key, fingerprint, batch_id, status, body) VALUES (%s, '', %s, 400, 'x')"
    ask(c, done, (f"{batch}-done", str(BATCH[batch])))
    for product in (1, 2, 3, 4):
        due(c, f"{batch}4", first + product, 1, carried_by=batch)
        due(c, f"{batch}4", first + product, 2, carried_by=batch, returned=True)
        due(c, f"{batch}4", first + product, 3)
        due(c, f"{batch}4", first + product, 4, returned=True)


def claim(c: Connection, product: int, batch: str | None, change: Any = None, lease: str = MINUTE) -> None:
    before, after = change or (None, None)
    owner = str(BATCH[batch]) if batch else None
    ask(
        c,
        f"""INSERT INTO stock_claims (product_id, batch_id, lease_until, before, after, lands_until)
            VALUES (%s, %s, CASE WHEN %s THEN now() + {lease} END, %s, %s, now() + {MINUTE})""",
        (product, owner, batch is not None, before, after),
    )


def order(c: Connection, name: str, batch: str, status: str, lines: dict[int, int], cart: int | None = None) -> None:
    placed, failure = status == "Ordered", "x" if status == "Failed" else None
    ask(
        c,
        """INSERT INTO orders (id, customer_id, status, total, batch_id, failure, placed_at, cart_id)
           VALUES (%s, 42, %s, 1, %s, %s, CASE WHEN %s THEN now() END, %s)""",
        (str(order_id(name)), status, str(BATCH[batch]), failure, placed, cart),
    )
    for product, quantity in lines.items():
        item(c, name, product, quantity)


def item(c: Connection, order: str, product: int, quantity: int) -> None:
    statement = "INSERT INTO order_items (order_id, product_id, quantity) VALUES (%s, %s, %s)"
    ask(c, statement, (str(order_id(order)), product, quantity))


def due(
    c: Connection, order: str, product: int, number: int, carried_by: str | None = None, *, returned: bool = False
) -> None:
    batch = str(BATCH[carried_by]) if carried_by else None
    ask(
        c,
        """INSERT INTO stock_returns (order_id, product_id, number, quantity, batch_id, returned_at)
           VALUES (%s, %s, %s, 1, %s, CASE WHEN %s THEN now() END)""",
        (str(order_id(order)), product, number, batch, returned),
    )


def rows(c: Connection) -> Rows:
    found: Rows = {}
    for table, key in KEYS.items():
        for name, row in ask(c, f"SELECT ({key})::text, to_jsonb(t)::text FROM {table} t"):
            found[f"{SHORT[table]} {readable(name)}"] = json.loads(row)
    return found


def readable(name: str) -> str:
    first, *rest = name.split()
    if len(first) == 36:
        first = UUID(first).bytes.strip(b"\0").decode()
    return " ".join((first, *rest))


class Touched:
    """The rows that have changed since, come or gone (None), by name."""

    def __init__(self, c: Connection) -> None:
        self._c, self._before = c, rows(c)

    def __call__(self) -> dict[str, Any]:
        now = rows(self._c)
        names = sorted(self._before.keys() | now.keys())
        return {name: now.get(name) for name in names if self._before.get(name) != now.get(name)}


def is_soon(c: Connection, time: str, within_s: float) -> bool:
    """Whether the time is from now on, and not further away than that."""
    statement = "SELECT %s::timestamptz BETWEEN now() - interval '3 s' AND now() + %s * interval '1 s'"
    return bool(ask(c, statement, (time, within_s))[0][0])


# CLAIM --------------------------------------------------------------------------------------------------------------


def test_a_claim_takes_what_is_free_and_only_that(database: Connection) -> None:
    claim(database, 21, None)
    claim(database, 22, None)
    claim(database, 23, None)
    ask(database, "UPDATE stock_claims SET lands_until = now() - interval '1 s' WHERE product_id IN (11, 21, 23)")
    due(database, "a4", 21, 1)
    due(database, "a4", 21, 2, returned=True)
    due(database, "a4", 21, 3, carried_by="b")
    due(database, "a4", 22, 1)
    keep_done = "INSERT INTO idempotency_keys (key, fingerprint, batch_id, status, body) VALUES ('k', '', %s, 400, 'x')"
    ask(database, keep_done, (str(BATCH["new"]),))
    touched = Touched(database)
    wanted = {"new": b"x", "a1": b"y", "k": b""}
    claimed = claim_sql.claim(database, BATCH["new"], 10, [1, 11, 21, 22, 31], wanted, {})
    assert claimed.products == {21, 31}
    assert claimed.keys == {"new"}
    assert claimed.keys_in_use.keys() == {"a1", "k"}
    assert [(d.product_id, d.number) for d in claimed.due] == [(21, 1)]
    assert touched().keys() == {"claim 21", "claim 31", "key new"}


def test_a_claim_that_is_given_up_takes_nothing_else_along(database: Connection) -> None:
    claim(database, 6, "a")
    touched = Touched(database)
    claim_sql.release(database, BATCH["a"], [1, 3, 13], ["a1", "a-done", "b1"])
    assert touched() == {"claim 3": None, "key a1": None}


def test_the_order_of_a_cart_is_the_customers_newest_that_came_from_one(database: Connection) -> None:
    ask(database, "UPDATE orders SET customer_id = 7 WHERE id = %s", (str(order_id("a4")),))
    assert claim_sql.order_of_cart(database, SEES_EVERYTHING, 7, None, 60) is None
    for name, customer, cart in (("c1", 7, 51), ("c2", 7, 52), ("c3", 7, None), ("c4", 8, 54)):
        order(database, name, "new", "Ordered", {1: 1}, cart)
        ask(database, "UPDATE orders SET customer_id = %s WHERE id = %s", (customer, str(order_id(name))))
    found = claim_sql.order_of_cart(database, SEES_EVERYTHING, 7, None, 60)
    assert found
    assert found.order_id == order_id("c2")
    ask(database, "UPDATE orders SET placed_at = now() - interval '2 min' WHERE customer_id = 7")
    assert claim_sql.order_of_cart(database, SEES_EVERYTHING, 7, None, 60) is None


def test_a_cart_whose_order_failed_has_none(database: Connection) -> None:
    order(database, "c1", "new", "Failed", {1: 1}, cart=9)
    assert claim_sql.claim(database, BATCH["new"], 10, [], {}, {(42, 9): SEES_EVERYTHING}).cart_orders == {}
    order(database, "c2", "new", "Pending", {1: 1}, cart=9)
    (found,) = claim_sql.claim(database, BATCH["new"], 10, [], {}, {(42, 9): SEES_EVERYTHING}).cart_orders.values()
    assert (found.order_id, found.is_placed) == (order_id("c2"), False)


def test_who_looks_sees_what_a_claim_would_and_claims_nothing(database: Connection) -> None:
    due(database, "a4", 21, 1)
    due(database, "a4", 21, 2, returned=True)
    due(database, "a4", 21, 3, carried_by="b")
    due(database, "a4", 22, 1)
    touched = Touched(database)
    found = claim_sql.look(database, [21, 31], {}, [])
    assert found.products == {21, 31}
    assert [(d.product_id, d.number) for d in found.due] == [(21, 1)]
    assert touched() == {}


def test_a_reference_is_that_of_an_order_that_did_not_fail(database: Connection) -> None:
    for name, status in (("c1", "Ordered"), ("c2", "Pending"), ("c3", "Failed"), ("c4", "Ordered")):
        order(database, name, "new", status, {1: 1})
        ask(database, "UPDATE orders SET external_reference = %s WHERE id = %s", (name, str(order_id(name))))
    found = claim_sql.reference_orders(database, ["c1", "c2", "c3", "nowhere"])
    assert {reference: (order.order_id, order.is_placed) for reference, order in found.items()} == {
        "c1": (order_id("c1"), True),
        "c2": (order_id("c2"), False),
    }


# Idempotency-Keys ---------------------------------------------------------------------------------------------------


def test_only_the_keys_that_are_asked_for_are_told(database: Connection) -> None:
    assert keys_sql.keys_in_use(database, ["a1", "nowhere"]).keys() == {"a1"}


def test_an_outcome_is_kept_for_a_new_key_and_for_ones_own_that_is_running(database: Connection) -> None:
    touched = Touched(database)
    for name, is_kept in (("new", True), ("a1", True), ("a-done", False), ("b1", False)):
        assert keys_sql.keep_outcome(database, name, b"", REFUSED, BATCH["a"]) is is_kept
    assert touched().keys() == {"key new", "key a1"}


# INTEND -------------------------------------------------------------------------------------------------------------


def intent(changes: dict[int, Adjustment], **more: Any) -> Intent:
    nothing: dict[str, Any] = {"orders": [], "due": [], "outcomes": {}, "freed_keys": [], "unreadable": []}
    return Intent(changes, **{**nothing, **more})


def test_an_intent_is_written_for_the_batch_and_what_it_does_not_need_is_free(database: Connection) -> None:
    order_of_two = NewOrder(order_id("n1"), 42, None, 3, ((Line(1, 1), "x", 1), (Line(3, 1), "y", 2)))
    carried = [Due(order_id("a4"), 1, 3, 1), Due(order_id("a4"), 2, 3, 1)]
    due(database, "b4", 1, 3)
    claim(database, 6, "a")
    touched = Touched(database)
    intend(
        database,
        BATCH["a"],
        1,
        intent(
            {1: Adjustment(50, 49), 2: Adjustment(60, 58), 4: Adjustment(9, 7), 5: Adjustment(1, 1)},
            orders=[order_of_two],
            due=carried,
            outcomes={"a1": REFUSED, "a-done": REFUSED, "b1": REFUSED},
            freed_keys=["a2", "a-done", "b2"],
            unreadable=[3],
        ),
    )
    found = touched()
    items = {name for name in found if name.startswith("item")}
    assert len(items) == 2
    assert found.keys() - items == {
        "claim 1", "claim 2", "claim 4", "claim 5", "claim 3", "claim 6", "order n1",
        "return a4 1 3", "return a4 2 3", "return a4 3 3", "key a1", "key a2",
    }  # fmt: skip
    assert [(found[f"claim {p}"]["before"], found[f"claim {p}"]["after"]) for p in (1, 2)] == [(50, 49), (60, 58)]
    assert found["claim 3"] is found["claim 6"] is found["key a2"] is None
    assert found["key a1"]["status"] == 400
    assert found["return a4 3 3"]["batch_id"] is None  # it is only tried later
    assert found["return a4 1 3"]["batch_id"] == str(BATCH["a"])


@pytest.mark.parametrize("missing", [11, 21])
def test_nothing_is_intended_for_a_product_that_is_not_the_batchs(database: Connection, missing: int) -> None:
    touched = Touched(database)
    with pytest.raises(BatchLost):
        intend(database, BATCH["a"], 1, intent({1: Adjustment(5, 4), missing: Adjustment(5, 4)}))
    assert touched() == {}


def test_nothing_is_intended_where_the_lease_of_one_product_is_over(database: Connection) -> None:
    ask(database, "UPDATE stock_claims SET lease_until = now() - interval '1 s' WHERE product_id = 2")
    touched = Touched(database)
    with pytest.raises(BatchLost):
        intend(database, BATCH["a"], 1, intent({1: Adjustment(5, 4), 2: Adjustment(5, 4)}))
    assert touched() == {}


# SETTLE -------------------------------------------------------------------------------------------------------------


def test_settle_ends_what_the_verdict_names_of_the_batch(database: Connection) -> None:
    claim(database, 6, "a", (5, 4))
    touched = Touched(database)
    author = Author("anna", "r")
    verdict = Settlement(
        placed=[order_id("a1")],
        failed={order_id("a2"): "order_failed"},
        landed=[1, 2, 5],
        quiet=[2, 12],
        refused=[3, 6],
        took=[1, 2, 5, 11],
        outcomes={"a2": REFUSED, "a-done": REFUSED, "b2": REFUSED},
        keys_of_placed={order_id("a1"): "a1"},
        freed_keys=["a5", "b5", "a-done"],
        has_failures=True,
        carries_due=True,
        hand_over=True,
        authors={order_id("a1"): author, order_id("a2"): author},
    )
    bodies = settle(database, BATCH["a"], 1, verdict)
    found = touched()
    assert bodies.keys() == {order_id("a1")}
    assert found.keys() == {
        "order a1", "order a2", "event a1", "event a2", "closing a1", "key a1", "key a2", "key a5",
        "claim 1", "claim 2", "claim 3", "claim 4", "claim 5", "claim 6", "record 1", "record 2",
        "return a2 2 0", "return a3 1 0", "return a4 1 1", "return a4 2 1", "return a4 3 1",
    }  # fmt: skip
    assert (found["order a1"]["status"], found["order a2"]["status"]) == ("Ordered", "Failed")
    assert (found["order a2"]["failure"], found["event a2"]["type"]) == ("order_failed", "failed")
    assert found["claim 1"] is found["claim 3"] is found["claim 5"] is found["key a5"] is None
    assert (found["claim 2"]["batch_id"], found["claim 2"]["after"]) == (None, None)
    assert is_soon(database, found["claim 4"]["lease_until"], 0.1)
    assert (found["key a1"]["status"], found["key a2"]["status"]) == (201, 400)
    assert (found["return a2 2 0"]["quantity"], found["return a3 1 0"]["quantity"]) == (1, 3)
    assert found["return a4 1 1"]["returned_at"]
    assert found["return a4 2 1"]["returned_at"]
    assert (found["return a4 3 1"]["returned_at"], found["return a4 3 1"]["batch_id"]) == (None, None)


@pytest.mark.parametrize(
    "verdict",
    [
        Settlement(landed=[1, 11]),
        Settlement(landed=[1, 21]),
        Settlement(refused=[11]),
        Settlement(placed=[order_id("a1"), order_id("b1")], landed=[1]),
        Settlement(placed=[order_id("a3")], landed=[1]),
        Settlement(placed=[order_id("a4")], landed=[1]),
        Settlement(failed={order_id("a1"): "x", order_id("nobody"): "x"}),
        Settlement(landed=[1], placed=[order_id("b1")]),
    ],
    ids=repr,
)
def test_a_verdict_on_anything_that_is_not_the_batchs_settles_nothing(
    database: Connection, verdict: Settlement
) -> None:
    touched = Touched(database)
    with pytest.raises(BatchLost):
        settle(database, BATCH["a"], 1, verdict)
    assert touched() == {}


def test_what_a_batch_has_placed_is_told_of_no_other_order(database: Connection) -> None:
    asked = [order_id(name) for name in ("a1", "a4", "b4")]
    assert read_placed(database, BATCH["a"], asked).keys() == {order_id("a4")}
    assert read_placed(database, BATCH["a"], [order_id("a1")]) == {}


# Undo ---------------------------------------------------------------------------------------------------------------


def test_an_undo_takes_all_of_the_batch_back_and_waits_for_no_other(database: Connection, dsn: str) -> None:
    other = connect(dsn)
    other.autocommit = False
    ask(other, "SELECT FROM stock_claims WHERE batch_id = %s FOR UPDATE", (str(BATCH["b"]),))
    touched = Touched(database)
    outcomes = {"a1": REFUSED, "a-done": REFUSED, "b1": REFUSED}
    undo = threading.Thread(target=abandon, args=(database, BATCH["a"], outcomes))
    undo.start()
    undo.join(10)
    has_waited = undo.is_alive()
    other.close()
    undo.join()
    assert not has_waited
    found = touched()
    assert found.keys() == {
        "key a1", "key a2", "key a5", *(f"order a{n}" for n in (1, 2, 5)), *(f"event a{n}" for n in (1, 2, 5)),
        *(f"return a4 {product} 1" for product in (1, 2, 3, 4)), *(f"claim {product}" for product in (1, 2, 3, 4, 5)),
    }  # fmt: skip
    assert (found["key a1"]["status"], found["key a2"], found["claim 1"]) == (400, None, None)
    assert found["return a4 1 1"]["batch_id"] is None
    assert found["order a1"]["status"] == "Failed"


# Recovery -----------------------------------------------------------------------------------------------------------


def lease_is_over(c: Connection, batch: str) -> None:
    ask(c, "UPDATE stock_claims SET lease_until = now() - interval '1 s' WHERE batch_id = %s", (str(BATCH[batch]),))


def test_only_batches_whose_lease_is_over_are_dead(database: Connection) -> None:
    assert orphans_sql.dead_batches(database, 10) == []
    lease_is_over(database, "b")
    assert orphans_sql.dead_batches(database, 10) == [BATCH["b"]]


def test_a_batch_that_is_alive_is_not_taken_over(database: Connection) -> None:
    """Its lease may have been another replica's a moment ago."""
    touched = Touched(database)
    assert orphans_sql.take_over(database, BATCH["a"], BATCH["new"], 10) == []
    assert touched() == {}


def test_what_is_taken_over_is_the_dead_batch_and_no_other(database: Connection) -> None:
    claim(database, 6, "b")
    lease_is_over(database, "a")
    lease_is_over(database, "b")
    touched = Touched(database)
    orphans = orphans_sql.take_over(database, BATCH["a"], BATCH["new"], 10)
    assert sorted(orphans, key=lambda o: o.product_id) == [
        Orphan(1, 5, 4, may_land=True), Orphan(2, 7, 5, may_land=True),
        Orphan(4, 9, 8, may_land=True), Orphan(5, 3, 3, may_land=True),
    ]  # fmt: skip
    found = touched()
    assert found.keys() == {
        *(f"claim {product}" for product in (1, 2, 3, 4, 5)), "key a1", "key a2", "key a5",
        *(f"return a4 {product} 1" for product in (1, 2, 3, 4)), *(f"order a{n}" for n in (1, 2, 3, 5)),
        *(f"event a{n}" for n in (1, 2, 5)), "return a5 6 0",  # its product's claim had ended: it had landed
    }  # fmt: skip
    assert found["claim 3"] is found["key a1"] is None
    assert {found[f"order a{n}"]["batch_id"] for n in (1, 2, 3, 5)} == {str(BATCH["new"])}
    assert found["order a1"]["status"] == "Failed"
    assert found["return a4 1 1"]["batch_id"] == str(BATCH["new"])


def test_the_same_value_is_intended_again_for_one_product(database: Connection) -> None:
    touched = Touched(database)
    orphans_sql.intend_again(database, BATCH["a"], 1, [1, 11])
    assert touched().keys() == {"claim 1"}


def test_claims_are_ended_as_recovery_found_them(database: Connection) -> None:
    for product in (6, 7):  # the first is refused as well, of the other nothing is known yet
        claim(database, product, "a", (5, 4))
    due(database, "a4", 7, 1, carried_by="a")
    item(database, "a3", 11, 1)
    item(database, "b3", 1, 1)
    touched = Touched(database)
    found_out = Ended(landed=[1, 5, 11], refused=[3, 6, 13], drifted={2: 20, 12: 20, 4: None})
    orphans_sql.end_claims(database, BATCH["a"], 1, found_out)
    found = touched()
    assert found.keys() == {
        *(f"claim {product}" for product in (1, 2, 3, 4, 5, 6)), "record 1", "record 2", "record 4", "return a3 1 0",
        *(f"return a4 {product} 1" for product in (1, 2, 3, 4)),
    }  # fmt: skip
    assert {found[f"claim {product}"]["batch_id"] for product in (1, 2, 3, 4, 5)} == {None}
    assert is_soon(database, found["claim 1"]["lands_until"], 1)
    assert [found[f"record {p}"]["kind"] for p in (1, 2, 4)] == ["moved", "in doubt", "in doubt"]
    assert [found[f"record {p}"]["found"] for p in (2, 4)] == [20, None]
    assert found["return a3 1 0"]["quantity"] == 3
    assert [bool(found[f"return a4 {p} 1"]["returned_at"]) for p in (1, 2, 3, 4)] == [True, True, False, True]
    assert found["return a4 3 1"]["batch_id"] is None


def test_what_has_served_is_forgotten(database: Connection) -> None:
    for product in (21, 22):
        claim(database, product, None)
    ask(database, "UPDATE stock_claims SET lands_until = now() - interval '1 s' WHERE product_id IN (1, 21)")
    for name, batch, hours, status in (
        ("old", "new", 3, 400), ("young", "new", 1, 400), ("dead", "new", 1, None), ("starting", "new", 0, None),
        ("busy", "a", 1, None),
    ):  # fmt: skip
        ask(
            database,
            """INSERT INTO idempotency_keys (key, fingerprint, batch_id, status, body, created_at)
               VALUES (%s, '', %s, %s, CASE WHEN %s IS NULL THEN NULL ELSE 'x' END, now() - %s * interval '1 h')""",
            (name, str(BATCH[batch]), status, status, hours),
        )
    for name, cart, minutes in (("a1", None, 11), ("a2", None, 9), ("a3", 3, 11)):
        closing(database, name, cart, queued=f"now() - interval '{minutes} min'")
    touched = Touched(database)
    orphans_sql.forget(database, 2, 60)
    assert touched() == {"claim 21": None, "key old": None, "key dead": None, "closing a1": None}


def closing(c: Connection, order: str, cart: int | None, queued: str = "now()", retry: str = "now()") -> None:
    statement = f"INSERT INTO cart_closings VALUES (%s, 42, %s, {queued}, {retry})"
    ask(c, statement, (str(order_id(order)), cart))


def test_stock_goes_back_to_products_that_nobody_holds(database: Connection) -> None:
    for product in (31, 32, 33, 34):
        due(database, "a4", product, 1, returned=product == 31, carried_by="new" if product == 32 else None)
    ask(database, f"UPDATE stock_returns SET retry_at = now() + {MINUTE} WHERE product_id = 33")
    assert orphans_sql.products_due_back(database, 10) == [34]


def test_a_cart_is_closed_when_it_is_due_and_told_what_its_order_has(database: Connection) -> None:
    closing(database, "a1", 1)
    closing(database, "a2", 2, retry=f"now() + {MINUTE}")
    (found,) = closings_sql.due_closings(database, 10, 60)
    assert (found.order_id, found.cart_id, found.lines) == (order_id("a1"), 1, {1: 1, 2: 2})
    assert closings_sql.due_closings(database, 10, 60) == []
    touched = Touched(database)
    closings_sql.closings_done(database, [order_id("a1")])
    assert touched() == {"closing a1": None}


def test_the_doctor_lists_what_nobody_could_end_and_nothing_else(database: Connection) -> None:
    assert orphans_sql.troubles(database) == []
    long_ago = "now() - interval '2 min'"
    ask(database, f"UPDATE stock_claims SET lands_until = {long_ago} WHERE product_id IN (1, 3)")  # 3 has no intent
    ask(database, f"UPDATE stock_returns SET queued_at = {long_ago} WHERE product_id = 2 AND number IN (1, 2)")
    ask(database, f"UPDATE stock_returns SET queued_at = {long_ago} WHERE product_id = 3 AND number IN (2, 4)")
    for product, *kinds in (
        (21, "in doubt"), (22, "in doubt", "accepted"), (23, "in doubt", "moved"), (24, "corrected", "in doubt"),
        (25, "moved"),
    ):  # fmt: skip
        for kind in kinds:
            record = "INSERT INTO stock_record (product_id, batch_id, kind, before, after) VALUES (%s, %s, %s, 2, 1)"
            ask(database, record, (product, str(BATCH["new"]), kind))
    found = [(trouble.product_id, trouble.kind) for trouble in orphans_sql.troubles(database)]
    assert sorted(found) == [
        (1, "in doubt"), (2, "not taken back"), (21, "drifted"), (23, "drifted"), (24, "drifted"),
    ]  # fmt: skip
