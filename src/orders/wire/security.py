"""What the OpenAPI document says of access: how a credential is sent, which operation needs which scope, and which
refusals there are.
"""

from typing import Any

from orders.errors import Code
from orders.wire.operations import OPERATIONS, Operation
from orders.wire.problems import problem_responses

SCHEME = "bearer"
"""Name of the one way to send a credential."""

_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key (`ord_…`, from `orders keys create`), or a customer's token (JWT) of the shop's issuer. "
    "Each operation names the scope that a key needs. Until there is a key, programs on the service's own machine need "
    "none.",
}
_REFUSALS = {
    "CredentialRefused": (Code.CREDENTIAL_REQUIRED, Code.CREDENTIAL_INVALID),
    "NotPermitted": (Code.NOT_PERMITTED, Code.CROSS_SITE),
    "TooManyRequests": (Code.RATE_LIMITED,),
}
"""The answers that every operation with a scope has, by their names in the document."""

_SCHEME_OF_401 = {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}}


def describe_access(document: dict[str, Any]) -> None:
    """Add it to the document, in place. Operations that everybody may ask for stay as they are."""
    refusals = {name: next(iter(problem_responses(*codes).items())) for name, codes in _REFUSALS.items()}
    refusals["CredentialRefused"][1]["headers"] = _SCHEME_OF_401
    components = document["components"]
    components["securitySchemes"] = {SCHEME: _SCHEME}
    components["responses"] = {name: response for name, (_, response) in refusals.items()}
    document["security"] = []  # of operations that say nothing
    answers = {str(status): {"$ref": f"#/components/responses/{name}"} for name, (status, _) in refusals.items()}
    for item in document["paths"].values():
        for described in item.values():
            operation = OPERATIONS[described["operationId"]]
            if operation.scope is not None:
                _describe(described, operation, answers)


def _describe(described: dict[str, Any], operation: Operation, answers: dict[str, Any]) -> None:
    customers = "; customers may ask for what is theirs" if operation.customer_may else ""
    sentence = f"Needs the scope `{operation.scope}`{customers}."
    described["description"] = "\n\n".join(filter(None, (described.get("description"), sentence)))
    described["security"] = [{SCHEME: [str(operation.scope)]}]
    described["responses"] = dict(sorted({**answers, **described["responses"]}.items()))
