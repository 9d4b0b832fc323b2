"""What an order to place must look like."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orders.order.attached import Attached
from orders.order.details import TOO_LARGE, attached_bytes
from orders.order.model import MAX_ID, MAX_LINES, MAX_QUANTITY
from orders.order.named_types import Channel
from orders.order.schema import WHOLE
from orders.order.sizes import MAX_ATTACHED_BYTES


class ItemToOrder(BaseModel):
    """A product and how many of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    product_id: Annotated[int, Field(ge=1, le=MAX_ID), WHOLE]
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY), WHOLE]


class OrderToPlace(Attached):
    """What to order. Without `items` (or without a body) it is the customer's shopping cart."""

    model_config = ConfigDict(extra="forbid", strict=True)

    channel: Annotated[
        Channel | None, Field(description="The sales channel that the order comes through. A key may bring its own.")
    ] = None
    items: Annotated[list[ItemToOrder], Field(min_length=1, max_length=MAX_LINES)] | None = None

    @model_validator(mode="after")
    def _is_small(self) -> Self:
        if self.metadata or self.notes:
            attached = self.model_dump(include={"metadata", "notes"})
            if attached_bytes(attached) > MAX_ATTACHED_BYTES:
                raise ValueError(TOO_LARGE)
        return self
