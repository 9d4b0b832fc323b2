"""Which tokens are valid, and whose they are. Every attack on tokens that is known to us is a row here."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey

from orders.access import tokens as tokens_module
from orders.access.claims import ClaimRules
from orders.access.jwks import KeySet, read_key_set
from orders.access.tokens import MAX_TOKEN_CHARS, TokenRules, Tokens, tokens_by
from orders.errors import OrderError
from orders.principal import ALL_SCOPES, CustomerMay, Principal, PrincipalKind, Scope, Seer
from orders.settings import Settings
from orders.settings.tokens import ALGORITHMS as EVERY_ALGORITHM
from tests.made_up_issuer import (
    AUDIENCE,
    EC,
    ED,
    EVERY_KEY,
    ISSUER,
    NOW,
    OTHER_RSA,
    RSA,
    Server,
    claims,
    customer,
    part,
    public,
    serving,
    signed,
)

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
MAY = frozenset({CustomerMay.READ})
CUSTOMER_42 = Principal(
    PrincipalKind.CUSTOMER,
    "customer:42",
    "customer:42",
    frozenset(),
    Seer(customer_id=42, sees_private=False),
    customer_may=MAY,
)


class KnownKeys:
    """The issuer's keys, as they are known: they were fetched just now, and no fetch finds others."""

    def __init__(self, *keys: Any, algorithms: frozenset[str] = ALGORITHMS) -> None:
        self.keys: KeySet | None = read_key_set(public(*keys), algorithms)
        self.look_count = 0

    def current(self) -> KeySet | None:
        return self.keys

    async def look_again(self) -> None:
        self.look_count += 1


class Checking:
    """Tokens with keys, a claim of the customer's ID, and a clock."""

    def __init__(
        self,
        *keys: Any,
        claim: str = "customer_id",
        staff_claim: str | None = "permissions",
        algorithms: frozenset[str] = ALGORITHMS,
        now: float = NOW,
    ) -> None:
        self.now = now
        self.keys = KnownKeys(*(keys or EVERY_KEY), algorithms=algorithms)
        rules = TokenRules(ISSUER, AUDIENCE, algorithms, ClaimRules(claim, MAY, staff_claim))
        self.tokens = Tokens(rules, self.keys, lambda: self.now)  # type: ignore[arg-type]  # a fake at the port

    async def find(self, token: str) -> Principal | OrderError | None:
        assert self.tokens.is_one(token)
        found = self.tokens.find(token)
        return found if found is None or isinstance(found, Principal | OrderError) else await found


# Valid ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    [
        customer(),
        signed(claims(), key=EC, algorithm="ES256"),
        signed(claims(), key=ED, algorithm="EdDSA"),
        customer(customer_id="42"),
        customer(aud=["shop", AUDIENCE]),
        customer(nbf=NOW, iat=NOW),
        customer(exp=NOW + 600.5),
        customer(exp=10**300),
        customer(sub=...),
        customer(nested={"a": [1, {"b": None}]}, name="Ünïcode 🛒"),
        signed(claims(), {"alg": "RS256", "kid": "rsa", "typ": "at+JWT"}),
        signed(claims(), {"alg": "RS256", "kid": "rsa", "typ": "JWT", "of_the_issuer": {"own": 1}}),
        signed(claims(), {"alg": "EdDSA"}, key=ED, algorithm="EdDSA"),
    ],
)
async def test_a_valid_token_is_its_customers(token: str) -> None:
    assert await Checking().find(token) == CUSTOMER_42


