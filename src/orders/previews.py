"""Operations below `/dry-run/`: each write has a twin there, which answers like the write with `dry_run=true`.

So each operation has one type of answer, which generated clients need.
"""

import inspect
from typing import Any

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute

from orders.changing import bulk_routes as changing_bulk_routes
from orders.changing import routes as changing_routes
from orders.placing import bulk_routes as placing_bulk_routes
from orders.placing import routes as placing_routes
from orders.webhooks import delivery_routes
from orders.webhooks.delivery_schemas import Replayed
from orders.wire.bodies import BodyRoute
from orders.wire.bulk import BatchPreview
from orders.wire.dry_run import Preview
from orders.wire.operations import operation_id
from orders.wire.parameters import WITHOUT_PARAMETERS

PREFIX = "/dry-run"

router = APIRouter(
    prefix=PREFIX,
    route_class=BodyRoute,
    tags=["dry run"],
    generate_unique_id_function=operation_id,
    dependencies=WITHOUT_PARAMETERS,
)


def _add_twin(write: APIRoute, answer: type) -> None:
    """Add a route with the same parameters, body and refusals. Its answer is a preview."""
    refusals = {status: response for status, response in write.responses.items() if int(status) >= 400}
    router.add_api_route(
        write.path,
        _rehearsing(write),
        methods=list(write.methods or ()),
        summary=f"{write.summary}: what would be",
        description=f"The same as `{write.name}`, but nothing is written, and no neighbour is told anything.",
        responses={200: {"model": answer, "description": "What it would do"}, **refusals},
        openapi_extra=write.openapi_extra,
    )


def _rehearsing(write: APIRoute) -> Any:
    """The route's function with `dry_run=True`, and a signature without `dry_run`."""

    async def preview(**given: Any) -> Response:
        response: Response = await write.endpoint(dry_run=True, **given)
        return response

    signature = inspect.signature(write.endpoint)
    parameters = [parameter for name, parameter in signature.parameters.items() if name != "dry_run"]
    preview.__name__ = f"preview_{write.name}"
    preview.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # FastAPI reads it
    return preview


SINGLE, MANY = (placing_routes, changing_routes), (placing_bulk_routes, changing_bulk_routes)
for modules, answer in ((SINGLE, Preview), (MANY, BatchPreview), ((delivery_routes,), Replayed)):
    for route in (route for module in modules for route in module.router.routes):
        if isinstance(route, APIRoute) and "dry_run" in inspect.signature(route.endpoint).parameters:
            _add_twin(route, answer)
