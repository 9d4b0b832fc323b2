"""The routes about the service itself: the table of statuses, and what each error means."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, RootModel

from orders.errors import Code, OrderError
from orders.finding.service import finding
from orders.order.named_types import ProblemCode
from orders.order.schema import WorkflowGraph
from orders.wire.operations import operation_id
from orders.wire.parameters import WITHOUT_PARAMETERS
from orders.wire.problems import problem_responses

router = APIRouter(generate_unique_id_function=operation_id)

REFUSED = problem_responses(Code.INVALID_REQUEST)


class About(BaseModel):
    """What this service is, and where to look."""

    service: str
    version: str
    description: str
    documentation: str
    openapi: str
    asyncapi: str
    orders: str
    health: str


class Health(BaseModel):
    """That it works, and how many orders wait to be placed."""

    status: str
    waiting_count: int


class ProblemKind(BaseModel):
    """What an error means: its HTTP status, its title, and what to do about it."""

    status: int
    title: str
    advice: str


class ProblemKinds(RootModel[dict[str, ProblemKind]]):
    """Every error, by its code."""


HEALTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Health, "description": "It works"},
    **problem_responses(Code.DATABASE_UNAVAILABLE, Code.DATABASE_FULL, Code.INVALID_REQUEST),
}


@router.get(
    "/workflow",
    summary="Which statuses there are, and which may follow which",
    tags=["about"],
    responses={200: {"model": WorkflowGraph, "description": "The table of statuses"}, **REFUSED},
    dependencies=WITHOUT_PARAMETERS,
)
async def get_workflow(request: Request) -> Any:
    """The table of statuses as JSON and, in it, as a Mermaid diagram."""
    service = finding(request)
    return service.workflow.document()


@router.get(
    "/problems",
    summary="Every error there is",
    tags=["about"],
    responses={200: {"model": ProblemKinds, "description": "All errors"}, **REFUSED},
    dependencies=WITHOUT_PARAMETERS,
)
async def get_problems() -> Any:
    """Each error's code with its HTTP status, its title, and what to do about it."""
    return {code.name.lower(): _describe(code) for code in Code}


@router.get(
    "/problems/{code}",
    summary="What an error means",
    tags=["about"],
    responses={
        200: {"model": ProblemKind, "description": "What it means"},
        **problem_responses(Code.NOT_FOUND, Code.INVALID_REQUEST),
    },
    dependencies=WITHOUT_PARAMETERS,
)
async def get_problem(code: Annotated[ProblemCode, Path()]) -> JSONResponse:
    """The page behind a problem's `type`."""
    if code.upper() not in Code.__members__:
        raise OrderError(Code.NOT_FOUND, f"There is no error {code[:60]!r}.")
    return JSONResponse(_describe(Code[code.upper()]))


def _describe(code: Code) -> dict[str, Any]:
    return {"status": code.value.status, "title": code.value.title, "advice": code.value.advice}