async def test_every_algorithm_of_the_setting_works() -> None:
    keys = dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA)
    more = {"ES256": EC, "ES384": ECKey.generate_key("P-384", {"kid": "e3"}), "ES512": ECKey.generate_key("P-521")}
    more["ES512"].ensure_kid()
    everyone: dict[str, Any] = {**keys, **more, "EdDSA": ED, "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "e9"})}
    assert set(everyone) == set(EVERY_ALGORITHM)
    for name, key in everyone.items():
        checking = Checking(key, algorithms=frozenset({name}))
        assert await checking.find(signed(claims(), key=key, algorithm=name)) == CUSTOMER_42, name


@pytest.mark.parametrize(
    ("times", "is_valid"),
    [
        ({"exp": NOW - 59}, True),
        ({"exp": NOW - 60}, False),
        ({"exp": NOW - 120}, False),
        ({"nbf": NOW + 60}, True),
        ({"nbf": NOW + 120}, False),
        ({"iat": NOW + 60}, True),
        ({"iat": NOW + 120}, False),
        ({"iat": NOW - 10**8}, True),
    ],
)
async def test_clocks_may_differ_by_a_minute(times: dict[str, int], is_valid: bool) -> None:
    assert (await Checking().find(customer(**times)) is not None) == is_valid


def test_tokens_are_understood_only_if_an_issuer_is_set() -> None:
    assert tokens_by(Settings(_env_file=None)) is None
    given = {"orders_jwt_issuer": ISSUER, "orders_jwt_audience": AUDIENCE}
    assert isinstance(tokens_by(Settings(_env_file=None, **given)), Tokens)


async def test_a_token_may_have_so_many_characters_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MAX_TOKEN_CHARS", len(customer()))
    assert await Checking().find(customer()) == CUSTOMER_42
    monkeypatch.setattr(tokens_module, "MAX_TOKEN_CHARS", len(customer()) - 1)
    assert await Checking().find(customer()) is None


def test_an_issuer_closes_local_mode() -> None:
    assert Checking().tokens.exist()


# Attacks -------------------------------------------------------------------------------------------------------------


def with_secret(secret: bytes, algorithm: str = "HS256") -> str:
    """A token whose secret is something that everybody knows."""
    begin = f"{part({'alg': algorithm, 'kid': 'rsa'})}.{part(claims())}"
    return f"{begin}.{part(hmac.new(secret, begin.encode(), hashlib.sha256).digest())}"


def unsigned(algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'kid': 'rsa'})}.{part(claims())}."


def raw(text: str) -> str:
    """A signed token whose payload is this text."""
    return signed(text.encode())


def in_header(**members: Any) -> str:
    return signed(claims(), {"alg": "RS256", "kid": "rsa", **members})


VALID = customer()
EXPONENT = "9" * 5000
DEEP = "[" * 1500 + "]" * 1500

