"""The parameters of the routes of the feed, as the document at /docs describes them."""

import re
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Header, Query
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from orders.errors import invalid
from orders.events.wanted import ALL, KNOWN_TYPES, OF_ORDERS, Wanted, parse_types
from orders.order.model import MAX_ID
from orders.order.parsing import parse_order_id
from orders.principal import Seer

MAX_WAIT_S = 25
"""Longest time that a request waits for an event: proxies end a silent connection after 30 s or later."""

_TYPE = f"({'|'.join(map(re.escape, (*KNOWN_TYPES, OF_ORDERS, ALL)))})"


Types = Annotated[
    str,
    Field(
        max_length=1000,
        description="Only events of these types, with commas: `order.placed,order.moved`. `order.*` is every type "
        "but `order.failed`. `*` is every type.",
        examples=["order.placed,order.moved"],
        json_schema_extra={"pattern": f"^{_TYPE}(,{_TYPE})*$"},
    ),
]

OrderIdText = Annotated[
    str | None, Field(description="Only events of this order.", json_schema_extra={"format": "uuid"})
]

ChannelName = Annotated[
    str | None, Field(pattern="^[a-z0-9_-]{1,64}$", description="Only events of orders of this channel.")
]


class FeedQuery(BaseModel):
    """The parameters for a page of the feed."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[
        int,
        Field(ge=0, le=MAX_ID, description="Only events with a larger position: see `next`. 0 begins with the first."),
    ] = 0
    mark: Annotated[
        str | None,
        Field(
            pattern="^[0-9a-f]{8}$",
            description="From `next`: tells which event is at `after`. If it is another one now, the answer is 409.",
        ),
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="Events per page.")] = 100
    types: Types = "*"
    order_id: OrderIdText = None
    channel: ChannelName = None
    wait: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_WAIT_S,
            allow_inf_nan=False,
            description="If there is no event yet: how many seconds to wait for one. The answer comes with the event.",
        ),
    ] = 0

    def wanted(self, seer: Seer) -> Wanted:
        """What is wanted of the feed. Raises OrderError."""
        return Wanted(
            self.after, self.mark, self.limit, parse_types(self.types), _order(self.order_id), self.channel, seer
        )

    def next_url(self, end: int, mark: str | None) -> str:
        """The address of the page behind this position, with the same other parameters."""
        others = self.model_dump(exclude_defaults=True, exclude={"after", "mark"})
        marked = {} if mark is None else {"mark": mark}
        return f"/events?{urlencode({'after': end, **marked, **others}, safe='*,')}"


class StreamQuery(BaseModel):
    """The parameters of the stream."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_ID,
            description="Only events with a larger position. Without it: what happens from now on. `Last-Event-ID` "
            "wins.",
        ),
    ] = None
    types: Types = "*"
    order_id: OrderIdText = None
    channel: ChannelName = None

    def wanted(self, seer: Seer) -> Wanted:
        """What is wanted of the feed, from its beginning. Raises OrderError."""
        return Wanted(types=parse_types(self.types), order_id=_order(self.order_id), channel=self.channel, seer=seer)


def parse_last_event_id(texts: Sequence[str]) -> int | None:
    """The position in `Last-Event-ID`, or None if a client has none yet. Raises OrderError."""
    text = texts[-1].strip() if texts else ""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_ID)) or int(text) > MAX_ID:
        raise invalid("header/Last-Event-ID", "not_a_position", f"{text[:60]!r} is not a position in the feed.")
    return int(text)


def _order(text: str | None) -> UUID | None:
    """The order's ID. Raises OrderError if the text is none."""
    order_id = None if text is None else parse_order_id(text)
    if text is not None and order_id is None:
        raise invalid("query/order_id", "not_an_order", f"order_id: {text[:60]!r} is not an order's ID.")
    return order_id


LastEventId = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,19}$"}),
    Header(
        alias="Last-Event-ID",
        description="The position of the last event that has arrived. Clients send it when they connect again.",
        examples=["1235"],
    ),
]

Streaming = Annotated[StreamQuery, Query()]
Following = Annotated[FeedQuery, Query()]
