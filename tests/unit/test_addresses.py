"""Addresses may carry passwords: what is wrong with one is said, and nothing of it is repeated."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.postgres.connecting import connect, with_defaults
from orders.postgres.unavailable import DatabaseUnavailable
from orders.settings import Settings, SettingsError, load_settings
from orders.settings.address import base_url, database_address, shown

TOKENS = ("QZXJV", "VKWQX", "XJQZK")
"""What a test's password is made of. No word, no host and no number that we print has them."""

secrets = st.tuples(*[st.text(alphabet=":/?#[]@!$&'()*+,;= %\\\"<>|^`{}~-_.é\t0123456789ab", max_size=3)] * 4).map(
    lambda between: between[0] + "".join(token + gap for token, gap in zip(TOKENS, between[1:], strict=True))
)


def leaks(said: str) -> bool:
    return any(token.lower() in said.lower() for token in TOKENS)


@pytest.mark.parametrize(
    ("given_url", "kept"),
    [
        ("http://catalog.internal:8001", "http://catalog.internal:8001"),
        ("https://catalog/base/", "https://catalog/base"),
        (" http://catalog \n", "http://catalog"),
        ("http://[::1]:8001//", "http://[::1]:8001"),
        ("http://ann:p%40ss@catalog", "http://ann:p%40ss@catalog"),
        ("HTTP://catalog", "HTTP://catalog"),
    ],
)
def test_a_base_url_is_taken_without_slashes_at_its_end(given_url: str, kept: str) -> None:
    assert base_url(given_url) == kept


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("catalog:8001", "must begin with http:// or https://"),
        ("catalog", "must begin with http:// or https://"),
        ("", "must begin with http:// or https://"),
        ("ftp://catalog", "must begin with http:// or https://, not with ftp://"),
        ("http://", "must name a host"),
        ("http://:8001", "must name a host"),
        ("http://catalog:0", "a port from 1 to 65535"),
        ("http://catalog:99999", "a port that can't be"),
        ("http://catalog:x", "a port that can't be"),
        ("http://[::1", "a host or a port that can't be"),
        ("http://cata log", "without spaces"),
        ("http://catalog\\x", "without spaces, backslashes"),
        ("http://catalog?shop=1", "no query"),
        ("http://catalog/?", "no query"),
        ("http://catalog/#top", "no fragment"),
        ("http://ann:pa/ss@catalog", "a port that can't be"),
        ("http://ann:12/ss@catalog", "has an @ after a slash"),
        ("http://ann:p%zz@catalog", "begins no escape"),
        ("http://ann:p%ff@catalog", "begins no escape of UTF-8"),
        ("http://catalog\udcff", "control characters"),
    ],
)
def test_what_is_no_base_url_is_refused_in_a_sentence(wrong: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        base_url(wrong)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://catalog:8001/base", "http://catalog:8001/base"),
        ("http://ann:secret@catalog:8001/base", "http://***@catalog:8001/base"),
        ("http://token@catalog", "http://***@catalog"),
        ("http://ann:s@cret@catalog", "http://***@catalog"),
    ],
)
def test_a_url_is_shown_without_user_and_password(url: str, seen: str) -> None:
    assert shown(url) == seen


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("postgres://ann:p@ss@db/shop", "write %40 and %2F"),
        ("postgres://ann:p/ss@db/shop", "write %40 and %2F"),
        ("postgresql+psycopg2://ann:ss@db/shop", "must begin with postgresql://"),
        ("mysql://ann:ss@db/shop", "must begin with postgresql://"),
        ("jdbc:postgresql://db/shop", "must begin with postgresql://"),
        ("nonsense", "no key=value pair"),
        ("host=db password=p ss", "no key=value pair"),
        ("host=db password='ss", "is not closed"),
        ("host=db pass=ss", "a key that libpq does not know"),
        ("postgres://db/shop?pass=ss", "what follows its ?"),
        ("postgres://ann:p%zz@db/shop", "a % begins no escape"),
        ("postgres://ann:1:ss@db:x/shop", "its port is not a number"),
        ("host=ann:p@db password=x", "its host has an @"),
        ("postgres://ann:\udcff@db", "a character that is no text"),
    ],
)
def test_a_dsn_that_libpq_would_misread_is_refused_in_a_sentence(wrong: str, sentence: str) -> None:
    with pytest.raises((ValueError, SettingsError), match=re.escape(sentence)) as refused:
        with_defaults(database_address(wrong))
    assert "ss@" not in str(refused.value)


@pytest.mark.parametrize(
    "good",
    [
        "postgres://ann:p%40ss@db:5432,db2/shop?target_session_attrs=read-write",
        "postgresql://%2Fvar%2Frun%2Fpostgresql/shop",
        "postgresql:///shop?host=/run/postgresql&password=p@ss",
        "host=db user=ann@server password='p ss\\'x' dbname=shop",
        "postgres://ann%40server:ss@db/shop\n",
        "postgres://ann:p?s s@db/shop",
    ],
)
def test_a_good_dsn_is_taken(good: str) -> None:
    assert "keepalives_idle" in with_defaults(database_address(good))


@given(
    secret=secrets,
    template=st.sampled_from(
        [
            "http://ann:{}@127.0.0.1:1", "http://{}@127.0.0.1:1/x", "https://127.0.0.1:1?key={}", "http:/{}@127.0.0.1",
            "{}", "ann:{}@127.0.0.1", "http://127.0.0.1:{}", "{}://127.0.0.1", "http://ann:{}", "http://[{}]/",
        ]
    ),
    name=st.sampled_from(["catalog_url", "cart_url"]),
)  # fmt: skip
def test_no_part_of_a_neighbours_password_is_ever_repeated(secret: str, template: str, name: str) -> None:
    said, loaded = "", None
    try:
        loaded = load_settings(_env_file=None, **{name: template.format(secret)})
    except SettingsError as error:
        said = f"{error} {error.__cause__ or ''}"
    assert not leaks(f"{said} {loaded!r}")
    if loaded and "@" in template:
        assert not leaks(shown(getattr(loaded, name)))


@settings(deadline=None)
@given(
    secret=secrets,
    template=st.sampled_from(
        [
            "postgres://ann:{}@127.0.0.1:1/shop", "postgresql://{}@127.0.0.1:1", "postgres://127.0.0.1:1/shop?password={}",
            "host=127.0.0.1 port=1 password={}", "host=127.0.0.1 port=1 password='{}'", "{}", "ann:{}@127.0.0.1",
            "postgresql+asyncpg://ann:{}@127.0.0.1/shop", "postgres//ann:{}@127.0.0.1:1", "password={} port=1",
        ]
    ),
)  # fmt: skip
def test_no_part_of_the_databases_password_is_ever_repeated(secret: str, template: str) -> None:
    said, loaded = "", None
    try:
        loaded = load_settings(_env_file=None, database_url=template.format(secret))
        connect(with_defaults(str(loaded.database_url)))
    except (SettingsError, DatabaseUnavailable) as error:
        said = str(error)
    assert said  # there is no database at port 1
    assert not leaks(f"{said} {loaded!r}")


def test_the_settings_of_a_stack_trace_show_no_password() -> None:
    given_settings = Settings(
        _env_file=None, db_name="shop", db_password=TOKENS[0], catalog_url=f"http://{TOKENS[0]}@x"
    )  # type: ignore[call-arg]
    assert not leaks(repr(given_settings))
    assert not leaks(str(given_settings))
