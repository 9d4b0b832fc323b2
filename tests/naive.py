"""The commonest small catalog and cart service: threads that share a database cursor. Calls that overlap are mixed up.

`python -m tests.naive PORT DSN` serves both at one port; the tables are in the schema `naive`.
"""

import sys
import time
from typing import Any

import psycopg2
import uvicorn
from fastapi import Body, FastAPI
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class)

QUERY_S = 0.005
"""Time between a query and the fetching of its row. Without it, one call in fifty that overlap is mixed up, or none."""

SCHEMA = """
    CREATE SCHEMA naive; SET search_path = naive;
    CREATE TABLE products (id serial PRIMARY KEY, name text, price integer, quantity integer);
    CREATE TABLE carts (id serial PRIMARY KEY, customer_id integer, status text);
    CREATE TABLE cart_items (id serial PRIMARY KEY, cart_id integer, product_id integer, quantity integer)
"""


class Busy(Cursor):
    """A cursor of a busy service: other threads run before this one fetches what it asked for."""

    def execute(self, *query: Any) -> None:
        super().execute(*query)
        time.sleep(QUERY_S)


def build(dsn: str) -> FastAPI:  # noqa: C901 (five routes)
    """Not one line of this is about concurrency, as is usual."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    cursor = connection.cursor(cursor_factory=Busy)
    cursor.execute("SET search_path = naive")
    app = FastAPI()

    @app.get("/products/{product_id}")
    def get_product(product_id: int) -> Any:
        cursor.execute("SELECT id, name, price, quantity FROM products WHERE id = %s", (product_id,))
        row = cursor.fetchone()
        if row is None:
            return f"product with id: {product_id} was not found"
        return {"product_detail": {"id": row[0], "name": row[1], "price": row[2], "quantity": row[3]}}

    @app.put("/products/{product_id}")
    def put_product(product_id: int, product: dict[str, Any] = Body()) -> Any:  # noqa: B008
        cursor.execute("SELECT id FROM products WHERE id = %s", (product_id,))
        if cursor.fetchone() is None:
            return f"product with id: {product_id} was not found"
        cursor.execute(
            "UPDATE products SET name = %s, price = %s, quantity = %s WHERE id = %s RETURNING id, quantity",
            (product["name"], product["price"], product["quantity"], product_id),
        )
        row = cursor.fetchone()
        return {"product_detail": {"id": row[0], "quantity": row[1]}}

    @app.get("/carts/{customer_id}")
    def get_cart(customer_id: int) -> Any:
        cursor.execute(
            "SELECT id, customer_id, status FROM carts WHERE customer_id = %s AND status = 'Active'", (customer_id,)
        )
        row = cursor.fetchone()
        if row is None:
            return f"no active cart for customer with id: {customer_id}"
        return {"cart": {"id": row[0], "customer_id": row[1], "status": row[2]}}

    @app.get("/cart_items")
    def get_items() -> Any:
        cursor.execute("SELECT id, cart_id, product_id, quantity FROM cart_items")
        rows = cursor.fetchall()
        return {"items": [{"id": r[0], "cart_id": r[1], "product_id": r[2], "quantity": r[3]} for r in rows]}

    @app.put("/carts/{customer_id}")
    def put_cart(customer_id: int, cart: dict[str, Any] = Body()) -> Any:  # noqa: B008
        cursor.execute("UPDATE carts SET status = %s WHERE customer_id = %s", (cart["status"], customer_id))
        return {"status": cart["status"]}

    return app


if __name__ == "__main__":
    uvicorn.run(build(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
