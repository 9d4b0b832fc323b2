"""The parameters and bodies of the routes, as the document at /docs describes them."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Request
from pydantic import WithJsonSchema

from orders.errors import Code, OrderError, no_customer
from orders.order.model import MAX_ID
from orders.order.parsing import KEY, parse_customer_id, parse_order_id
from orders.order.schema import ID_EXAMPLE
from orders.wire.problems import refused_parameters

_CUSTOMER_ID = {"type": "integer", "minimum": 1, "maximum": MAX_ID, "examples": [42]}


_ANY_CUSTOMER_ID = {**_CUSTOMER_ID, "minimum": -MAX_ID - 1}


_ORDER_ID = {"type": "string", "format": "uuid", "examples": [ID_EXAMPLE]}


# The routes take IDs as text: an address with an impossible ID is not found (404), not invalid (422).
CustomerId = Annotated[str, WithJsonSchema(_CUSTOMER_ID), Path(description="The customer: 1 … 2^63-1.")]


AnyCustomerId = Annotated[
    str,
    WithJsonSchema(_ANY_CUSTOMER_ID),
    Path(description="The customer: 1 … 2^63-1; of orders that were adopted from the simpler service also 0 and less."),
]


CustomerOrOrderId = Annotated[
    str,
    WithJsonSchema({"anyOf": [_CUSTOMER_ID, _ORDER_ID]}),
    Path(description="A customer's ID (an integer) means that customer; an order's ID (a UUID) means that order."),
]


Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="1 … 255 visible ASCII characters of your choice; repeating the request with the same key "
        "repeats the answer and orders nothing twice. Kept 72 hours at least.",
        examples=["7f3d2c1e"],
        json_schema_extra={"pattern": f"^({KEY})$"},
    ),
]


OrderId = Annotated[str, WithJsonSchema(_ORDER_ID), Path(description="The order.")]


Actor = Annotated[
    str | None,
    Header(
        alias="X-Actor",
        description="The person for whom this key asks, for the order's history: visible ASCII characters and spaces. "
        "It is kept beside the key's name (`key:shop/anna@shop.example`); the key needs `orders:change`.",
        min_length=1,
        max_length=100,
        pattern=r"^[\x20-\x7e]+$",
        examples=["anna@shop.example"],
    ),
]


REQUEST_ID = r"[A-Za-z0-9._~:/+=-]{1,128}"
"""Pattern of a request's ID: characters that a log line and a URL can carry."""


ETAGS = {"type": "string", "pattern": r'^("[0-9]{1,9}"(, ?"[0-9]{1,9}")*|\*)$'}
"""Schema of the headers that name versions."""


IfMatch = Annotated[
    str | None,
    WithJsonSchema(ETAGS),
    Header(alias="If-Match", description="The order's `ETag`: 412 if it has changed since.", examples=['"1"']),
]


IfNoneMatch = Annotated[
    str | None,
    WithJsonSchema(ETAGS),
    Header(alias="If-None-Match", description="The order's `ETag`: 304 if it has not changed.", examples=['"1"']),
]


def customer_or_refuse(text: str, expected: str = "a customer's ID (1 … 2^63-1)") -> int:
    """The customer's ID in an address. Raises OrderError if the text is none."""
    customer_id = parse_customer_id(text)
    if customer_id is None:
        raise no_customer(text, expected)
    return customer_id


def order_or_refuse(text: str) -> UUID:
    """The order's ID in an address. Raises OrderError if the text is none."""
    order_id = parse_order_id(text)
    if order_id is None:
        raise OrderError(Code.ORDER_NOT_FOUND, f"{text[:60]!r} is not an order's ID.")
    return order_id


async def _refuse_parameters(request: Request) -> None:
    """Refuse parameters that the route does not know, instead of ignoring them."""
    if request.query_params:
        raise refused_parameters(request.query_params)


WITHOUT_PARAMETERS = [Depends(_refuse_parameters)]
