"""HTTP to the issuer of tokens: where its keys are (OpenID Connect Discovery), and the keys, with bounds."""

import asyncio
from collections.abc import Collection
from typing import Any

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError

from orders.access.jwks import KeySet, read_key_set
from orders.neighbours.reply import MalformedReply, Reply, brief, read_body, reason
from orders.settings.address import shown
from orders.settings.tokens import keys_url

MAX_DOCUMENT_BYTES = 256 * 1024
"""Maximum size of a document of the issuer. Real ones have 1 to 20 KB."""

MAX_URL_CHARS = 2000
"""Maximum length of the keys' address."""

DISCOVERY = "/.well-known/openid-configuration"


class IssuerAway(Exception):
    """The issuer did not give its keys. The message says why, without passwords."""


class Issuer:
    """An issuer, by its name in tokens. `jwks_url`: where its keys are; without it, discovery tells.

    `timeout_s`: timeout for all that is asked of it at one time.
    """

    def __init__(self, name: str, jwks_url: str | None, algorithms: Collection[str], timeout_s: float) -> None:
        self.name = name
        self._jwks_url = jwks_url
        self._algorithms = algorithms
        self._timeout_s = timeout_s

    async def key_set(self, client: Client) -> KeySet:
        """Its keys for these algorithms. Raises IssuerAway."""
        try:
            async with asyncio.timeout(self._timeout_s):
                url = self._jwks_url or await self._discover(client)
                document = await _get(client, url)
            return read_key_set(document, self._algorithms)
        except TimeoutError:
            raise IssuerAway(f"there was no answer within {self._timeout_s:g} s") from None
        except MalformedReply as error:
            raise IssuerAway(str(error)) from None

    async def _discover(self, client: Client) -> str:
        """The address of the keys. The document has to name this issuer, as the standard demands."""
        document = await _get(client, self.name.rstrip("/") + DISCOVERY)
        named = document.get("issuer") if isinstance(document, dict) else None
        if named != self.name:
            raise IssuerAway(f"its discovery names another issuer: {brief(named)}")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not self._may_be_at(url):
            raise IssuerAway(f"its discovery has no usable jwks_uri: {brief(url)}")
        return url

    def _may_be_at(self, url: str) -> bool:
        """Whether keys may come from this address. Those of an https:// issuer don't come over http://."""
        try:
            is_address = keys_url(url) == url and len(url) <= MAX_URL_CHARS
        except ValueError:
            return False
        return is_address and (url.startswith("https://") or not self.name.startswith("https://"))


async def _get(client: Client, url: str) -> Any:
    """A document in JSON. Raises IssuerAway or MalformedReply."""
    try:
        request = client.get(url)
    except ValueError:  # the library's own idea of an address
        raise IssuerAway(f"{shown(url)} did not answer: it is no address") from None
    try:
        async with request.build_streamed() as response:
            if response.status != 200:  # a redirect, too: it could lead anywhere
                raise IssuerAway(f"{shown(url)} answered {response.status}")
            body = await read_body(response, MAX_DOCUMENT_BYTES)
    except PyreqwestError as error:
        raise IssuerAway(f"{shown(url)} did not answer: {reason(error)}") from None
    try:
        return Reply(200, body, None).json()
    except MalformedReply as error:
        raise MalformedReply(f"{shown(url)}: {error}") from None
