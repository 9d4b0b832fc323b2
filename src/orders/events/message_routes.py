"""The routes about messages: the schemas that they keep to."""

import functools
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse

from orders.errors import Code, OrderError
from orders.events.message_schemas import VERSION, PublishedSchemas, message_schema, schema_url
from orders.events.wanted import KNOWN_TYPES
from orders.wire.operations import operation_id
from orders.wire.parameters import WITHOUT_PARAMETERS
from orders.wire.problems import problem_responses

router = APIRouter(tags=["events"], generate_unique_id_function=operation_id, dependencies=WITHOUT_PARAMETERS)

_HEADERS = {"Cache-Control": "public, max-age=3600"}
"""An hour: a new version of the service may add members."""


@router.get(
    "/schemas",
    summary="The schemas of all messages",
    responses={
        200: {"model": PublishedSchemas, "description": "Where the schemas are"},
        **problem_responses(Code.INVALID_REQUEST),
    },
)
async def get_schemas() -> JSONResponse:
    """What webhooks and brokers are sent has a schema for each type."""
    found = [{"type": type, "version": VERSION, "url": schema_url(type, VERSION)} for type in KNOWN_TYPES]
    return JSONResponse({"schemas": found}, headers=_HEADERS)


@router.get(
    "/schemas/{type}/{version}",
    summary="The schema of a type of messages",
    responses={
        200: {
            "description": "The schema",
            "content": {"application/schema+json": {"schema": {"type": "object"}}},
        },
        **problem_responses(Code.NOT_FOUND, Code.INVALID_REQUEST),
    },
    response_class=JSONResponse,
)
async def get_schema(
    type: Annotated[str, Path(description="The type of messages.", examples=[KNOWN_TYPES[0]])],
    version: Annotated[str, Path(description="Its version.", examples=[str(VERSION)])],
) -> JSONResponse:
    """JSON Schema 2020-12. Within a version, members are only added."""
    if type not in KNOWN_TYPES or version != str(VERSION):
        raise OrderError(Code.NOT_FOUND, f"There is no schema {version[:20]!r} of {type[:60]!r}.")
    return JSONResponse(_schema(type), headers=_HEADERS, media_type="application/schema+json")


@functools.cache
def _schema(type: str) -> dict[str, object]:
    return message_schema(type)
