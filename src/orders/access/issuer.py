"""HTTP to the issuer of tokens: where its keys are (OpenID Connect Discovery), and the keys, with bounds."""

import asyncio
from collections.abc import Collection
from typing import Any

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError

from orders.access.jwks import KeySet, read_key_set
from orders.neighbours.reply import MalformedReply, Reply, brief, read_body, reason
from orders.settings.address import shown

MAX_DOCUMENT_BYTES = 256 * 1024
"""Maximum size of a document of the issuer. Real ones have 1 to 20 KB."""

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
        if not isinstance(url, str) or not url.startswith(self._schemes()):
            raise IssuerAway(f"its discovery has no usable jwks_uri: {brief(url)}")
        return url

    def _schemes(self) -> tuple[str, ...]:
        """What the keys' address may begin with. Keys of an https:// issuer don't come over http://."""
        return ("https://",) if self.name.startswith("https://") else ("https://", "http://")


async def _get(client: Client, url: str) -> Any:
    """A document in JSON. Raises IssuerAway or MalformedReply."""
    try:
        async with client.get(url).build_streamed() as response:
            if response.status != 200:  # a redirect, too: it could lead anywhere
                raise IssuerAway(f"{shown(url)} answered {response.status}")
            body = await read_body(response, MAX_DOCUMENT_BYTES)
    except PyreqwestError as error:
        raise IssuerAway(f"{shown(url)} did not answer: {reason(error)}") from None
    try:
        return Reply(200, body, None).json()
    except MalformedReply as error:
        raise MalformedReply(f"{shown(url)}: {error}") from None
