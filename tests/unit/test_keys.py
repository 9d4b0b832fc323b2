"""API keys: their format, what they may be given, and how they are held in memory. No database."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from inspect import isawaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.access import known_keys
from orders.access.granting import Preset, refuse_to_give, scopes_of, sorted_scopes
from orders.access.keys import ALPHABET, LENGTH, checksum, digest_of, has_digest, id_of, is_key, make_key
from orders.access.keys_sql import UsableKey, any_exist
from orders.access.known_keys import HOLD_S, MAX_REFUSED, KnownKeys
from orders.access.uses import FORGET_AFTER_S, WRITE_EVERY_S, Uses
from orders.errors import Code, OrderError
from orders.postgres.database import DatabaseUnavailable
from orders.principal import ALL_SCOPES, LOCAL, PRESETS, Principal, PrincipalKind, Scope, Seer, with_implied

# The format ----------------------------------------------------------------------------------------------------------


def test_a_key_has_its_parts_and_no_other_key_is_the_same() -> None:
    made = {make_key() for _ in range(1000)}
    assert len({id_of(key) for key in made}) == len({key[13:56] for key in made}) == 1000
    for key in made:
        assert re.fullmatch(r"ord_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}", key)
        assert len(key) == LENGTH
        assert is_key(key)


def test_a_secret_uses_every_character_and_has_256_bits() -> None:
    drawn = "".join(make_key()[13:56] for _ in range(500))
    assert set(drawn) == set(ALPHABET)
    assert 62**43 > 2**256


def test_the_checksum_is_the_crc32_of_what_is_before_it() -> None:
    assert checksum("ord_k3V9aQ2m_" + "A" * 43) == "427oVm"  # 3695946466 in base62
    assert checksum("") == "000000"


@given(st.integers(0, LENGTH - 1), st.characters())
def test_no_other_character_anywhere_makes_a_key(place: int, other: str) -> None:
    key = make_key()
    changed = key[:place] + other + key[place + 1 :]
    assert is_key(changed) == (changed == key)


@given(st.integers(0, LENGTH - 2))
def test_two_neighbours_that_change_places_make_no_key(place: int) -> None:
    key = make_key()
    turned = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert is_key(turned) == (turned == key)


@given(st.text() | st.text().map(lambda text: f"ord_{text}") | st.binary().map(lambda given: given.decode("latin-1")))
def test_whatever_is_sent_is_no_key_and_no_error(text: str) -> None:
    assert not is_key(text)
    assert not has_digest(text, digest_of(make_key()))
    assert KnownKeys().find(text) is None


def test_a_key_with_more_around_it_is_none() -> None:
    key = make_key()
    for text in (f"{key}\n", f" {key}", f"{key} ", key[:-1], key + key, key.upper(), key.lower()):
        assert not is_key(text)


def test_only_the_key_itself_has_its_digest() -> None:
    key = make_key()
    assert has_digest(key, digest_of(key))
    assert not has_digest(make_key(), digest_of(key))


# What a key may be given ---------------------------------------------------------------------------------------------


def test_each_preset_has_its_scopes() -> None:
    assert set(Preset) == set(PRESETS)
    assert scopes_of([Preset.STOREFRONT], [Scope.REPORTS_READ]) == {
        Scope.ORDERS_READ, Scope.ORDERS_PLACE, Scope.REPORTS_READ,
    }  # fmt: skip
    assert scopes_of([Preset.ADMIN], ()) == ALL_SCOPES


def test_scopes_have_one_order_and_those_of_newer_versions_are_last() -> None:
    assert sorted_scopes(["ops", "new:read", "orders:read"]) == ["orders:read", "ops", "new:read"]
    assert sorted_scopes(ALL_SCOPES) == [str(scope) for scope in Scope]


SCOPES = st.frozensets(st.sampled_from(list(Scope)))


@given(SCOPES, SCOPES, st.sampled_from([None, "web", "pos"]), st.sampled_from([None, "web", "pos"]))
def test_nobody_gives_what_they_do_not_have(
    own: frozenset[Scope], wanted: frozenset[Scope], channel: str | None, wanted_channel: str | None
) -> None:
    holder = Principal(PrincipalKind.KEY, "key:a", "key:a", with_implied(own), Seer(channel=channel))
    may = with_implied(wanted) <= with_implied(own) and channel in (None, wanted_channel)
    with contextlib.nullcontext() if may else pytest.raises(OrderError) as refused:
        refuse_to_give(holder, wanted, wanted_channel)
    if refused:
        assert refused.value.code is Code.NOT_PERMITTED
        missing = with_implied(wanted) - with_implied(own)
        assert refused.value.extra.get("required_scope") in (missing or {None})


def test_a_scope_of_a_newer_version_is_nothing_that_this_one_gives() -> None:
    with pytest.raises(OrderError, match="new:read"):
        refuse_to_give(LOCAL, ["new:read"], None)


# Held in memory ------------------------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Table:
    """Stands for the database at the port `Database.run`; the SQL itself is tested on a real one."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.keys: dict[str, UsableKey] = {}
        self.ends_at: dict[str, float] = {}
        self.ever = False
        self.is_down = False
        self.looked: list[Sequence[str]] = []
        self.asked_for_any = 0
        self.touched: list[Sequence[str]] = []

    def add(self, name: str = "shop", **more: Any) -> str:
        text = make_key()
        given = {"family": id_of(text), "scopes": ["orders:change"], "channel": None, "rate": None, **more}
        self.keys[id_of(text)] = UsableKey(
            id=id_of(text), name=name, digest=digest_of(text), expires_in_s=None, **given
        )
        self.ever = True
        return text

    def usable(self, ids: Sequence[str]) -> list[UsableKey]:
        self.looked.append(list(ids))
        return [self.keys[key_id] for key_id in ids if key_id in self.keys]

    async def run(self, query: Any, lane: Any) -> Any:
        await asyncio.sleep(0)
        if self.is_down:
            raise DatabaseUnavailable("it is away")
        if query is any_exist:
            self.asked_for_any += 1
            return self.ever
        return query(self)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setattr(known_keys, "find_usable", lambda table, ids: table.usable(ids))
    monkeypatch.setattr(known_keys, "touch_used", lambda table, ids: table.touched.append(sorted(ids)))
    monkeypatch.setattr(known_keys, "LOOK_UP_PAUSE_S", 0)
    return Table(clock)


