"""Whose turn it is: a small order does not wait for large ones, however many come before it."""

import asyncio
import functools
import itertools

from orders.errors import Code, OrderError
from orders.machinery import machinery
from orders.order.model import Author, Line
from orders.placing.bulk import place_each
from orders.placing.checkout import Checkout, CheckoutRequest
from orders.placing.dry_run import PlacingDryRun
from orders.principal import SEES_EVERYTHING
from orders.settings import Settings
from tests.conftest import Sandbox

wish = functools.partial(CheckoutRequest, SEES_EVERYTHING)

PATIENT = {"orders_request_deadline_s": 50, "orders_lease_s": 55}
"""No deadline comes, on a slow machine either."""

_unknown = itertools.count(10**12)


def unknown_lines(count: int) -> list[Line]:
    return [Line(next(_unknown), 1) for _ in range(count)]


async def test_a_small_order_goes_before_the_large_ones_that_came_earlier(settings: Settings, sandbox: Sandbox) -> None:
    settings = settings.model_copy(update=PATIENT)
    product = sandbox.product(9)
    sandbox.catalog_faults(slow_s=0.01)
    answered: list[str] = []
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)

        async def buy(who: str, lines: list[Line]) -> None:
            try:
                await checkout.check_out(wish(1, lines, None), "/")
            except OrderError as error:
                assert error.code is Code.INSUFFICIENT_INVENTORY  # noqa: PT017
            answered.append(who)

        crowd = [asyncio.create_task(buy("large", unknown_lines(100))) for _ in range(9)]
        await asyncio.sleep(0)
        bystander = asyncio.create_task(buy("small", [Line(product, 1)]))
        await asyncio.gather(*crowd, bystander)
    assert answered.index("small") <= 3, answered  # after those that were under way


async def test_orders_of_one_request_have_their_turns_one_after_the_other(settings: Settings, sandbox: Sandbox) -> None:
    settings = settings.model_copy(update=PATIENT)
    product = sandbox.product(9)
    sandbox.catalog_faults(slow_s=0.01)
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)
        lines = [unknown_lines(10) for _ in range(60)]
        asked = [wish(1, items, lines_ahead=10 * n) for n, items in enumerate(lines)]
        request = asyncio.create_task(place_each(checkout, asked, "/orders:batch", Author()))
        await asyncio.sleep(0.05)
        answer = await checkout.check_out(wish(2, [Line(product, 1)], None), "/")
        assert answer.status == 201
        assert not request.done()
        assert {result.status for result in await request} == {400}


async def test_in_a_full_queue_whoever_has_the_last_turn_is_refused(settings: Settings, sandbox: Sandbox) -> None:
    settings = settings.model_copy(update={"orders_queue": 2, **PATIENT})
    product = sandbox.product(9)
    sandbox.catalog_faults(slow_s=0.15)
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)

        async def buy(lines: list[Line]) -> object:
            try:
                return (await checkout.check_out(wish(1, lines, None), "/")).status
            except OrderError as error:
                return error.code

        first = asyncio.create_task(buy([Line(product, 1)]))
        await asyncio.sleep(0.1)  # it is under way, and holds the product
        large = [asyncio.create_task(buy([Line(product, 1), *unknown_lines(n)])) for n in (50, 100)]
        await asyncio.sleep(0.02)
        small = asyncio.create_task(buy([Line(product, 1)]))
        answers = await asyncio.gather(first, *large, small)
    assert answers == [201, Code.INSUFFICIENT_INVENTORY, Code.OVERLOADED, 201]


async def test_dry_runs_have_a_part_of_the_calls(settings: Settings, sandbox: Sandbox) -> None:
    """Six dry runs of 60 unknown products each are under way; an order of two lines is placed meanwhile."""
    settings = settings.model_copy(update=PATIENT)
    products = [sandbox.product(9), sandbox.product(9)]
    sandbox.catalog_faults(slow_s=0.02)
    async with machinery(settings) as built:
        checkout = Checkout(built.database, built.carts, built.placement, settings)
        dry_run = PlacingDryRun(built.database, built.catalog, checkout)
        asked = [wish(1, unknown_lines(60)) for _ in range(6)]
        dry_runs = asyncio.create_task(dry_run.place_each(asked, "/orders:batch", Author()))
        await asyncio.sleep(0.2)
        answer = await checkout.check_out(wish(2, [Line(p, 1) for p in products], None), "/")
        assert answer.status == 201
        assert not dry_runs.done()
        results, _ = await dry_runs
        assert {result.status for result in results} == {400}