ATTACKS: dict[str, str] = {
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg nOnE": unsigned("nOnE"),
    "alg empty": unsigned(""),
    "no signature": unsigned("RS256"),
    "the public key as secret, PEM": with_secret(RSA.as_pem()),
    "the public key as secret, DER": with_secret(RSA.as_der()),
    "the public key as secret, JWK": with_secret(json.dumps(RSA.as_dict(private=False)).encode()),
    "an empty secret": with_secret(b""),
    "HS384": with_secret(b"x", "HS384"),
    "an algorithm that is not allowed": signed(claims(), {"alg": "RS512", "kid": "rsa"}, algorithm="RS512"),
    "alg says ES256, the key is RSA": signed(claims(), {"alg": "ES256", "kid": "rsa"}),
    "alg says RS256, the key is EC": signed(claims(), {"alg": "RS256", "kid": "ec"}, key=EC, algorithm="ES256"),
    "alg says EdDSA, the key is RSA": signed(claims(), {"alg": "EdDSA", "kid": "rsa"}),
    "PSS where PKCS 1 is named": signed(claims(), {"alg": "RS256", "kid": "rsa"}, algorithm="PS256"),
    "no alg": signed(claims(), {"kid": "rsa"}),
    "alg is a list": in_header(alg=["RS256"]),
    "alg is null": in_header(alg=None),
    "another's key under a known kid": signed(claims(), {"alg": "RS256", "kid": "rsa"}, key=OTHER_RSA),
    "another kid of ours": in_header(kid="ed"),
    "an unknown kid": signed(claims(), key=OTHER_RSA),
    "kid is a path": in_header(kid="../../../../dev/null"),
    "kid is SQL": in_header(kid="' UNION SELECT 'secret"),
    "kid is a number": in_header(kid=1),
    "kid is empty": in_header(kid=""),
    "its own key, jwk": signed(
        claims(), {"alg": "RS256", "kid": "other", "jwk": OTHER_RSA.as_dict(private=False)}, key=OTHER_RSA
    ),
    "its own key under our kid, jwk": signed(
        claims(), {"alg": "RS256", "kid": "rsa", "jwk": OTHER_RSA.as_dict(private=False)}, key=OTHER_RSA
    ),
    "x5c": signed(claims(), {"alg": "RS256", "kid": "rsa", "x5c": ["MIIB"]}, key=OTHER_RSA),
    "crit": in_header(crit=["exp"], exp=NOW),
    "crit is empty": in_header(crit=[]),
    "crit is null": in_header(crit=None),
    "b64": in_header(b64=False),
    "b64 and crit": in_header(b64=False, crit=["b64"]),
    "a token for logging out": in_header(typ="logout+jwt"),
    "a proof of possession": in_header(typ="dpop+jwt"),
    "typ is a list": in_header(typ=["JWT"]),
    "the header has alg twice": signed(claims(), b'{"alg": "none", "alg": "RS256", "kid": "rsa"}'),
    "the header is a list": signed(claims(), [{"alg": "RS256"}]),
    "the header is deep": signed(claims(), b'{"alg": "RS256", "kid": "rsa", "x": ' + DEEP.encode() + b"}"),
    "the header is not JSON": signed(claims(), b"\xff\xfe"),
    "the header is empty": f".{part(claims())}.AAAA",
    "no exp": customer(exp=...),
    "exp is null": customer(exp=None),
    "exp is text": customer(exp=str(NOW + 600)),
    "exp is true": customer(exp=True),
    "exp is NaN": raw(json.dumps(claims(exp=float("nan")))),
    "exp is infinite": raw(json.dumps(claims(exp=float("inf")))),
    "exp overflows to infinity": raw(json.dumps(claims()).replace(str(NOW + 600), "1e999")),
    "exp has 5,000 digits": raw(json.dumps(claims()).replace(str(NOW + 600), EXPONENT)),
    "exp is negative": customer(exp=-(10**300)),
    "nbf is text": customer(nbf="0"),
    "iat is an object": customer(iat={}),
    "no aud": customer(aud=...),
    "a foreign aud": customer(aud="shop"),
    "a list of foreign auds": customer(aud=["shop", "orders2"]),
    "an empty list of auds": customer(aud=[]),
    "aud is an object": customer(aud={AUDIENCE: 1}),
    "aud has a list": customer(aud=[[AUDIENCE]]),
    "aud in other case": customer(aud=AUDIENCE.upper()),
    "aud with a space": customer(aud=f"{AUDIENCE} "),
    "no iss": customer(iss=...),
    "a foreign iss": customer(iss="https://evil.example/"),
    "iss without its slash": customer(iss=ISSUER.rstrip("/")),
    "iss is a list": customer(iss=[ISSUER]),
    "iss has more behind it": customer(iss=f"{ISSUER}.evil.example"),
    "truncated": VALID[:-1],
    "the signature of another token": f"{VALID.rpartition('.')[0]}.{customer(sub='eve').rpartition('.')[2]}",
    "the payload of another token": ".".join((VALID.split(".")[0], part(claims(customer_id=7)), VALID.split(".")[2])),
    "only dots": "..",
    "huge": customer(padding="x" * MAX_TOKEN_CHARS),
    "a token in a token": signed(VALID.encode(), {"alg": "RS256", "kid": "rsa", "cty": "JWT"}),
    "the payload is a list": signed([claims()]),
    "the payload is text": signed("claims"),
    "the payload is null": raw("null"),
    "the payload is empty": raw(""),
    "the payload is deep": raw(DEEP),
    "the payload is UTF-16": signed(json.dumps(claims()).encode("utf-16")),
    "the payload has more behind it": raw(json.dumps(claims()) + "{}"),
    "customer_id twice": raw('{"customer_id": 7, ' + json.dumps(claims())[1:]),
    "a member twice, deep inside": raw('{"a": [{"b": 1, "b": 2}], ' + json.dumps(claims())[1:]),
    "a claim is deep": raw('{"deep": ' + DEEP + "," + json.dumps(claims())[1:]),
    "sub is a number": customer(sub=42),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_is_refused(attack: str) -> None:
    assert await Checking().find(ATTACKS[attack]) is None


@pytest.mark.parametrize(
    "customer_id",
    [
        *(None, 0, -1, 2**63, 10**400, 42.0, 4.2, True, False, [42], {"id": 42}, [], {}),
        *("", "0", "042", " 42", "42 ", "42\n", "+42", "-42", "4_2", "42.0", "0x2a", "٤٢", str(2**63), "9" * 30),
    ],
)
async def test_what_is_no_customers_id_makes_no_customer(customer_id: Any) -> None:
    assert await Checking().find(customer(customer_id=customer_id)) is None
    assert await Checking().find(customer(customer_id=customer_id, permissions=["orders:read"])) is None


@pytest.mark.parametrize("customer_id", [1, "1", 2**63 - 1, str(2**63 - 1)])
async def test_the_smallest_and_the_largest_customer_have_tokens(customer_id: Any) -> None:
    found = await Checking().find(customer(customer_id=customer_id))
    assert isinstance(found, Principal)
    assert found.seer.customer_id == int(customer_id)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


async def test_addresses_of_keys_in_a_token_are_never_asked(server: Server) -> None:
    server.say("/keys", public(OTHER_RSA))
    for name in ("jku", "x5u"):
        header = {"alg": "RS256", "kid": "other", name: f"{server.url}/keys"}
        assert await Checking().find(signed(claims(), header, key=OTHER_RSA)) is None
        known = {**header, "kid": "rsa"}
        assert await Checking().find(signed(claims(), known, key=OTHER_RSA)) is None
        assert await Checking().find(signed(claims(), known)) == CUSTOMER_42
    assert server.asked == []


async def test_a_token_without_kid_is_refused_where_several_keys_fit() -> None:
    token = signed(claims(), {"alg": "RS256"})
    assert await Checking(RSA, EC).find(token) == CUSTOMER_42
    assert await Checking(RSA, OTHER_RSA).find(token) is None


@given(position=st.integers(min_value=0), character=st.sampled_from("ABab01-_."))
def test_a_token_with_another_character_anywhere_is_refused(position: int, character: str) -> None:
    at = position % len(VALID)
    changed = VALID[:at] + character + VALID[at + 1 :]
    tokens = Checking().tokens
    if changed != VALID and tokens.is_one(changed):
        found = tokens.find(changed)
        if found is not None:  # another kid: the issuer would be asked
            assert not isinstance(found, Principal | OrderError)
            found.close()  # type: ignore[attr-defined]  # a coroutine


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
SOME_CLAIM = st.sampled_from(["exp", "nbf", "iat", "sub", "scope", "permissions", "email", "customer_id", "aud", "iss"])


@given(st.dictionaries(SOME_CLAIM | st.text(max_size=10), ANY_JSON, max_size=4))
def test_whatever_an_issuer_signs_is_understood_or_refused(changed: dict[str, Any]) -> None:
    found = Checking().tokens.find(signed({**claims(), **changed}))
    if found is not None:
        assert isinstance(found, Principal)
        assert found.kind is PrincipalKind.CUSTOMER
        assert found == (CUSTOMER_42 if "customer_id" not in changed else found)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "cty", "b64", "jwk", "x5c"]) | st.text(), ANY_JSON))