@pytest.fixture
async def keys(clock: Clock, table: Table) -> KnownKeys:
    known = KnownKeys(clock)
    await known.open(table)  # type: ignore[arg-type]
    return known


async def found(keys: KnownKeys, text: str) -> Principal | None:
    result = keys.find(text)
    return await result if isawaitable(result) else result  # type: ignore[return-value]


async def test_a_key_is_looked_up_once_and_then_known_without_waiting(keys: KnownKeys, table: Table) -> None:
    text = table.add(channel="web", rate=5, scopes=["orders:change", "new:read"])
    principal = await found(keys, text)
    assert principal == Principal(
        PrincipalKind.KEY, "key:shop", f"key:{id_of(text)}", frozenset({Scope.ORDERS_CHANGE, Scope.ORDERS_READ}),
        Seer(channel="web", sees_private=False), rate=5,
    )  # fmt: skip
    assert keys.find(text) is principal
    assert table.looked == [[id_of(text)]]


async def test_private_notes_are_for_keys_that_may_read_about_customers(keys: KnownKeys, table: Table) -> None:
    principal = await found(keys, table.add(scopes=["customers:erase"]))
    assert principal is not None
    assert principal.seer.sees_everything


async def test_a_known_key_is_looked_up_again_after_its_time(keys: KnownKeys, table: Table, clock: Clock) -> None:
    text = table.add()
    assert await found(keys, text)
    clock.now += HOLD_S - 0.001
    assert isinstance(keys.find(text), Principal)
    del table.keys[id_of(text)]  # revoked
    clock.now += 0.001
    assert await found(keys, text) is None
    assert keys.find(text) is None  # and that is known, too
    assert len(table.looked) == 2


