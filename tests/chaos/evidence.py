"""The evidence after a run: what the shoppers saw, the database, and the catalog's journal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psycopg2

from tests.chaos.http import Http
from tests.chaos.load import Shopper


@dataclass(frozen=True, slots=True)
class Order:
    """An order in the database. `lines` maps products to quantities. Times are seconds since 1970."""

    id: str
    customer_id: int
    cart_id: int | None
    status: str
    is_placed: bool
    updated_at: float
    lines: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Return:
    """Stock of an order that went back, or has to go back."""

    order_id: str
    product_id: int
    quantity: int
    is_done: bool


@dataclass(frozen=True, slots=True)
class ClaimState:
    """A product's claim from `at` on (seconds since 1970): intended, quiet (no `after`), or gone (no `lands_until`)."""

    at: float
    product_id: int
    batch_id: str | None
    before: int | None
    after: int | None
    lands_until: float | None


@dataclass(frozen=True, slots=True)
class Put:
    """A PUT in the catalog's journal."""

    id: int
    product_id: int
    quantity: int | None
    user_agent: str | None
    arrived_at: float
    landed_at: float | None
    before: int | None
    answered_at: float | None
    status: int | None


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event in the feed."""

    position: int
    order_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """The end of a run. The time when all was well again (seconds since 1970), the orders that were `Pending` then, and
    how long it took until there was nothing left to do (None: longer than we waited).
    """

    at: float
    pending: Sequence[str]
    clean_after_s: float | None
    allowed_s: float
    """The time allowed for work under way at that moment: the lease, the horizon, and a little for the work itself."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The input of the verdict.

    Stocks map products to quantities. `carried` maps (batch, product) to a quantity. `put_in` is stock that came from
    outside, and `contested` the products that were ever changed from outside. `sleeps` are the times from when to when
    some replica was frozen. `events` are all events (order, number) of the histories, and `feed` what a reader of the
    feed was told, with `feed_refusals`.
    """

    initial: Mapping[int, int]
    put_in: Mapping[int, int]
    contested: frozenset[int]
    final: Mapping[int, int]
    shoppers: Sequence[Shopper]
    orders: Sequence[Order]
    returns: Sequence[Return]
    drifted: Sequence[int]
    keys: Mapping[str, str | None]
    open_carts: frozenset[int]
    claims: Sequence[ClaimState]
    carried: Mapping[tuple[str, int], int]
    puts: Sequence[Put]
    catalog_killed_at: Sequence[float]
    sleeps: Sequence[tuple[float, float]]
    quiet: Quiet
    events: frozenset[tuple[str, int]]
    feed: Sequence[FeedEvent]
    feed_refusals: Sequence[str]


def save(evidence: Evidence, folder: Path) -> None:
    """Write the evidence for whoever has to find out what happened: a file per kind, a JSON document per line."""
    for name in ("shoppers", "orders", "returns", "claims", "puts", "feed"):
        with (folder / f"{name}.jsonl").open("w") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in getattr(evidence, name))


def ask(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())
    finally:
        connection.close()


def read_orders(dsn: str) -> list[Order]:
    """All orders, in every status."""
    rows = ask(
        dsn,
        """SELECT o.id::text, customer_id, cart_id, status, placed_at IS NOT NULL,
                  extract(epoch FROM updated_at)::float, array_agg(product_id), array_agg(quantity)
           FROM orders o JOIN order_items i ON i.order_id = o.id GROUP BY o.id ORDER BY o.id""",
    )
    return [Order(*row[:6], dict(zip(*row[6:], strict=True))) for row in rows]  # type: ignore[call-arg]


def read_events(dsn: str) -> frozenset[tuple[str, int]]:
    """The order and the number of every event."""
    return frozenset(ask(dsn, "SELECT order_id::text, number FROM order_events"))


def read_returns(dsn: str) -> list[Return]:
    """All stock that went back, or has to."""
    rows = ask(dsn, "SELECT order_id::text, product_id, quantity, returned_at IS NOT NULL FROM stock_returns")
    return [Return(*row) for row in rows]


def read_keys(dsn: str) -> dict[str, str | None]:
    """The order of each Idempotency-Key, if there is one."""
    return dict(ask(dsn, "SELECT key, order_id::text FROM idempotency_keys"))


def read_drifted(dsn: str) -> list[int]:
    """Products whose stock the service could not explain."""
    return [
        int(product_id) for (product_id,) in ask(dsn, "SELECT product_id FROM stock_record WHERE kind = 'in doubt'")
    ]


def read_claims(dsn: str) -> list[ClaimState]:
    """The claims' states that the witness wrote down, in order."""
    rows = ask(
        dsn,
        """SELECT extract(epoch FROM at)::float, product_id, batch_id::text, before, after,
                  extract(epoch FROM lands_until)::float FROM chaos.claims ORDER BY id""",
    )
    return [ClaimState(*row) for row in rows]


def read_carried(dsn: str) -> dict[tuple[str, int], int]:
    """The quantity of stock due back that each batch carried, per product."""
    rows = ask(dsn, "SELECT batch_id::text, product_id, sum(quantity)::bigint FROM chaos.carried GROUP BY 1, 2")
    return {(batch_id, product_id): quantity for batch_id, product_id, quantity in rows}


async def read_stock(http: Http, catalog_url: str) -> dict[int, int]:
    """The catalog's stock of each product."""
    reply = await http.send("GET", f"{catalog_url}/products", patience_s=30)
    return {int(product["id"]): int(product["quantity"]) for product in reply.body["products"]}


async def read_journal(http: Http, catalog_url: str) -> list[Put]:
    """Every PUT that reached the catalog."""
    puts: list[Put] = []
    names = [field.name for field in fields(Put)]
    while True:
        after = puts[-1].id if puts else 0
        page = (await http.send("GET", f"{catalog_url}/journal?after={after}", patience_s=30)).body["puts"]
        if not page:
            return puts
        puts += [Put(*(row[name] for name in names)) for row in page]


async def read_open_carts(http: Http, carts_url: str) -> frozenset[int]:
    """The IDs of the carts that are still to be ordered."""
    reply = await http.send("GET", f"{carts_url}/carts", patience_s=30)
    return frozenset(int(cart["id"]) for cart in reply.body["carts"] if cart["status"] == "Active")
