"""Requests' types for the details of an order. Their columns are in `ATTACHED` (`model`)."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from orders.order.named_types import Metadata
from orders.order.texts import MAX_REFERENCE_LENGTH, PROSE, VISIBLE, as_prose, as_reference

_NoteText = Annotated[str, Field(max_length=4000, json_schema_extra={"pattern": PROSE}), AfterValidator(as_prose)]
Reference = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_REFERENCE_LENGTH,
        json_schema_extra={"pattern": VISIBLE},
        description="What the order is called elsewhere, in Unicode's normal form C; no two orders share one.",
    ),
    AfterValidator(as_reference),
]


class Notes(BaseModel):
    """Text for people. `public` is meant for the customer, `private` for the shop; both are in every order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    public: _NoteText | None = None
    private: _NoteText | None = None


class Attached(BaseModel):
    """The details in a request to place an order, or to change its details."""

    external_reference: Reference | None = None
    metadata: Metadata | None = None
    notes: Notes | None = None
