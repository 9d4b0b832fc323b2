"""The addresses of the service: they tell the operation of a request by its method and its path.

They are made once, from the routes. The framework would try one route after the other for each request. Here a path
without parameters is one look into a dictionary, and all routes of one path are tried at once.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
    """The methods that the address has, as the `Allow` header says them. Empty: there is no such address."""


@dataclass(frozen=True, slots=True)
class _Address:
    """A path, and where requests to it go by their method."""

    pattern: re.Pattern[str]
    targets: Mapping[str, Target]
    otherwise: Target


_NOWHERE = Target(NOTHING_THERE)
_NO_PARAMETERS: dict[str, str] = {}
_Routes = dict[str, tuple[Operation, Route | Mount]]
"""The routes of one path, by their method."""


class Addresses:
    """The addresses of the service. A path without parameters goes before one with parameters."""

    def __init__(self, routes: Iterable[BaseRoute], table: Mapping[str, Operation]) -> None:
        """Raises TableIncomplete."""
        addresses = {path: _address(path, by_method) for path, by_method in _by_path(routes, table).items()}
        self._exact = {path: address for path, address in addresses.items() if "{" not in path}
        self._patterns = [address for path, address in addresses.items() if "{" in path]

    def find(self, scope: Scope) -> tuple[Target, dict[str, str]]:
        """Where the request goes, and the parameters in its path. HEAD has to be GET by now."""
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


def _by_path(routes: Iterable[BaseRoute], table: Mapping[str, Operation]) -> dict[str, _Routes]:
    """The routes by their path and method, each with its operation. Raises TableIncomplete."""
    missing, found = dict(table), dict[str, _Routes]()
    for route in map(_understood, routes):
        name = str(route.name)
        if name not in missing:
            why = "has two routes" if name in table else "is not in the table of operations"
            raise TableIncomplete(f"{name} {why}: {route!r}")
        operation = missing.pop(name)
        path, methods = _place(route)
        by_method = found.setdefault(path, {})
        for method in methods:
            if method in by_method:
                raise TableIncomplete(f"{method} {path} has two routes: {by_method[method][1]!r} and {route!r}")
            by_method[method] = operation, route
    if missing:
        raise TableIncomplete(f"These operations have no route: {', '.join(missing)}")
    return found


def _understood(route: BaseRoute) -> Route | Mount:
    """The route, if it is of a kind whose operation can be found. Raises TableIncomplete."""
    if isinstance(route, Mount) and not route.routes:  # of files
        return route
    if not isinstance(route, Route):
        raise TableIncomplete(f"Of this kind of route the operation can't be found: {route!r}")
    if not route.methods:
        raise TableIncomplete(f"A route has to name its methods: {route!r}")
    if any(type(convertor) is not StringConvertor for convertor in route.param_convertors.values()):
        raise TableIncomplete(f"A parameter in a path is a text; what is no ID is refused by its function: {route!r}")
    return route


def _place(route: Route | Mount) -> tuple[str, set[str]]:
    """The path of a route, and its methods."""
    if isinstance(route, Mount):
        return f"{route.path}/{{path:path}}", {"GET"}
    return route.path, (route.methods or set()) - {"HEAD"}


def _address(path: str, routes: _Routes) -> _Address:
    also = {"OPTIONS", "HEAD"} if "GET" in routes else {"OPTIONS"}
    allowed = ", ".join(sorted(routes.keys() | also))
    targets = {method: Target(operation, route, allowed) for method, (operation, route) in routes.items()}
    targets["OPTIONS"] = Target(OPTIONS, None, allowed)
    return _Address(compile_path(path)[0], targets, Target(METHOD_NOT_ALLOWED, None, allowed))
