"""The sandbox's Shopping Cart Service: carts that are filled with POST, read with GET and closed with PUT."""

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orders.sandbox.catalog import open_sqlite
from orders.sandbox.faults import Misfortune

_SCHEMA = """
CREATE TABLE IF NOT EXISTS carts (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL, status TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS one_active_cart ON carts (customer_id) WHERE status = 'Active';
CREATE INDEX IF NOT EXISTS carts_of_customer ON carts (customer_id);
CREATE TABLE IF NOT EXISTS cart_items (
    id INTEGER PRIMARY KEY, cart_id INTEGER NOT NULL, product_id INTEGER NOT NULL, quantity INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS items_of_cart ON cart_items (cart_id);
"""


class SandboxCarts:
    """One active cart per customer. `inline_items`: whether GET gives a cart's items inside the cart."""

    def __init__(self, path: Path | None = None, inline_items: bool = True) -> None:
        self.misfortune = Misfortune()
        self._inline_items = inline_items
        self._sql = open_sqlite(path, _SCHEMA)

    def app(self) -> Starlette:
        """The service."""
        return Starlette(
            routes=[
                Route("/carts", self._list, methods=["GET"]),
                Route("/cart_items", self._list_items, methods=["GET"]),
                Route("/carts/{customer_id:int}", self._get, methods=["GET"]),
                Route("/carts/{customer_id:int}", self._post, methods=["POST"]),
                Route("/carts/{customer_id:int}", self._put, methods=["PUT"]),
                *self.misfortune.routes(),
            ]
        )

    async def _list(self, _: Request) -> Response:
        rows = self._sql.execute("SELECT id, customer_id, status FROM carts ORDER BY id").fetchall()
        return JSONResponse({"carts": [self._document(*row) for row in rows]})

    async def _list_items(self, request: Request) -> Response:
        return await self.misfortune.befall(request, lambda: JSONResponse({"items": self._items()}))

    async def _get(self, request: Request) -> Response:
        return await self.misfortune.befall(request, lambda: self._read(request.path_params["customer_id"]))

    async def _put(self, request: Request) -> Response:
        status = (await request.json()).get("status")
        customer_id = request.path_params["customer_id"]
        return await self.misfortune.befall(request, lambda: self._set_status(customer_id, status))

    async def _post(self, request: Request) -> Response:
        """Put a product (or a list of them) into the customer's cart; makes the cart where there is none."""
        body = await request.json()
        customer_id = request.path_params["customer_id"]
        cart_id = self._active(customer_id) or self._open(customer_id)
        for item in body if isinstance(body, list) else [body]:
            self._sql.execute(
                "INSERT INTO cart_items (cart_id, product_id, quantity) VALUES (?, ?, ?)",
                (cart_id, item["product_id"], item.get("quantity", 1)),
            )
        return JSONResponse({"cart": self._document(cart_id, customer_id, "Active", with_items=True)}, 201)

    def _read(self, customer_id: int) -> Response:
        cart_id = self._active(customer_id)
        if cart_id is None:
            return JSONResponse(f"no active cart for customer with id: {customer_id}")
        return JSONResponse({"cart": self._document(cart_id, customer_id, "Active", with_items=self._inline_items)})

    def _set_status(self, customer_id: int, status: Any) -> Response:
        if not isinstance(status, str):
            return JSONResponse({"error": "status must be a text"}, 422)
        self._sql.execute(
            "UPDATE carts SET status = ? WHERE customer_id = ? AND status = 'Active'", (status, customer_id)
        )
        return JSONResponse({"status": status})

    def _active(self, customer_id: int) -> int | None:
        row = self._sql.execute(
            "SELECT id FROM carts WHERE customer_id = ? AND status = 'Active'", (customer_id,)
        ).fetchone()
        return row[0] if row else None

    def _open(self, customer_id: int) -> int | None:
        return self._sql.execute("INSERT INTO carts VALUES (NULL, ?, 'Active')", (customer_id,)).lastrowid

    def _document(
        self, cart_id: int | None, customer_id: int, status: str, *, with_items: bool = False
    ) -> dict[str, Any]:
        items = {"items": self._items(cart_id)} if with_items else {}
        return {"id": cart_id, "customer_id": customer_id, "status": status, **items}

    def _items(self, cart_id: int | None = None) -> list[dict[str, int]]:
        rows = self._sql.execute(
            "SELECT id, cart_id, product_id, quantity FROM cart_items WHERE ? IS NULL OR cart_id = ? ORDER BY id",
            (cart_id, cart_id),
        )
        return [dict(zip(("id", "cart_id", "product_id", "quantity"), row, strict=True)) for row in rows]
