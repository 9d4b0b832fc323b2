"""The sandbox's Product Catalog Service: GET and PUT of products, in a SQLite file that a kill does not hurt.

`GET /journal` says which PUTs came, when, and what became of each.
"""

import json
import sqlite3
import time
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

_SCHEMA = """
CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, fields TEXT, revision INTEGER);
-- Every PUT that came; times are seconds since 1970. quantity null: none that can be stored; landed_at and before null:
-- it changed nothing, or not yet; answered_at null: it has no answer yet; status null: nobody waited for one any more.
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL, quantity INTEGER, if_match TEXT, user_agent TEXT,
    arrived_at REAL NOT NULL, landed_at REAL, before INTEGER, answered_at REAL, status INTEGER);
"""
_PUTS_PER_PAGE = 5000
_ENVELOPES = ("product_detail", "data", "product")  # as in the service's reader of catalogs, which this must not import


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
        self._sql = open_sqlite(path, _SCHEMA)
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
                Route("/journal", self._read_journal, methods=["GET"]),
                *self.misfortune.routes(),
            ]
        )

    async def _list(self, _: Request) -> Response:
        rows = self._sql.execute("SELECT id, fields FROM products ORDER BY id")
        return JSONResponse({"products": [{"id": i, **json.loads(fields)} for i, fields in rows]})

    async def _create(self, request: Request) -> Response:
        """One product, bare or in an envelope, or a list of them. One is answered in an envelope as well: its own."""
        body = await request.json()
        opened = [_open(each) for each in (body if isinstance(body, list) else [body])]
        if not all(isinstance(fields, dict) for _, fields in opened):
            return JSONResponse({"error": "a product is an object"}, 422)
        products = [self._add(dict(fields)) for _, fields in opened]
        as_one = {} if isinstance(body, list) else {opened[0][0]: products[0]}
        return JSONResponse({"products": products, **as_one}, 201)

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
        put_id = self._note_arrival(product_id, fields, if_match, request.headers.get("user-agent"))
        response = await self.misfortune.befall(request, lambda: self._write(put_id, product_id, fields, if_match))
        self._note_answer(put_id, None if await request.is_disconnected() else response.status_code)
        return response

    async def _delete(self, request: Request) -> Response:
        self._sql.execute("DELETE FROM products WHERE id = ?", (request.path_params["id"],))
        return Response(status_code=204)

    def _read(self, product_id: int) -> Response:
        row = self._sql.execute("SELECT fields, revision FROM products WHERE id = ?", (product_id,)).fetchone()
        if row is None:
            return _not_found(product_id)
        headers = {"ETag": _etag(row[1])} if self.misfortune.faults.etags else {}
        return JSONResponse({"product_detail": {"id": product_id, **json.loads(row[0])}}, headers=headers)

    def _write(self, put_id: int | None, product_id: int, fields: Any, if_match: str | None) -> Response:
        """Set the product's fields. One with `"locked": true` can be read, and refuses every PUT."""
        if not isinstance(fields, dict) or type(fields.get("quantity")) is not int or fields["quantity"] < 0:
            return JSONResponse({"error": "quantity must be an integer, 0 or more"}, 422)
        row = self._sql.execute("SELECT fields, revision FROM products WHERE id = ?", (product_id,)).fetchone()
        if row is None:
            return _not_found(product_id)
        stored, revision = json.loads(row[0]), row[1]
        if stored.get("locked"):
            return JSONResponse({"error": "this product is locked"}, 423)
        if if_match and if_match != _etag(revision):
            return JSONResponse({"error": "changed since you read it"}, 412)
        body = json.dumps({key: value for key, value in fields.items() if key != "id"})
        self._sql.execute("BEGIN")
        self._sql.execute("UPDATE products SET fields = ?, revision = revision + 1 WHERE id = ?", (body, product_id))
        self._note_landing(put_id, stored.get("quantity"))
        self._sql.execute("COMMIT")
        return JSONResponse({"product_detail": {"id": product_id, **fields}})

    # The journal ------------------------------------------------------------------------------------------------

    async def _read_journal(self, request: Request) -> Response:
        """A page of PUTs, in the order in which they came: those after `?after=ID`."""
        after = request.query_params.get("after", "0")
        if not after.isdecimal() or len(after) > 18:
            return JSONResponse({"error": "after is the id of a PUT"}, 422)
        cursor = self._sql.execute(
            "SELECT * FROM journal WHERE id > ? ORDER BY id LIMIT ?", (int(after), _PUTS_PER_PAGE)
        )
        names = [column[0] for column in cursor.description]
        return JSONResponse({"puts": [dict(zip(names, row, strict=True)) for row in cursor]})

    def _note_arrival(self, product_id: int, fields: Any, if_match: str | None, user_agent: str | None) -> int | None:
        quantity = fields.get("quantity") if isinstance(fields, dict) else None
        return self._sql.execute(
            "INSERT INTO journal (product_id, quantity, if_match, user_agent, arrived_at) VALUES (?, ?, ?, ?, ?)",
            (product_id, _storable(quantity), if_match, user_agent, time.time()),
        ).lastrowid

    def _note_landing(self, put_id: int | None, before: Any) -> None:
        self._sql.execute(
            "UPDATE journal SET landed_at = ?, before = ? WHERE id = ?", (time.time(), _storable(before), put_id)
        )

    def _note_answer(self, put_id: int | None, status: int | None) -> None:
        self._sql.execute("UPDATE journal SET answered_at = ?, status = ? WHERE id = ?", (time.time(), status, put_id))


def _open(document: Any) -> tuple[str, Any]:
    """What is in an envelope, and the envelope's key; a product without one would have had `data`."""
    if isinstance(document, dict) and len(document) == 1:
        ((key, inside),) = document.items()
        if key in _ENVELOPES and isinstance(inside, dict):
            return key, inside
    return "data", document


def _storable(quantity: Any) -> int | None:
    return quantity if type(quantity) is int and -(2**63) <= quantity < 2**63 else None


def _etag(revision: int) -> str:
    return f'"{revision}"'


def _not_found(product_id: int) -> Response:
    """As the catalog in the contract does it: a 200 whose body is a plain string."""
    return JSONResponse(f"product with id: {product_id} was not found")
