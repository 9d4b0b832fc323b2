"""Which operation a request is, by its method and its path. Made once from the routes, and asked once per request.

The framework tries one route after the other. Here a path that is written out is one look into a dictionary, and the
routes of one path are tried once.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from starlette.convertors import StringConvertor
from starlette.routing import BaseRoute, Mount, Route, compile_path
from starlette.types import Scope

from orders.wire.operations import METHOD_NOT_ALLOWED, NOTHING_THERE, OPTIONS, Operation


class TableIncomplete(Exception):
    """The routes and the table of operations are not the same. The message names the difference."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: to a route or, without one, to an answer that the gate gives by itself."""

    operation: Operation
    route: Route | Mount | None = None
    allowed: str = ""
    """The methods that the address has, as `Allow` says them."""


@dataclass(slots=True)
class _Address:
    """A path, and where requests to it go."""

    pattern: re.Pattern[str]
    routes: dict[str, tuple[Operation, Route | Mount]] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    otherwise: Target = field(default_factory=lambda: Target(METHOD_NOT_ALLOWED))

    def close(self) -> None:
        """All routes are there: say which methods the address has."""
        has_get = {"HEAD"} if "GET" in self.routes else set()
        allowed = ", ".join(sorted({*self.routes, *has_get, "OPTIONS"}))
        self.targets = {method: Target(*found, allowed) for method, found in self.routes.items()}
        self.targets["OPTIONS"] = Target(OPTIONS, None, allowed)
        self.otherwise = Target(METHOD_NOT_ALLOWED, None, allowed)


_NOWHERE = Target(NOTHING_THERE)
_NO_PARAMETERS: dict[str, str] = {}


class Addresses:
    """The addresses of the service. A path that is written out goes before one with parameters."""

    def __init__(self, routes: Iterable[BaseRoute], table: Mapping[str, Operation]) -> None:
        """Raises TableIncomplete."""
        self._addresses: dict[str, _Address] = {}
        missing = dict(table)
        for route in routes:
            known = _known(route)
            name = str(known.name)
            if name not in missing:
                why = "has two routes" if name in table else "is not in the table of operations"
                raise TableIncomplete(f"{name} {why}: {known!r}")
            self._add(known, missing.pop(name))
        if missing:
            raise TableIncomplete(f"These operations have no route: {', '.join(missing)}")
        for address in self._addresses.values():
            address.close()
        self._exact = {path: one for path, one in self._addresses.items() if "{" not in path}
        self._patterns = [one for path, one in self._addresses.items() if "{" in path]

    def _add(self, route: Route | Mount, operation: Operation) -> None:
        path, methods = _place(route)
        address = self._addresses.setdefault(path, _Address(compile_path(path)[0]))
        for method in methods:
            if method in address.routes:
                raise TableIncomplete(f"{method} {path} has two routes: {address.routes[method][1]!r} and {route!r}")
            address.routes[method] = operation, route

    def find(self, scope: Scope) -> tuple[Target, dict[str, str]]:
        """Where the request goes, and what is in its path. Its method is never HEAD."""
        path = _path(scope)
        address, parameters = self._exact.get(path), _NO_PARAMETERS
        if address is None:
            for address in self._patterns:
                if match := address.pattern.fullmatch(path):
                    parameters = match.groupdict()
                    break
            else:
                return _NOWHERE, parameters
        return address.targets.get(scope["method"], address.otherwise), parameters


def _path(scope: Scope) -> str:
    """The path below the one at which a proxy has the service (`--root-path`)."""
    path: str = scope["path"]
    root = scope.get("root_path")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _known(route: BaseRoute) -> Route | Mount:
    """The route, if it is of a kind whose operation can be found. Raises TableIncomplete."""
    if isinstance(route, Mount) and not route.routes:
        return route
    if not isinstance(route, Route):
        raise TableIncomplete(f"Of this kind of route the operation can't be found: {route!r}")
    if any(type(convertor) is not StringConvertor for convertor in route.param_convertors.values()):
        raise TableIncomplete(f"What is in a path is a text, or what is no ID would not be 404: {route!r}")
    return route


def _place(route: Route | Mount) -> tuple[str, set[str]]:
    """Its path, and its methods. Raises TableIncomplete."""
    if isinstance(route, Mount):  # of files
        return f"{route.path}/{{path:path}}", {"GET"}
    if not route.methods:
        raise TableIncomplete(f"A route has to name its methods: {route!r}")
    return route.path, route.methods - {"HEAD"}