def test_whatever_a_header_says_is_understood_or_refused(changed: dict[str, Any]) -> None:
    found = Checking().tokens.find(signed(claims(), {"alg": "RS256", "kid": "rsa", **changed}))
    if found is not None and not isinstance(found, Principal | OrderError):
        found.close()  # type: ignore[attr-defined]  # a coroutine: it names another kid


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "a.b.c ", "a.b.c=", "ord_k3V9aQ2m_x", "ä.b.c", "a.b.c\n"])
def test_what_has_no_three_parts_is_no_token(text: str) -> None:
    assert not Checking().tokens.is_one(text)


async def test_the_log_tells_once_why_signed_tokens_are_refused_and_nothing_of_forged_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    checking = Checking()
    for _ in range(3):
        for changed in ({"aud": "shop"}, {"exp": NOW - 600}, {"iss": ...}, {"customer_id": ...}):
            assert await checking.find(customer(**changed)) is None
        for attack in ("alg none", "truncated", "another's key under a known kid", "the payload is deep"):
            assert await checking.find(ATTACKS[attack]) is None
    assert [record.getMessage().removeprefix(f"A token of {ISSUER} is not valid: ") for record in caplog.records] == [
        "Invalid claim: 'aud'. This is told once.",
        "The token is expired. This is told once.",
        "Missing claim: 'iss'. This is told once.",
        "it has no customer's ID in customer_id, and no scope of ours in permissions. This is told once.",
    ]


