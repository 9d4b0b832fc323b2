"""Types of the wire that are not objects and have a name of their own, in the OpenAPI document and in generated
clients.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypeAliasType

from orders.errors import Code
from orders.order import events
from orders.order.details import MAX_METADATA_BYTES, check_metadata
from orders.order.statuses import load_workflow

CHANNEL = r"^[a-z0-9_-]{1,64}$"
"""Pattern of the name of a sales channel. The table of orders has the same check."""

STATUSES = list(load_workflow().by_name)
"""Names of the built-in statuses. For a shop's own table, `openapi` puts its names into the document instead."""

Status = TypeAliasType(
    "Status",
    Annotated[
        str,
        Field(
            description="A status of the shop's table (see `GET /workflow`); input may have any case. An adopted order "
            "can have another, which its old service gave it.",
            examples=["Confirmed"],
            json_schema_extra={"x-extensible-enum": STATUSES},
        ),
    ],
)
"""The name of a status. It is not an enum: a client with an enum could not read a list that has an adopted order, or a
status newer than the client.
"""

Channel = TypeAliasType(
    "Channel",
    Annotated[
        str,
        Field(description="The name of a sales channel.", pattern=CHANNEL, examples=["web"]),
    ],
)

Reason = TypeAliasType("Reason", Literal["customer", "declined", "fraud", "inventory", "staff", "expired", "other"])

Condition = TypeAliasType("Condition", Literal["restocked", "damaged", "written off"])

ProblemCode = TypeAliasType(
    "ProblemCode",
    Annotated[
        str,
        Field(
            description="What is wrong, in a word that stays the same. See `GET /problems`; later versions add some.",
            examples=["insufficient_inventory"],
            json_schema_extra={"x-extensible-enum": [code.name.lower() for code in Code]},
        ),
    ],
)

EventType = TypeAliasType(
    "EventType",
    Annotated[
        str,
        Field(
            description="What happened; later versions add some. "
            + " ".join(f"`{one}`: {one.meaning}." for one in events.EventType),
            examples=[events.EventType.PLACED.value],
            json_schema_extra={"x-extensible-enum": [one.value for one in events.EventType]},
        ),
    ],
)
"""As `Status`, not an enum: a client with one could not read an event of a newer version."""

OrderMembers = TypeAliasType(
    "OrderMembers", Annotated[dict[str, Any], Field(description="Some of the members of an order.")]
)

EventDetails = TypeAliasType("EventDetails", dict[str, Any])

SortBy = TypeAliasType(
    "SortBy",
    Annotated[
        Literal["created_at", "-created_at", "updated_at", "-updated_at", "total", "-total", "number", "-number"],
        Field(
            description="What to sort by; with a minus: the largest or newest first.",
            # Names for generators, which lose the minus.
            json_schema_extra={
                "x-enum-varnames": [
                    name + direction
                    for name in ("CREATED_AT", "UPDATED_AT", "TOTAL", "NUMBER")
                    for direction in ("", "_DESCENDING")
                ]
            },
        ),
    ],
)

WITHOUT_NUL = r"^[^\x00]*$"
"""Pattern of text without the one character that PostgreSQL can't keep."""


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    check_metadata(metadata)
    return metadata


Metadata = TypeAliasType(
    "Metadata",
    Annotated[
        dict[str, Any],
        Field(
            description=f"A JSON object of yours, of at most {MAX_METADATA_BYTES} bytes, numbers written out. "
            "Orders can be found by its members that are strings."
        ),
        AfterValidator(_small),
    ],
)
