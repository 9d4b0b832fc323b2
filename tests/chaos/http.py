"""A client with three outcomes: an answer, no answer, and a request that was certainly not sent."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError


class NotReached(Exception):
    """No connection was made. The request has had no effect."""


class NoAnswer(Exception):
    """The request was sent, and no answer came. Its effect is unknown."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `body` is a text if it is not JSON."""

    status: int
    body: Any
    is_replayed: bool
    etag: str | None


class Http:
    """The client of one party, which is named by `user_agent`."""

    def __init__(self, user_agent: str) -> None:
        self._client: Client = ClientBuilder().user_agent(user_agent).follow_redirects(False).build()

    async def send(
        self,
        method: str,
        url: str,
        body: Any = None,
        *,
        patience_s: float = 2.0,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request. Raises NotReached, or NoAnswer after `patience_s`."""
        request = self._client.request(method, url).timeout(timedelta(seconds=patience_s)).headers(headers or {})
        if body is not None:
            request = request.body_json(body)
        try:
            response = await request.build().send()
            text = await response.text()
        except PyreqwestError as error:
            raise (NotReached if _was_refused(error) else NoAnswer)(error.message) from None
        finally:
            _heed_cancellation()
        is_replayed = response.get_header("Idempotent-Replayed") == "true"
        return Reply(response.status, _parse(text), is_replayed, response.get_header("ETag"))

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


def _heed_cancellation() -> None:
    """Raise a cancellation that the library forgot. It forgets one that comes at the same moment as the answer, and
    Ctrl-C would take minutes.
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


def _was_refused(error: PyreqwestError) -> bool:
    """Whether no connection was made. It does not count if a process was killed while it had our request."""
    causes = getattr(error, "details", {}).get("causes") or []
    return "Connection refused" in str(causes)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
