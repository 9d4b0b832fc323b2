"""Identifiers, keys and cursors: what is read from requests."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orders.errors import OrderError
from orders.finding.filters import Filters, Position, Sort, SortKey
from orders.finding.query import cursor_for, first_id, parse_cursor
from orders.order.parsing import parse_customer_id, parse_key, parse_order_id
from orders.placing.schemas import ItemToOrder


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


@pytest.mark.parametrize(
    "cursor", ["", "x", "AAAA", "!" * 22, "A" * 100, "é" * 43, "A" * 42 + "B", "A" * 43 + "=", "A" * 22]
)
def test_what_is_no_cursor(cursor: str) -> None:
    with pytest.raises(OrderError, match="cursor"):
        parse_cursor(cursor, Filters(), Sort())


@given(st.integers(1, 2**31 - 1))
def test_a_whole_number_may_be_written_with_a_fraction_of_zero(quantity: int) -> None:
    assert ItemToOrder.model_validate({"product_id": 7.0, "quantity": float(quantity)}).quantity == quantity


@pytest.mark.parametrize("product_id", [7.5, 2.0**53 + 2, 1e400, float("nan"), -1.0, 0.0, "7", True, None])
def test_what_is_no_product_id(product_id: object) -> None:
    with pytest.raises(ValidationError):
        ItemToOrder.model_validate({"product_id": product_id, "quantity": 1})


@given(st.uuids(), st.none() | st.integers(-(2**62), 2**62), st.none() | st.datetimes(timezones=st.just(UTC)))
def test_every_cursor_is_read_back(order_id: UUID, number: int | None, moment: datetime | None) -> None:
    for by, key in (("created_at", None), ("number", number), ("total", number), ("updated_at", moment)):
        sort, position = Sort(SortKey(by)), Position(key, order_id)
        assert parse_cursor(cursor_for(position, Filters(), sort), Filters(), sort) == position


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_the_smallest_id_of_a_moment_divides_the_orders_before_from_those_after(a: datetime, b: datetime) -> None:
    created = b.replace(microsecond=b.microsecond // 1000 * 1000)
    ms = max(0, (created - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
    if created.year >= 1970:
        assert (UUID(int=ms << 80 | 7 << 76) >= first_id(a)) == (created >= a)
