"""The sandbox's Product Catalog Service: GET and PUT of products, in a SQLite file that a kill does not hurt."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orders.sandbox.faults import Misfortune

SAMPLES = (
    ("The Quiet Harbour", 18, 120),
    ("A Field Guide to Clouds", 24, 80),
    ("Letters from the Lighthouse", 15, 200),
    ("The Clockmaker's Garden", 21, 60),
    ("Bread, Salt, Patience", 32, 45),
    ("Maps of Places That Moved", 27, 30),
    ("Whispers of the Night", 10, 49),
    ("The Last Copy", 95, 1),
)


def open_sqlite(path: Path | None, schema: str) -> sqlite3.Connection:
    """The service's file (None: in memory), with its tables."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path or ":memory:", isolation_level=None)
    # WAL without a sync survives kill -9, which is what sandboxes die of; only a power cut could lose a write.
    connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {schema}")
    return connection


class SandboxCatalog:
    """Products by ID. `revision` grows with every write and is the ETag."""

    def __init__(self, path: Path | None = None, samples: bool = True) -> None:
        self.misfortune = Misfortune()
        self._sql = open_sqlite(
            path, "CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, fields TEXT, revision INTEGER)"
        )
        if samples and not self._sql.execute("SELECT 1 FROM products").fetchone():
            for name, price, quantity in SAMPLES:
                self._add({"name": name, "price": price, "quantity": quantity})

    def app(self) -> Starlette:
        """The service."""
        return Starlette(
            routes=[
                Route("/products", self._list, methods=["GET"]),
                Route("/products", self._create, methods=["POST"]),
                Route("/products/{id:int}", self._get, methods=["GET"]),
                Route("/products/{id:int}", self._put, methods=["PUT"]),
                Route("/products/{id:int}", self._delete, methods=["DELETE"]),
                *self.misfortune.routes(),
            ]
        )

    async def _list(self, _: Request) -> Response:
        rows = self._sql.execute("SELECT id, fields FROM products ORDER BY id")
        return JSONResponse({"products": [{"id": i, **json.loads(fields)} for i, fields in rows]})

    async def _create(self, request: Request) -> Response:
        """One product, or a list of them."""
        body = await request.json()
        products = [self._add(fields) for fields in (body if isinstance(body, list) else [body])]
        return JSONResponse({"products": products}, 201)

    def _add(self, fields: dict[str, Any]) -> dict[str, Any]:
        product_id = self._sql.execute(
            "INSERT INTO products VALUES (?, ?, 1)", (fields.pop("id", None), json.dumps(fields))
        ).lastrowid
        return {"id": product_id, **fields}

    async def _get(self, request: Request) -> Response:
        return await self.misfortune.befall(request, lambda: self._read(request.path_params["id"]))

    async def _put(self, request: Request) -> Response:
        fields = await request.json()
        product_id, if_match = request.path_params["id"], request.headers.get("if-match")
        return await self.misfortune.befall(request, lambda: self._write(product_id, fields, if_match))

    async def _delete(self, request: Request) -> Response:
        self._sql.execute("DELETE FROM products WHERE id = ?", (request.path_params["id"],))
        return Response(status_code=204)

    def _read(self, product_id: int) -> Response:
        row = self._sql.execute("SELECT fields, revision FROM products WHERE id = ?", (product_id,)).fetchone()
        if row is None:
            return _not_found(product_id)
        headers = {"ETag": f'"{row[1]}"'} if self.misfortune.faults.etags else {}
        return JSONResponse({"product_detail": {"id": product_id, **json.loads(row[0])}}, headers=headers)

    def _is_locked(self, product_id: int) -> bool:
        """A product with `"locked": true` can be read, and refuses every PUT."""
        row = self._sql.execute("SELECT fields FROM products WHERE id = ?", (product_id,)).fetchone()
        return bool(row and json.loads(row[0]).get("locked"))

    def _write(self, product_id: int, fields: Any, if_match: str | None) -> Response:
        if not isinstance(fields, dict) or type(fields.get("quantity")) is not int or fields["quantity"] < 0:
            return JSONResponse({"error": "quantity must be an integer, 0 or more"}, 422)
        if self._is_locked(product_id):
            return JSONResponse({"error": "this product is locked"}, 423)
        body = json.dumps({key: value for key, value in fields.items() if key != "id"})
        wanted = f" AND revision = {int(if_match.strip(chr(34)))}" if if_match and self.misfortune.faults.etags else ""
        changed = self._sql.execute(
            f"UPDATE products SET fields = ?, revision = revision + 1 WHERE id = ?{wanted}",  # noqa: S608 (an integer)
            (body, product_id),
        ).rowcount
        if changed:
            return JSONResponse({"product_detail": {"id": product_id, **fields}})
        exists = self._sql.execute("SELECT 1 FROM products WHERE id = ?", (product_id,)).fetchone()
        return JSONResponse({"error": "changed since you read it"}, 412) if exists else _not_found(product_id)


def _not_found(product_id: int) -> Response:
    """As the catalog in the contract does it: a 200 whose body is a plain string."""
    return JSONResponse(f"product with id: {product_id} was not found")
