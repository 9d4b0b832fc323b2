"""The parameters of the routes that read orders, as the document at /docs describes them."""

from typing import Annotated

from fastapi import Depends, Query, Request

from orders.finding.query import MAY_REPEAT, CustomerListQuery, ListQuery, OneOrManyQuery
from orders.wire.problems import repeated_parameter

Listing = Annotated[ListQuery, Query()]


CustomerListing = Annotated[CustomerListQuery, Query()]


OneOrMany = Annotated[OneOrManyQuery, Query()]


async def _refuse_repeated(request: Request) -> None:
    """Refuse parameters that came several times, except the few filters that may repeat."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in seen and name not in MAY_REPEAT:
            raise repeated_parameter(name)
        seen.add(name)


EACH_ONCE = [Depends(_refuse_repeated)]