# Whose it is ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "given"),
    [
        ("shop.customer.id", {"shop": {"customer": {"id": 42}}}),
        ("https://shop.example/customer_id", {"https://shop.example/customer_id": 42}),
        ("sub", {"sub": "42"}),
    ],
)
async def test_the_customers_claim_may_be_inside_another(claim: str, given: dict[str, Any]) -> None:
    token = customer(**{"customer_id": ..., **given})
    assert await Checking(claim=claim).find(token) == CUSTOMER_42
    assert await Checking(claim="shop.other").find(token) is None
    assert await Checking(claim=f"{claim}.deeper").find(token) is None


def staff(*scopes: Scope, name: str = "anna", subject: str = "anna", sees_private: bool = False) -> Principal:
    seer = Seer(sees_private=sees_private)
    return Principal(PrincipalKind.STAFF, f"staff:{name}", f"staff:{subject}", frozenset(scopes), seer)


READ = Scope.ORDERS_READ


@pytest.mark.parametrize(
    ("given", "principal"),
    [
        ({"permissions": "openid orders:read"}, staff(READ)),
        ({"permissions": ["orders:read", "cats:feed", 7, None]}, staff(READ)),
        ({"permissions": "orders:change"}, staff(READ, Scope.ORDERS_CHANGE)),
        ({"permissions": ["orders:read", "ops:read"]}, staff(READ, Scope.OPS_READ)),
        ({"permissions": "customers:read"}, staff(Scope.CUSTOMERS_READ, sees_private=True)),
        ({"permissions": " ".join(ALL_SCOPES)}, staff(*ALL_SCOPES, sees_private=True)),
        ({"permissions": "orders:read", "email": "Anna@shop.example"}, staff(READ, name="Anna@shop.example")),
        ({"permissions": "orders:read", "email": "boss@shop.example", "email_verified": False}, staff(READ)),
        ({"permissions": "orders:read", "email": "boss@shop.example", "email_verified": "false"}, staff(READ)),
        ({"permissions": "orders:read", "email": "boss@shop.example", "email_verified": 1}, staff(READ)),
        (
            {"permissions": "orders:read", "email": "boss@shop.example", "email_verified": True},
            staff(READ, name="boss@shop.example"),
        ),
        ({"permissions": "orders:read", "email": 7}, staff(READ)),
        ({"permissions": "orders:read", "email": "a\nb"}, staff(READ)),
        (
            {"permissions": "orders:read", "sub": "auth0|5 ü/x"},
            staff(READ, name="auth0|5%20%C3%BC%2Fx", subject="auth0|5 ü/x"),
        ),
        ({"permissions": "orders:read", "sub": "é" * 255}, staff(READ, name=("%C3%A9" * 99)[:100], subject="é" * 255)),
        ({"permissions": "orders:read", "customer_id": None}, None),
        ({"scope": "orders:read"}, None),
        ({"permissions": "orders:read", "sub": ...}, None),
        ({"permissions": "orders:read", "sub": ""}, None),
        ({"permissions": "orders:read", "sub": "a" * 256}, None),
        ({"permissions": "orders:read", "sub": "a\x00"}, None),
        ({"permissions": "orders:read", "sub": "\ud800"}, None),
        ({"permissions": "openid profile"}, None),
        ({"permissions": "ORDERS:READ"}, None),
        ({"permissions": "orders:read,orders:place"}, None),
        ({"permissions": {"orders:read": 1}}, None),
        ({}, None),
    ],
)
async def test_scopes_of_ours_make_a_token_staffs(given: dict[str, Any], principal: Principal | None) -> None:
    assert await Checking().find(customer(**{"customer_id": ..., **given})) == principal


