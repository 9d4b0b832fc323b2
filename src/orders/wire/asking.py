"""Who asks, as the routes see it. The check of access has put the principal into the request."""

from fastapi import Request

from orders.errors import Code, OrderError
from orders.order.model import Author
from orders.principal import Principal, Scope, Seer


def principal_of(request: Request) -> Principal:
    """The principal of the request."""
    principal: Principal = request.scope["state"]["principal"]  # KeyError: it has not passed the check of access
    return principal


def seer_of(request: Request) -> Seer:
    """Whose orders the request may see."""
    return principal_of(request).seer


def author_of(request: Request, claimed: str | None) -> Author:
    """The author of a change: the principal, beside the person that it names in X-Actor. Raises OrderError (403) if it
    may not name any.
    """
    principal = principal_of(request)
    if claimed is not None and not principal.may_claim():
        raise not_permitted(Scope.ORDERS_CHANGE, "X-Actor")
    return Author(principal.actor(claimed), request.state.request_id)


def not_permitted(scope: Scope, what: str) -> OrderError:
    """The error (403) for what needs a scope that the principal does not have."""
    detail = f"{what} needs the scope {scope}, which this credential does not have."
    return OrderError(Code.NOT_PERMITTED, detail, extra={"required_scope": str(scope)})
