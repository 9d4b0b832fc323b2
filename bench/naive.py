"""The naive way, in which such services are often written: GET, check, GET and PUT for each line, then the order in one
commit.

FastAPI runs it on its thread pool. It doubles, loses and oversells. It is only here as a comparison.
"""

import os
from typing import Any

import requests
import uvicorn
from fastapi import FastAPI, HTTPException
from psycopg2.pool import ThreadedConnectionPool
from pydantic import BaseModel

TABLES = """
CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, customer_id bigint NOT NULL, status text NOT NULL);
CREATE TABLE IF NOT EXISTS order_items (id bigserial PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders (id),
                                        product_id bigint NOT NULL, quantity integer NOT NULL);
"""

CATALOG_URL = os.environ["CATALOG_URL"]
app = FastAPI()
pool = ThreadedConnectionPool(1, 40, os.environ["DATABASE_URL"])  # as many as FastAPI's pool has threads


class Item(BaseModel):
    """A line."""

    product_id: int
    quantity: int


class Order(BaseModel):
    """The body of a POST."""

    items: list[Item]


@app.post("/orders/{customer_id}", status_code=201)
def place_order(customer_id: int, order: Order) -> dict[str, Any]:
    """Take the stock line by line, then store the order."""
    for item in order.items:
        if get_product(item.product_id)["quantity"] < item.quantity:
            raise HTTPException(400, "Insufficient inventory")
        take_stock(item)
    return {"id": store(customer_id, order), "customer_id": customer_id, "status": "Ordered"}


def get_product(product_id: int) -> dict[str, Any]:
    """The product, read over a connection of its own."""
    return dict(requests.get(f"{CATALOG_URL}/products/{product_id}", timeout=30).json()["product_detail"])


def take_stock(item: Item) -> None:
    """Read the product and write it back with less stock."""
    product = get_product(item.product_id)
    product["quantity"] -= item.quantity
    requests.put(f"{CATALOG_URL}/products/{item.product_id}", json=product, timeout=30).raise_for_status()


def store(customer_id: int, order: Order) -> int:
    """Store the order and its items, in one commit."""
    connection = pool.getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO orders (customer_id, status) VALUES (%s, 'Ordered') RETURNING id", (customer_id,)
            )
            order_id = int(cursor.fetchone()[0])
            for item in order.items:
                cursor.execute(
                    "INSERT INTO order_items (order_id, product_id, quantity) VALUES (%s, %s, %s)",
                    (order_id, item.product_id, item.quantity),
                )
    finally:
        pool.putconn(connection)
    return order_id


def make_tables() -> None:
    """Make the tables if they are missing."""
    connection = pool.getconn()
    with connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
    pool.putconn(connection)


if __name__ == "__main__":
    make_tables()
    uvicorn.run(app, port=int(os.environ["PORT"]), log_config=None, access_log=False)
