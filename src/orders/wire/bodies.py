"""JSON bodies, read strictly: in UTF-8, without NaN, and without a member twice in one object."""

import json
import re
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from orders.errors import OrderError, invalid
from orders.wire.failures import Refused

MAX_MEMBERS = 100
"""Maximum number of members of one object: twice as many as `metadata` may have."""

MAX_NAMES = 20_000
"""Maximum number of members in a whole body: 1,000 orders to move have 4,000. Colons are counted before parsing,
because parsing 100,000 members takes a tenth of a second.
"""

MAX_DIGITS = 400
"""Maximum length of a number. A double has 309 digits before its point."""

MAX_PLACES = 10_000
"""Maximum number of objects and lists that are searched for a member that is there twice. No good body has half as
many.
"""


class BodyRoute(APIRoute):
    """A route whose body is read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that reads its body strictly."""
        answer = super().get_route_handler()

        async def answer_strictly(request: Request) -> Response:
            return await answer(StrictRequest(request.scope, request.receive))

        return answer_strictly


class StrictRequest(Request):
    """A request whose `json` is strict."""

    async def json(self) -> Any:
        """The body. Raises JSONDecodeError or Refused."""
        return read_json(await self.body())


def read_json(body: bytes) -> Any:
    """The document in a body. Raises JSONDecodeError, or Refused (422) for what Python alone would accept."""
    if body.count(b":") > MAX_NAMES:
        raise Refused(invalid("#", "too_many_members", "The body has too many members."))
    try:
        return (_CAREFUL if _LONG_NUMBER.search(body) else _STRICT).decode(body.decode())
    except json.JSONDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise Refused(invalid("#", "json_invalid", f"The body is not UTF-8, at byte {error.start}.")) from None
    except RecursionError:
        raise Refused(invalid("#", "json_invalid", "The body is nested too deep.")) from None
    except _TooMany as error:
        message = f"An object has at most {MAX_MEMBERS} members; one in this body has {error.args[0]}."
        raise Refused(invalid("#", "too_many_members", message)) from None
    except _Twice:
        raise Refused(_find(body)) from None
    except ValueError as error:
        raise Refused(invalid("#", "json_invalid", f"The body is not JSON: {error}.")) from None


class _Twice(Exception):
    """An object has a member twice."""


class _TooMany(Exception):
    """An object has too many members."""


def _read_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members) > MAX_MEMBERS:
        raise _TooMany(len(members))
    document = dict(members)
    if len(document) < len(members):
        raise _Twice
    return document


def _read_integer(digits: str) -> int:
    return int(_short(digits))


def _read_float(digits: str) -> float:
    return float(_short(digits))


def _short(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has at most {MAX_DIGITS} digits")
    return digits


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


_LONG_NUMBER = re.compile(rb"[0-9.eE+-]{%d}" % (MAX_DIGITS + 1))
_STRICT = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_read_object)
_CAREFUL = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_read_integer, parse_float=_read_float, object_pairs_hook=_read_object
)
"""The decoder that looks at the length of each number. Calling Python for each number costs more than all the rest."""


def _find(body: bytes) -> OrderError:
    """The error for the first object that has a member twice. The body is parsed again, because only this error needs
    the place.
    """
    document = json.loads(body.decode(), object_pairs_hook=_Members)
    places: deque[tuple[str, Any]] = deque([("#", document)])
    for _ in range(MAX_PLACES):
        if not places:
            break
        pointer, value = places.popleft()
        if isinstance(value, _Members):
            names = [name for name, _ in value]
            seen: set[str] = set()
            for name in names:
                if name in seen:
                    return invalid(
                        _below(pointer, name), "duplicate_member", f"The member {name[:60]!r} is twice there."
                    )
                seen.add(name)
            places += [(_below(pointer, name), inner) for name, inner in value]
        elif isinstance(value, list):
            places += [(f"{pointer}/{n}", v) for n, v in enumerate(value[:MAX_PLACES]) if isinstance(v, list)]
    return invalid("#", "duplicate_member", "An object in the body has a member twice.")


class _Members(list[tuple[str, Any]]):
    """All members of an object, also those with the same name."""


def _below(pointer: str, name: str) -> str:
    return f"{pointer}/{name[:60].replace('~', '~0').replace('/', '~1')}"
