"""The principal of a request, as the routes see it. The check of access has put the principal into the request."""

from fastapi import Request

from orders.errors import Code, OrderError
from orders.order.idempotency import ClientKey
from orders.order.model import Author
from orders.order.parsing import parse_key
from orders.principal import Principal, Scope, Seer
from orders.wire.gate import Asked


def principal_of(request: Request) -> Principal:
    """The principal of the request."""
    principal: Principal = request.scope["state"]["principal"]  # KeyError: it has not passed the check of access
    return principal


def asked_of(request: Request) -> Asked:
    """The request as the checks saw it. Only for operations whose answers are lasting."""
    asked: Asked = request.scope["state"]["asked"]
    return asked


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
    client = request.scope.get("client")
    return Author(principal.actor(claimed), request.state.request_id, client[0] if client else None)


def key_of(request: Request) -> ClientKey | None:
    """The Idempotency-Key of the request, or None. It is the principal's own: another's is another key. Raises
    OrderError if it can't be read.
    """
    text = parse_key(request.headers.getlist("idempotency-key"))
    return None if text is None else ClientKey(principal_of(request).owner, text)


def require_private(seer: Seer) -> None:
    """Raise OrderError (403) if the seer may not read private notes. Then it may not write them either: a patch with
    the same text would change nothing, which tells what the text is.
    """
    if not seer.sees_private:
        raise not_permitted(Scope.CUSTOMERS_READ, "A private note")


def not_permitted(scope: Scope, what: str) -> OrderError:
    """The error (403) for what needs a scope that the principal does not have."""
    detail = f"{what} needs the scope {scope}, which this credential does not have."
    return OrderError(Code.NOT_PERMITTED, detail, extra={"required_scope": str(scope)})
