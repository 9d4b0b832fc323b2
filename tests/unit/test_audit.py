"""Who may read the audit. It is refused before the database is asked: there is none here."""

import json

from orders.principal import ALL_SCOPES, Principal, PrincipalKind, Scope, Seer
from orders.wire.gate import Asked
from orders.wire.operations import OPERATIONS
from tests.unit.test_one_gate import app_with, ask


def test_the_audit_needs_a_scope_that_no_customer_has() -> None:
    operation = OPERATIONS["list_audit"]
    assert (operation.scope, operation.customer_may) == (Scope.ACCESS_MANAGE, None)


async def test_a_credential_of_one_channel_does_not_see_what_was_done_in_the_others() -> None:
    def set_principal(asked: Asked) -> None:
        seer = Seer(channel="web")
        asked.scope["state"]["principal"] = Principal(PrincipalKind.KEY, "key:web", "key:web", ALL_SCOPES, seer)

    answer = await ask(app_with(set_principal, orders_access="open"), "GET", "/audit")
    assert answer.status == 403
    assert json.loads(answer.body)["code"] == "not_permitted"
