"""Identifiers, keys and cursors: what is read from requests."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orders.errors import OrderError
from orders.schemas import ItemToOrder, cursor_for, parse_cursor, parse_customer_id, parse_key, parse_order_id


@pytest.mark.parametrize("text", ["0", "-1", "+1", "01", "1.0", "x", "", "٣", "9223372036854775808", "1 ", "1\n"])
def test_what_is_no_customer_id(text: str) -> None:
    assert parse_customer_id(text) is None


@given(st.integers(1, 2**63 - 1))
def test_every_customer_id_is_read_back(customer_id: int) -> None:
    assert parse_customer_id(str(customer_id)) == customer_id
    assert parse_order_id(str(customer_id)) is None


@given(st.uuids())
def test_every_order_id_is_read_back_and_is_no_customer(order_id: UUID) -> None:
    assert parse_order_id(str(order_id)) == parse_order_id(str(order_id).upper()) == order_id
    assert parse_customer_id(str(order_id)) is None
    assert parse_cursor(cursor_for(order_id)) == order_id


@pytest.mark.parametrize("text", [UUID(int=7).hex, "{" + str(UUID(int=7)) + "}", "urn:uuid:" + str(UUID(int=7))])
def test_other_spellings_of_a_uuid_are_none(text: str) -> None:
    assert parse_order_id(text) is None


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255))
def test_a_key_means_the_same_quoted_and_bare(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse_key([quoted]) == key
    if not key.startswith('"'):
        assert parse_key([key]) == key


@pytest.mark.parametrize("values", [[""], ["a b"], ["é"], ['"'], ['"a'], ['""'], ["x" * 256], ["a", "b"], ['"a"b']])
def test_what_is_no_key(values: list[str]) -> None:
    with pytest.raises(OrderError, match="Idempotency-Key"):
        parse_key(values)


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "!" * 22, "A" * 100, "é" * 22, "A" * 21 + "B", "A" * 22 + "=="])
def test_what_is_no_cursor(cursor: str) -> None:
    with pytest.raises(OrderError, match="cursor"):
        parse_cursor(cursor)


@given(st.integers(1, 2**31 - 1))
def test_a_whole_number_may_be_written_with_a_fraction_of_zero(quantity: int) -> None:
    assert ItemToOrder.model_validate({"product_id": 7.0, "quantity": float(quantity)}).quantity == quantity


@pytest.mark.parametrize("product_id", [7.5, 2.0**53 + 2, 1e400, float("nan"), -1.0, 0.0, "7", True, None])
def test_what_is_no_product_id(product_id: object) -> None:
    with pytest.raises(ValidationError):
        ItemToOrder.model_validate({"product_id": product_id, "quantity": 1})
