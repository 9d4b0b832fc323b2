"""What is measured before it is stored is what PostgreSQL stores."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders.order.sizes import stored_bytes
from orders.postgres import database
from orders.postgres.database import Connection
from tests.conftest import ask

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))


@pytest.fixture(scope="module")
def connection(migrated_dsn: str) -> Any:
    connection = database.connect(migrated_dsn)
    yield connection
    connection.close()


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(value=VALUES)
def test_json_has_the_size_that_postgresql_gives_it(connection: Connection, value: Any) -> None:
    size = ask(connection, "SELECT octet_length((%s::jsonb)::text)", (json.dumps(value, ensure_ascii=False),))[0][0]
    assert size <= stored_bytes(value) <= size + str(value).count("-0.0")


def test_the_smallest_and_the_largest_numbers(connection: Connection) -> None:
    for value in (1.7976931348623157e308, 5e-324, -2.2250738585072014e-308, 1e16, 123456789.123456789, 10**4000):
        size = ask(connection, "SELECT octet_length((%s::jsonb)::text)", (json.dumps(value),))[0][0]
        assert stored_bytes(value) == size
