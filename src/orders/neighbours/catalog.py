"""The Product Catalog Service's client. The catalog's own names stop here."""

import asyncio
import functools
import json
import math
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from orders.neighbours.neighbour import Found, Neighbour
from orders.neighbours.reply import MalformedReply, MixedUp, NoAnswer, NotSent, Reply, brief
from orders.order.model import MAX_ID

_ENVELOPES = ("product_detail", "data", "product")
_MAX_NAME = 10_000
# the PUT belongs at another address; not 303: after that one it may have been done here
_ELSEWHERE = (301, 302, 307, 308)
_MAX_DEPTH = 100  # far below the depth that Python's JSON can write again
_STRONG_ETAG = re.compile(r'"[!#-~]*"')


@dataclass(frozen=True, slots=True)
class Product:
    """A product as the catalog has it. `fields` holds all that the catalog sent: our PUT sends it back.

    A negative quantity, which naive services allow, is read as 0: sold out.
    """

    id: int
    name: str
    price: int
    quantity: int
    etag: str | None
    fields: dict[str, Any]


class Written(Enum):
    """What became of one PUT."""

    DONE = auto()  # acknowledged
    DISPUTED = auto()  # the catalog said no: it refuses, or this is another call's answer. Read the product to find out
    NOT_FOUND = auto()  # disputed by "not found", or with another product, while other calls were under way
    REFUSED = auto()  # a definite no: the catalog said so several times, and its stock is unchanged
    CHANGED = auto()  # 412: someone else wrote since our read
    NOT_SENT = auto()  # a definite no: nothing left this machine
    UNKNOWN = auto()  # sent, no answer: it may have landed, or may land yet


SAID_NO = (Written.DISPUTED, Written.NOT_FOUND)
"""Outcomes after which the product has to be read, and the same PUT sent again alone."""


class Catalog:
    """Reads products and sets their quantity. The catalog knows only absolute quantities."""

    def __init__(self, neighbour: Neighbour) -> None:
        self._neighbour = neighbour

    async def read(self, product_id: int, flow: Hashable = None, *, surely: bool = False) -> Product | None:
        """The product, or None if the catalog does not know it. Raises NotSent, NoAnswer or MalformedReply.

        `flow`: on whose behalf. `surely`: for a product that existed before. Return None only if the catalog said three
        times that it is gone.
        """
        understand = functools.partial(_understand, product_id)
        return await self._neighbour.get(f"/products/{product_id}", understand, flow=flow, surely=surely)

    async def write(
        self,
        product: Product,
        quantity: int,
        not_after: float = float("inf"),
        flow: Hashable = None,
        *,
        disputed: Written | None = None,
    ) -> Written:
        """Set the product's quantity with one PUT, with `If-Match` if the catalog gave an ETag. Raises nothing.

        Nothing is sent once the event loop's time is `not_after`. `disputed`: the last one of SAID_NO that a PUT of
        this value had. After it, the PUT is sent alone. If it is done then, the catalog may be found to mix up calls.
        """
        began_at = asyncio.get_running_loop().time()
        body = json.dumps({**product.fields, "quantity": quantity}).encode()
        headers = {"If-Match": product.etag} if product.etag else {}
        path = f"/products/{product.id}"
        try:
            alone = disputed is not None
            reply = await self._neighbour.put(path, body, headers, not_after, flow=flow, alone=alone)
            written = _outcome(product.id, reply)
        except NotSent:
            return Written.NOT_SENT
        except (NoAnswer, MalformedReply):
            return Written.UNKNOWN
        if written is Written.DONE and disputed is Written.NOT_FOUND:
            self._neighbour.capacity.note_wrong(f"PUT {path}", began_at)
        return written


def _understand(product_id: int, reply: Reply) -> Found[Product | None]:
    if reply.status == 404:
        return Found(None, is_good=False, is_checked=False)
    if reply.status != 200:
        raise MalformedReply(f"it answered {reply.status} to GET /products/{product_id}")
    document = reply.json()
    if isinstance(document, str):
        return Found(None, is_good=False, is_checked=False)
    product = _parse(product_id, document, reply.etag)
    return Found(product, is_checked="id" in product.fields)


def _outcome(product_id: int, reply: Reply) -> Written:
    if reply.status == 412:
        return Written.CHANGED
    if reply.status == 429:
        return Written.NOT_SENT
    is_good = 200 <= reply.status < 300
    if is_good and _is_acknowledged(product_id, reply):
        return Written.DONE
    if is_good or reply.status == 404:
        return Written.DISPUTED if reply.was_alone else Written.NOT_FOUND
    if 400 <= reply.status < 500 or reply.status in _ELSEWHERE:
        return Written.DISPUTED
    return Written.UNKNOWN


def _is_acknowledged(product_id: int, reply: Reply) -> bool:
    """Whether a 2xx means that the PUT was done. If calls may be mixed up, the reply has to be about a product."""
    document = reply.json() if reply.body else None
    if isinstance(document, str) or not (reply.is_proven or isinstance(document, dict)):
        return False
    return reply.was_alone or not _is_of_another(product_id, document)


def _is_of_another(product_id: int, document: Any) -> bool:
    """Whether the PUT was acknowledged with another product. Such a reply is another call's answer."""
    fields = _unwrap(document) if isinstance(document, dict) else {}
    return type(fields.get("id")) is int and fields["id"] != product_id


def _parse(product_id: int, document: Any, etag: str | None) -> Product:
    fields = _unwrap(document)
    if fields.get("id", product_id) != product_id:
        raise MixedUp(f"product {product_id} came back with the id {brief(fields['id'])}")
    name = fields.get("name")
    if not isinstance(name, str) or len(name) > _MAX_NAME or "\0" in name or not _is_unicode(name):
        raise MalformedReply(f"the name of product {product_id} is not a text")
    _refuse_unwritable(product_id, fields)
    return Product(
        id=product_id,
        name=name,
        price=_count(product_id, fields, "price"),
        quantity=max(0, _count(product_id, fields, "quantity", least=-MAX_ID)),
        # If-Match compares strongly (RFC 9110, 13.1.1): a weak tag would be refused every time, and * matches anything.
        etag=etag if etag and _STRONG_ETAG.fullmatch(etag) else None,
        fields=fields,
    )


def _unwrap(document: Any) -> dict[str, Any]:
    if isinstance(document, dict) and len(document) == 1:
        document = next((document[key] for key in _ENVELOPES if key in document), document)
    if not isinstance(document, dict):
        raise MalformedReply("the product is not a JSON object")
    return document


def _count(product_id: int, fields: dict[str, Any], name: str, least: int = 0) -> int:
    value = fields.get(name)
    if type(value) is not int or not least <= value <= MAX_ID:
        raise MalformedReply(f"the {name} of product {product_id} is {brief(value)}, not an integer up to 2^63-1")
    return value


def _refuse_unwritable(product_id: int, fields: dict[str, Any]) -> None:
    """Refuse a number beyond a double (1e999). It reads as infinity and could not be sent back unchanged."""
    inner: list[Any] = [fields]
    for _ in range(_MAX_DEPTH):
        inner = [v for value in inner for v in _members(value) if type(v) in (dict, list, float)]
        if not inner:
            return
        if any(type(v) is float and not math.isfinite(v) for v in inner):
            raise MalformedReply(f"product {product_id} has a number that JSON can't carry")
    raise MalformedReply(f"product {product_id} is nested too deep")


def _members(value: Any) -> Iterable[Any]:
    """The values in an object or a list."""
    if type(value) is dict:
        return value.values()
    return value if type(value) is list else ()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
