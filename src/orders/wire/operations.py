"""How operations are named."""

from fastapi.routing import APIRoute


def operation_id(route: APIRoute) -> str:
    """What the OpenAPI document calls an operation: the name of its function."""
    return route.name
