"""The routes about the service itself: the table of statuses, and what each error means."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse

from orders.api.parameters import WITHOUT_PARAMETERS
from orders.api.shop import Shop, operation_id
from orders.errors import Code, OrderError
from orders.schemas import WorkflowGraph, problem_responses

router = APIRouter(generate_unique_id_function=operation_id)

REFUSED = problem_responses(Code.INVALID_REQUEST)
ProblemCode = Annotated[str, Path(json_schema_extra={"enum": [code.name.lower() for code in Code]})]


@router.get(
    "/workflow",
    summary="Which statuses there are, and which may follow which",
    tags=["about"],
    responses={200: {"model": WorkflowGraph, "description": "The table of statuses"}, **REFUSED},
    dependencies=WITHOUT_PARAMETERS,
)
async def get_workflow(request: Request) -> dict[str, Any]:
    """The table of statuses as JSON and, in it, as a Mermaid diagram."""
    shop: Shop = request.app.state.shop
    return shop.workflow.document()


@router.get(
    "/problems",
    summary="Every error there is",
    tags=["about"],
    responses=REFUSED,
    dependencies=WITHOUT_PARAMETERS,
)
async def get_problems() -> dict[str, dict[str, Any]]:
    """Each error's code with its HTTP status, its title, and what to do about it."""
    return {code.name.lower(): _describe(code) for code in Code}


@router.get(
    "/problems/{code}",
    summary="What an error means",
    tags=["about"],
    responses=problem_responses(Code.NOT_FOUND, Code.INVALID_REQUEST),
    dependencies=WITHOUT_PARAMETERS,
)
async def get_problem(code: ProblemCode) -> JSONResponse:
    """The page behind a problem's `type`."""
    if code.upper() not in Code.__members__:
        raise OrderError(Code.NOT_FOUND, f"There is no error {code[:60]!r}.")
    return JSONResponse(_describe(Code[code.upper()]))


def _describe(code: Code) -> dict[str, Any]:
    return {"status": code.value.status, "title": code.value.title, "advice": code.value.advice}
