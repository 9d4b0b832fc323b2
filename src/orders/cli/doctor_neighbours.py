"""Checks that CATALOG_URL and CART_URL lead to a catalog and a cart service. If not, says where they lead.

It only sends GET, one at a time: a doctor changes nothing, and some neighbours can't take two calls at once.
"""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError

from orders.neighbours.carts import Carts
from orders.neighbours.catalog import Catalog
from orders.neighbours.neighbour import Found, Neighbour
from orders.neighbours.reply import MalformedReply, NoAnswer, NotSent, Reply
from orders.settings.address import shown

_NOWHERE = "/orders-doctor-asks-for-what-nobody-has"

_GUESSES = (1, 2, 3, 4, 5)
"""IDs of products that are tried after the known ones: most catalogs begin with them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    is_well: bool
    what: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """What to request from one kind of neighbour, and how to name it to a person."""

    setting: str
    other_setting: str
    collection: str
    thing: str
    shape: str
    option: str


_CATALOG = _Kind("CATALOG_URL", "CART_URL", "products", "product", "a product (name, price, quantity)", "--product")
_CARTS = _Kind("CART_URL", "CATALOG_URL", "carts", "cart of customer", "a cart (id, status)", "--customer")

_Read = Callable[[int], Awaitable[object | None]]


async def check_catalog(client: Client, url: str, known: Sequence[int], named: int | None) -> Finding:
    """Check CATALOG_URL. `known`: products that the catalog should have. `named`: a product that it has, as a person
    says.
    """
    asked = [named] if named is not None else list(dict.fromkeys((*known, *_GUESSES)))
    return await _Place(client, url, _CATALOG).examine(asked, is_named=named is not None)


async def check_carts(client: Client, url: str, known: Sequence[int], named: int | None) -> Finding:
    """Check CART_URL. `known`: customers. `named`: a customer with an active cart, as a person says."""
    asked = [named] if named is not None else list(dict.fromkeys((*known, 1)))
    return await _Place(client, url, _CARTS).examine(asked, is_named=named is not None)


class _Place:
    """An address that should be a neighbour's."""

    def __init__(self, client: Client, url: str, kind: _Kind) -> None:
        self._client = client
        self._url = url
        self._kind = kind
        self._neighbour = Neighbour("It", url, client, 9, 1)
        self._label = f"{kind.setting} ({shown(url)})"

    async def examine(self, asked: Sequence[int], *, is_named: bool) -> Finding:
        """Request one thing after the other until one is there, and judge."""
        for number in asked:
            try:
                found = await self._read(self._neighbour)(number)
            except (NotSent, NoAnswer) as error:
                return self._bad(f"{error}. See whether it runs, and whether this is its address.")
            except MalformedReply as error:
                return await self._wrong_shape(number, str(error))
            if found is not None:
                return self._well(f"GET {self._path(number)} gave {self._kind.shape}, as the contract says.")
        try:
            return await self._not_there(asked, is_named)
        except (NotSent, NoAnswer, MalformedReply) as error:
            return self._bad(f"has no {self._kind.thing} {_words(asked)}, and then: {error}.")

    def _read(self, neighbour: Neighbour) -> _Read:
        return Catalog(neighbour).read if self._kind is _CATALOG else Carts(neighbour).read

    def _path(self, number: int) -> str:
        return f"/{self._kind.collection}/{number}"

    def _well(self, what: str) -> Finding:
        return Finding(True, f"{self._label}: {what}")

    def _bad(self, what: str) -> Finding:
        return Finding(False, f"{self._label}: {what}")

    # It answers, but not with the right thing --------------------------------------------------------------------

    async def _wrong_shape(self, number: int, why: str) -> Finding:
        path = self._path(number)
        expected = f"GET {path}: expected 200 with {self._kind.shape}, saw"
        try:
            reply = await _look(self._neighbour, path)
        except (NotSent, NoAnswer, MalformedReply) as error:
            return self._bad(f"{expected} this: {error}.")
        return self._bad(f"{expected} {await self._describe(path, reply, why)}")

    async def _describe(self, path: str, reply: Reply, why: str) -> str:
        setting = self._kind.setting
        if reply.status in (401, 403):
            return (
                f"{reply.status}: it needs a login. Put user and password into {setting} (http://user:password@host, "
                "sent as HTTP Basic); if they are there already, they are not accepted."
            )
        if 300 <= reply.status < 400:
            return (
                f"{reply.status}, a redirect to {await self._target(path)}. Redirects are not followed, because a PUT "
                f"has to reach the address that is set: set {setting} to where it leads."
            )
        if reply.body.lstrip()[:1] == b"<":
            return (
                f"{reply.status} with a web page (HTML or XML). This is a site, a login page or a proxy; set {setting} "
                "to the address of the API."
            )
        return f"{reply.status}, but {why}. See whether {setting} is the address of the right service."

    async def _target(self, path: str) -> str:
        try:
            response = await self._client.get(f"{self._url}{path}").build().send()
            return shown((response.get_header("location") or "an address that it does not name").partition("?")[0])
        except (PyreqwestError, ValueError):
            return "an address that can't be read"

    # It has none of what was asked for -----------------------------------------------------------------------------

    async def _not_there(self, asked: Sequence[int], is_named: bool) -> Finding:
        kind = self._kind
        absent = f"has no {kind.thing} {_words(asked)}"
        if (parent := await self._parent(asked)) is not None:
            return self._bad(
                f"{absent}, but the address above has: {kind.setting} must not end in /{kind.collection}, which is "
                f"added for each call. Set it to {shown(parent)}"
            )
        if await self._knows_the_way(asked[0]):
            if is_named and kind is _CATALOG:
                return self._bad(f"{absent}. It answers as the contract says.")
            hint = f"; to see one, name it: `orders doctor {kind.option} N`" if kind is _CATALOG else ""
            return self._well(f"answers as the contract says; {absent}{hint}.")
        if (other := await self._other()) is not None:
            return self._bad(f"{absent}, and {other}. Are {kind.setting} and {kind.other_setting} exchanged?")
        there = "with an active cart" if kind is _CARTS else "that exists"
        return self._bad(
            f"answers 404 to everything: {absent}, and an address that nobody has gets the same answer. So nothing "
            f"shows that {kind.collection} are there. See whether a part of the path is missing or too much; name one "
            f"{there} to be certain: `orders doctor {kind.option} N`."
        )

    async def _parent(self, asked: Sequence[int]) -> str | None:
        """The address without the collection at its end, if that is the right one."""
        above, slash, last = self._url.rpartition("/")
        if not slash or last.lower() != self._kind.collection:
            return None
        neighbour = Neighbour("It", above, self._client, 9, 1)
        for number in asked:
            reply = await _look(neighbour, self._path(number))
            if reply.status == 200 and isinstance(_document(reply), str | dict):
                return above
        return None

    async def _knows_the_way(self, number: int) -> bool:
        """Whether a "not found" is about the thing, and not about the address: at a wrong address the answer differs.

        The contract's other way to say "not found" is a text as the document.
        """
        path = self._path(number)
        reply, nowhere = await _look(self._neighbour, path), await _look(self._neighbour, _NOWHERE)
        if _without(path, reply) != _without(_NOWHERE, nowhere):
            return True
        return self._kind is _CARTS and await _has_cart_items(self._neighbour)

    async def _other(self) -> str | None:
        """A sentence if the address leads to the other neighbour, or None."""
        if self._kind is _CATALOG:
            is_other, path = await _has_cart_items(self._neighbour), "/cart_items"
            if not is_other:
                path = "/carts/1"
                is_other = isinstance(_document(await _look(self._neighbour, path)), str | dict)
            return f"GET {path} answers as a cart service does" if is_other else None
        reply = await _look(self._neighbour, "/products/1")
        is_other = reply.status == 200 and isinstance(_document(reply), str | dict)
        return "GET /products/1 answers as a catalog does" if is_other else None


async def _look(neighbour: Neighbour, path: str) -> Reply:
    """One reply, unjudged."""
    return await neighbour.get(path, Found)


async def _has_cart_items(neighbour: Neighbour) -> bool:
    document = _document(await _look(neighbour, "/cart_items"))
    return isinstance(document, dict) and isinstance(document.get("items"), list)


def _document(reply: Reply) -> Any:
    """The document of a 200, or None for any other answer."""
    if reply.status != 200:
        return None
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        return None


def _without(path: str, reply: Reply) -> tuple[int, bytes]:
    """An answer without the parts that differ between addresses or moments."""
    return reply.status, re.sub(rb"\d+", b"0", reply.body.replace(path.encode(), b"").replace(path[1:].encode(), b""))


def _words(asked: Sequence[int]) -> str:
    return ", ".join(map(str, asked))
