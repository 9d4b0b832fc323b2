"""Whose call is next: turns of flows, calls that have to be alone, and dry runs."""

import asyncio
import contextlib
from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from orders.neighbours.limiter import DRY_RUN, Limiter


class Visitors:
    """Calls that stay in the limiter until they are let go."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.limiter = Limiter(lambda: self.limit)
        self.inside: list[tuple[Hashable, bool]] = []
        self.history: list[Hashable] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.doors: list[asyncio.Event] = []

    async def come(self, flow: Hashable, *, alone: bool = False, first: bool = False) -> None:
        door = asyncio.Event()
        self.doors.append(door)
        self.tasks.append(asyncio.create_task(self._visit(flow, door, alone, first)))
        await settle()

    async def _visit(self, flow: Hashable, door: asyncio.Event, alone: bool, first: bool) -> None:
        call = await self.limiter.enter(flow, alone=alone, first=first)
        self.inside.append((flow, alone))
        self.history.append(flow)
        assert len(self.inside) <= max(1, self.limit)
        assert len(self.inside) == 1 or not any(is_alone for _, is_alone in self.inside)
        try:
            await door.wait()
        finally:
            self.inside.remove((flow, alone))
            self.limiter.leave(call)
            assert not alone or call.was_alone

    async def let_all_go(self) -> None:
        while any(not task.done() for task in self.tasks):
            for door in self.doors:
                door.set()
            await settle()


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def test_flows_take_turns() -> None:
    visitors = Visitors(1)
    for _ in range(50):
        await visitors.come("thousand lines")
    await visitors.come("bystander")
    await visitors.come("bystander")
    await visitors.let_all_go()
    places = [n for n, flow in enumerate(visitors.history) if flow == "bystander"]
    assert places == [2, 4]


async def test_dry_runs_have_a_part_and_keep_nobody_waiting() -> None:
    visitors = Visitors(16)
    for _ in range(20):
        await visitors.come(DRY_RUN)
    assert len(visitors.inside) == 2
    for _ in range(14):
        await visitors.come("order")
    assert len(visitors.inside) == 16
    await visitors.let_all_go()
    assert len(visitors.history) == 34


async def test_a_call_that_has_to_be_alone_waits_and_keeps_the_others_waiting() -> None:
    visitors = Visitors(8)
    await visitors.come("a")
    await visitors.come("b", alone=True)
    await visitors.come("c")
    assert [flow for flow, _ in visitors.inside] == ["a"]
    visitors.doors[0].set()
    await settle()
    assert visitors.inside == [("b", True)]
    await visitors.let_all_go()
    assert visitors.history == ["a", "b", "c"]


async def test_one_that_gives_up_keeps_nobody_waiting() -> None:
    visitors = Visitors(8)
    await visitors.come("a")
    await visitors.come("b", alone=True)
    await visitors.come("c")
    visitors.tasks[1].cancel()
    await settle()
    assert [flow for flow, _ in visitors.inside] == ["a", "c"]
    await visitors.let_all_go()


async def test_whether_a_call_was_alone_is_known_at_its_end() -> None:
    limiter = Limiter(lambda: 8)
    first, second = await limiter.enter(), await limiter.enter()
    limiter.leave(second)
    third = await limiter.enter()
    limiter.leave(first)
    limiter.leave(third)
    fourth = await limiter.enter()
    limiter.leave(fourth)
    assert [call.was_alone for call in (first, second, third, fourth)] == [False, False, False, True]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["come", "first"]), st.sampled_from(["a", "b", "c", DRY_RUN]), st.booleans()),
        st.tuples(st.just("go"), st.integers(0, 30), st.just(value=False)),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(value=False)),
        st.tuples(st.just("limit"), st.integers(1, 9), st.just(value=False)),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_comes_and_goes_all_get_in_and_no_bound_is_broken(
    steps: list[tuple[str, object, bool]],
) -> None:
    async def search() -> None:
        visitors = Visitors(4)
        cancelled = 0
        for what, which, alone in steps:
            if what in ("come", "first"):
                await visitors.come(which, alone=alone, first=what == "first")
            elif what == "limit":
                visitors.limit = max(visitors.limit, int(str(which)))
            elif isinstance(which, int) and which < len(visitors.tasks) and not visitors.tasks[which].done():
                if what == "go":
                    visitors.doors[which].set()
                else:
                    visitors.tasks[which].cancel()
                    cancelled += 1
                await settle()
        async with asyncio.timeout(20):
            await visitors.let_all_go()
        assert len(visitors.history) >= len(visitors.tasks) - cancelled
        assert not visitors.inside
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*visitors.tasks, return_exceptions=True)

    asyncio.run(search())


async def test_a_dry_run_that_has_to_be_alone_has_its_turn_while_others_keep_coming() -> None:
    visitors = Visitors(4)
    for _ in range(4):
        await visitors.come("orders")
    await visitors.come(DRY_RUN, alone=True)
    for n in range(20):
        await visitors.come("orders")
        visitors.doors[n].set()
        await settle()
        if DRY_RUN in visitors.history:
            break
    assert visitors.history.index(DRY_RUN) == 4
    await visitors.let_all_go()


async def test_a_question_that_is_asked_again_goes_before_all_that_wait() -> None:
    visitors = Visitors(1)
    await visitors.come("under way")
    for n in range(50):
        await visitors.come(n)
    await visitors.come("again", alone=True, first=True)
    await visitors.let_all_go()
    assert visitors.history == ["under way", "again", *range(50)]


async def test_those_that_wait_go_on_while_one_after_another_is_asked_again() -> None:
    limiter, history = Limiter(lambda: 1), []

    async def call(name: str, *, first: bool) -> None:
        admitted = await limiter.enter(name, alone=first, first=first)
        history.append(name)
        await settle()
        limiter.leave(admitted)

    async def ask_again() -> None:
        for _ in range(20):
            await call("again", first=True)

    await asyncio.gather(ask_again(), *(call("first question", first=False) for _ in range(10)))
    assert history == ["again", "first question"] * 10 + ["again"] * 10