async def test_the_time_counts_from_before_the_look_up(keys: KnownKeys, table: Table, clock: Clock) -> None:
    text = table.add()
    look_up = keys.find(text)
    assert isawaitable(look_up)
    waiting = asyncio.ensure_future(look_up)
    while not table.looked:
        await asyncio.sleep(0)
    clock.now += HOLD_S  # the answer took so long
    assert await waiting
    assert isawaitable(again := keys.find(text))
    assert await again


async def test_an_expiry_holds_at_every_use(keys: KnownKeys, table: Table, clock: Clock) -> None:
    text = table.add()
    table.keys[id_of(text)] = UsableKey(**{**_members(table.keys[id_of(text)]), "expires_in_s": 1.5})
    assert await found(keys, text)
    clock.now += 1.4
    assert isinstance(keys.find(text), Principal)
    clock.now += 0.1
    del table.keys[id_of(text)]
    assert await found(keys, text) is None


def _members(key: UsableKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in UsableKey.__dataclass_fields__}


async def test_another_secret_with_a_known_id_is_refused_and_nobody_is_asked(keys: KnownKeys, table: Table) -> None:
    text = table.add()
    assert await found(keys, text)
    start = text[:13] + make_key()[13:56]
    assert keys.find(start + checksum(start)) is None
    assert len(table.looked) == 1


async def test_a_wrong_secret_is_refused_also_by_the_look_up(keys: KnownKeys, table: Table) -> None:
    text = table.add()
    start = text[:13] + make_key()[13:56]
    assert await found(keys, start + checksum(start)) is None
    assert isinstance(keys.find(text), Principal)


async def test_a_typing_error_asks_nobody(keys: KnownKeys, table: Table) -> None:
    text = table.add()
    assert keys.find(text[:20] + ("x" if text[20] != "x" else "y") + text[21:]) is None
    assert table.looked == []


async def test_a_flood_of_wrong_keys_takes_few_queries_and_little_memory(keys: KnownKeys, table: Table) -> None:
    text, wrong = table.add(), [make_key() for _ in range(3000)]
    *refused, principal = await asyncio.gather(*(found(keys, each) for each in [*wrong, text]))
    assert refused == [None] * 3000
    assert principal
    assert len(table.looked) <= 3001 / 200 + 2
    for _ in range(5):
        await asyncio.gather(*(found(keys, each) for each in wrong))  # again: they are known to be wrong
    assert sum(map(len, table.looked)) == 3001
    for _ in range(4):
        await asyncio.gather(*(found(keys, make_key()) for _ in range(3000)))
    assert len(keys._refused) == MAX_REFUSED
    assert len(keys._held) == 1
    assert keys._uses.used_at.keys() == {id_of(text)}