@pytest.mark.parametrize(
    ("staff_claim", "given", "is_staff"),
    [
        (None, {"scope": "orders:read", "permissions": ["orders:read"]}, False),
        ("scope", {"scope": "openid orders:read"}, True),
        ("scope", {"permissions": ["orders:read"]}, False),
        ("realm.roles", {"realm": {"roles": ["orders:read"]}}, True),
        ("realm.roles", {"realm": None}, False),
        ("https://shop.example/may", {"https://shop.example/may": ["orders:read"]}, True),
    ],
)
async def test_only_the_claim_of_the_setting_makes_a_token_staffs(
    staff_claim: str | None, given: dict[str, Any], is_staff: bool
) -> None:
    token = customer(**{"customer_id": ..., **given})
    assert await Checking(staff_claim=staff_claim).find(token) == (staff(READ) if is_staff else None)


async def test_a_customer_stays_a_customer_whatever_scopes_the_token_has() -> None:
    assert await Checking().find(customer(scope=" ".join(ALL_SCOPES), permissions=list(ALL_SCOPES))) == CUSTOMER_42


# What is remembered --------------------------------------------------------------------------------------------------


def takes_back(checking: Checking) -> None:
    """From now on the issuer has other keys, so that only tokens that are remembered are valid."""
    checking.keys.keys = read_key_set(public(OTHER_RSA), ALGORITHMS)


@pytest.mark.parametrize(
    ("token", "later_s", "is_valid"),
    [
        (VALID, 59, True),
        (VALID, 60, False),
        (customer(exp=NOW + 30), 29, True),
        (customer(exp=NOW + 30), 30, False),
        (customer(exp=NOW - 30), 0, False),
        (VALID, -1, False),
    ],
)
async def test_a_checked_token_is_remembered_for_a_minute_or_until_it_expires(
    token: str, later_s: float, is_valid: bool
) -> None:
    checking = Checking()
    assert await checking.find(token) == CUSTOMER_42
    takes_back(checking)
    checking.now += later_s
    assert (await checking.find(token) is not None) == is_valid


async def test_only_the_last_tokens_are_remembered_and_no_false_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MAX_REMEMBERED", 3)
    checking = Checking()
    several = [customer(sub=f"anna{number}") for number in range(5)]
    for token in several:
        assert await checking.find(token)
        for attack in list(ATTACKS.values())[:10]:
            assert await checking.find(attack) is None
    takes_back(checking)
    assert [bool(await checking.find(token)) for token in several] == [False, False, True, True, True]


# Asking the issuer ---------------------------------------------------------------------------------------------------


WITHOUT_KID = signed(claims(), {"alg": "RS256"})


@pytest.mark.parametrize(
    "token", [VALID, WITHOUT_KID, *(ATTACKS[name] for name in ("alg none", "crit", "huge", "kid is a number"))]
)
async def test_the_issuer_is_not_asked_for_what_is_known_or_can_never_be_valid(token: str) -> None:
    checking = Checking()
    found = checking.tokens.find(token)
    assert found is None or isinstance(found, Principal)
    assert checking.keys.look_count == 0


async def test_without_any_key_a_token_is_answered_503_and_what_can_never_be_valid_401() -> None:
    checking = Checking()
    checking.keys.keys = None
    found = await checking.find(VALID)
    assert isinstance(found, OrderError)
    assert (found.code.value.status, found.code.name, found.retry_after_s) == (503, "TOKENS_UNCHECKED", 5)
    assert checking.keys.look_count == 1
    assert await checking.find(ATTACKS["alg none"]) is None
