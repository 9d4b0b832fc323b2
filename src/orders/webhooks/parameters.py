"""The parameters of the routes of webhooks, as the document at /docs describes them."""

import re
from typing import Annotated
from uuid import UUID

from fastapi import Header, Path
from pydantic import WithJsonSchema

from orders.order.model import MAX_ID
from orders.order.parsing import parse_order_id
from orders.webhooks.deliveries_sql import no_delivery
from orders.webhooks.endpoint_views_sql import no_webhook
from orders.webhooks.schemas import WEBHOOK_ID_EXAMPLE
from orders.wire.parameters import ETAGS

# IDs are taken as text: an address with an impossible ID is not found (404), not invalid (422).
WebhookId = Annotated[
    str,
    WithJsonSchema({"type": "string", "format": "uuid", "examples": [WEBHOOK_ID_EXAMPLE]}),
    Path(description="The webhook."),
]

DeliveryId = Annotated[
    str,
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_ID, "examples": [57]}),
    Path(description="The delivery."),
]

IfMatch = Annotated[
    str | None,
    WithJsonSchema(ETAGS),
    Header(alias="If-Match", description="The webhook's `ETag`: 412 if it has changed since.", examples=['"1"']),
]


def webhook_or_refuse(text: str) -> UUID:
    """The webhook's ID in an address. Raises OrderError (404) if the text is none."""
    webhook_id = parse_order_id(text)  # a UUID, as an order's
    if webhook_id is None:
        raise no_webhook(text)
    return webhook_id


def delivery_or_refuse(text: str) -> int:
    """The delivery's ID in an address. Raises OrderError (404) if the text is none."""
    if not re.fullmatch("[1-9][0-9]{0,18}", text) or int(text) > MAX_ID:
        raise no_delivery(text)
    return int(text)