async def test_between_two_queries_for_unknown_keys_there_is_a_pause(
    keys: KnownKeys, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_keys, "LOOK_UP_PAUSE_S", 3600)
    assert await found(keys, table.add())
    waiting = asyncio.ensure_future(found(keys, table.add()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(table.looked) == 1
    waiting.cancel()


async def test_without_a_database_known_keys_go_on_for_their_time(keys: KnownKeys, table: Table, clock: Clock) -> None:
    text = table.add()
    assert await found(keys, text)
    table.is_down = True
    with pytest.raises(DatabaseUnavailable):
        await found(keys, make_key())
    assert isinstance(keys.find(text), Principal)
    clock.now += HOLD_S
    with pytest.raises(DatabaseUnavailable):
        await found(keys, text)
    table.is_down = False
    assert await found(keys, text)  # nobody remembers the outage as a refusal


async def test_before_the_start_every_key_is_unavailable_and_none_is_let_in() -> None:
    keys = KnownKeys()
    with pytest.raises(DatabaseUnavailable):
        await found(keys, make_key())
    exist = keys.exist()
    assert isawaitable(exist)
    with pytest.raises(DatabaseUnavailable):
        await exist


async def test_a_start_without_a_database_is_one() -> None:
    table = Table(Clock())
    table.is_down = True
    await KnownKeys().open(table)  # type: ignore[arg-type]


async def test_whether_there_is_a_key_is_known_for_its_time(keys: KnownKeys, table: Table, clock: Clock) -> None:
    assert keys.exist() is False
    clock.now += HOLD_S
    asked = [keys.exist() for _ in range(10)]
    assert await asyncio.gather(*asked) == [False] * 10  # type: ignore[arg-type]
    assert table.asked_for_any <= 3
    assert keys.exist() is False
    table.ever = True
    await keys.look_once()
    assert keys.exist() is True
    table.ever = False
    clock.now += 10 * HOLD_S
    assert keys.exist() is True  # for good
    await keys.look_once()
    assert table.asked_for_any <= 4


async def test_a_key_made_here_is_there_at_once_also_if_somebody_is_just_looking(keys: KnownKeys, clock: Clock) -> None:
    clock.now += HOLD_S
    looking = keys.exist()
    assert isawaitable(looking)
    keys.note_made()
    assert keys.exist() is True
    assert await looking is True


async def test_a_key_that_ended_here_is_looked_up_at_its_next_use(keys: KnownKeys, table: Table) -> None:
    text = table.add()
    assert await found(keys, text)
    del table.keys[id_of(text)]
    keys.note_ended(id_of(text))
    assert await found(keys, text) is None


async def test_keys_in_use_are_read_in_the_background_and_no_request_waits(
    keys: KnownKeys, table: Table, clock: Clock
) -> None:
    text, idle = table.add(), table.add()
    assert await found(keys, text)
    assert await found(keys, idle)
    for _ in range(100):
        clock.now += 2
        await keys.look_once()
        assert isinstance(keys.find(text), Principal)
    assert keys._held.keys() == {id_of(text)}  # the other one was not used for a minute
    del table.keys[id_of(text)]
    await keys.look_once()
    assert keys.find(text) is None


async def test_uses_are_written_once_a_minute_by_the_round_alone(keys: KnownKeys, table: Table, clock: Clock) -> None:
    text = table.add()
    for _ in range(60):  # two minutes
        assert await found(keys, text)
        clock.now += 2
        await keys.look_once()
    assert table.touched == [[id_of(text)]] * 2
    clock.now += 1000
    await keys.look_once()
    clock.now += 1000
    await keys.look_once()
    assert len(table.touched) <= 3  # the last use, and nothing afterwards


async def test_a_use_that_could_not_be_written_is_written_later(keys: KnownKeys, table: Table) -> None:
    text = table.add()
    assert await found(keys, text)
    table.is_down = True
    with pytest.raises(DatabaseUnavailable):
        await keys.look_once()
    table.is_down = False
    await keys.look_once()
    assert table.touched == [[id_of(text)]]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100)), max_size=60))
def test_no_key_is_noted_twice_within_a_minute_and_no_use_is_lost(steps: list[tuple[str, int]]) -> None:
    uses, now, noted = Uses(), 0.0, dict[str, float]()
    for key_id, pause in steps:
        uses.used_at[key_id] = now
        for each in uses.to_write(now):
            assert now - noted.get(each, -WRITE_EVERY_S) >= WRITE_EVERY_S
            noted[each] = now
            uses.written([each], now)
        uses.forget_old(now)
        now += pause
    for each in uses.to_write(now + WRITE_EVERY_S):
        noted[each] = now + WRITE_EVERY_S
    assert all(noted[key_id] >= used_at for key_id, used_at in uses.used_at.items())
    uses.forget_old(now + FORGET_AFTER_S)
    assert uses.used_at == {}
