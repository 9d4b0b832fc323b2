"""A reader of Server-Sent Events for tests, as the standard has it: it connects again with `Last-Event-ID`."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from tests.conftest import wait_until

AGAIN_S = 0.05
"""Pause before a reader connects again. Browsers take some seconds."""


@dataclass
class Reader:
    """Follows a stream in a thread until it is stopped. `where` says the address of the service, each time anew."""

    where: Callable[[], str]
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    last_id: str = ""
    comments: int = 0
    connected: int = 0
    ended: int = 0
    """How often a connection was made, and how often a stream came to a proper end."""
    status: int = 0
    _is_over: bool = False
    _socket: socket.socket | None = None

    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(timeout=20)

    @property
    def positions(self) -> list[int]:
        return [event["position"] for event in self.events]

    def until_open(self, times: int = 1) -> Self:
        """Begin, and return once the stream has said where it begins."""
        self.__enter__()
        wait_until(lambda: self.connected >= times and self.last_id, "the stream is open")
        return self

    def until(self, count: int) -> list[dict[str, Any]]:
        """The events, once there are so many."""
        wait_until(lambda: len(self.events) >= count, f"{count} events have come")
        return self.events

    def _follow(self) -> None:
        while not self._is_over:
            try:
                self._read()
                self.ended += 1
            except (OSError, http.client.HTTPException, AttributeError, ValueError):
                pass  # it broke off, or nobody listens
            if self.status not in (0, 200):
                return
            time.sleep(AGAIN_S)

    def _read(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.where()).netloc, timeout=60)
        last = {"Last-Event-ID": self.last_id} if self.last_id else {}
        try:
            connection.request("GET", self.path, headers={**self.headers, **last})
            self._socket = connection.sock
            with connection.getresponse() as answer:
                self.status = answer.status
                if answer.status == 200:
                    self._take(answer)
        finally:
            connection.close()

    def _take(self, answer: http.client.HTTPResponse) -> None:
        self.connected += 1
        kind, data, last_id = "", list[str](), self.last_id
        while line := answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            if line == "\n":
                self.last_id = last_id
                if data:
                    self.kinds.append(kind)
                    self.events.append(json.loads("\n".join(data)))
                kind, data = "", []
            elif not name:
                self.comments += 1
            elif name == "id":
                last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
