"""Functions in the database, put together from steps.

PostgreSQL plans a function once per connection, and text each time: planning was half of what an order cost PostgreSQL.
Unlike a prepared statement, a function belongs to no connection, so it also works through a pooler in transaction mode
(ADR 16).
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg2.errors

from orders.postgres.database import Connection, Cursor, SchemaError

T = TypeVar("T")

_PARAMETER = re.compile(r"%\((\w+)\)s(?:::(\w+(?:\[\])?))?")

# force_generic_plan: the values of the first calls must not shape a plan that is kept. enable_seqscan = off: a plan may
# be made while the table has a dozen rows, and kept when it has many.
_CREATE = """
CREATE FUNCTION {name}({parameters}) RETURNS {returns} LANGUAGE plpgsql {volatility}
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $function$
#variable_conflict use_column
BEGIN
{body}
END $function$
"""


ALWAYS = "true"
"""The condition of a step that is always run."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a function: a condition, and the PL/pgSQL that runs if it holds.

    In both, `%(name)s::type` is a parameter. Its type has to be named at least once.
    """

    when: str
    run: str

    @property
    def body(self) -> str:
        """The step as it stands in the function."""
        statements = self.run.strip().rstrip(";") + ";"
        return statements if self.when == ALWAYS else f"IF {self.when} THEN\n{statements}\nEND IF;"


def any_of(parameter: str, kind: str) -> str:
    """The condition that the parameter, an array of this type, is not empty."""
    return f"cardinality(%({parameter})s::{kind}[]) > 0"


def is_true(parameter: str) -> str:
    """The condition that the parameter is true."""
    return f"%({parameter})s::boolean"


class Function:
    """A function in the database, made if it is missing.

    Its name ends with a digest of its text, so that replicas of two versions each have their own.
    """

    def __init__(self, name: str, steps: Iterable[Step], rows: str | None = None, *, only_reads: bool = False) -> None:
        """`rows`: the columns of the result, like `id uuid, document text`. `only_reads`: the function sees the same
        rows as the statement that calls it. Raises ValueError if a parameter has no type.
        """
        text = "\n".join(step.body for step in steps)
        types = _types(text)
        body = _PARAMETER.sub(r"p_\1", text)
        parameters = ", ".join(f"p_{parameter} {kind}" for parameter, kind in types.items())
        returns = "SETOF record" if rows else "void"
        volatility = "STABLE" if only_reads else "VOLATILE"
        digest = hashlib.sha256(f"{_CREATE} {parameters} {returns} {volatility} {body}".encode()).hexdigest()[:12]
        self.name = f"orders_{name}_{digest}"
        self._create = _CREATE.format(
            name=self.name, parameters=parameters, returns=returns, volatility=volatility, body=body
        )
        self._rows = f" AS {name}({rows})" if rows else ""
        self._call = "SELECT * FROM " + self.of(*(f"%({parameter})s::{kind}" for parameter, kind in types.items()))

    def of(self, *arguments: str) -> str:
        """The function's rows, for a FROM."""
        return f"{self.name}({', '.join(arguments)}){self._rows}"

    def call(self, cursor: Cursor, parameters: Mapping[str, Any]) -> None:
        """Call the function. The cursor then has its rows."""
        self.run(cursor, lambda: cursor.execute(self._call, parameters))

    def run(self, cursor: Cursor, query: Callable[[], T]) -> T:
        """Run a query that uses the function, outside a transaction. The function is made if it is missing, because the
        database may have come from an older backup.
        """
        try:
            return query()
        except psycopg2.errors.UndefinedFunction:
            self.create(cursor)
            return query()

    def create(self, cursor: Cursor) -> None:
        """Make the function. Safe from several replicas at once."""
        with contextlib.suppress(psycopg2.errors.DuplicateFunction, psycopg2.errors.UniqueViolation):
            cursor.execute(self._create)


def install(connection: Connection, functions: Iterable[Function]) -> None:
    """Make the missing ones of these functions. Raises SchemaError if this role may not."""
    with connection.cursor() as cursor:
        for function in missing(cursor, functions):
            try:
                function.create(cursor)
            except psycopg2.errors.InsufficientPrivilege as error:
                reason = str(error).strip()
                raise SchemaError(f"{reason}. Run `orders migrate` as a role that may make functions.") from None


def missing(cursor: Cursor, functions: Iterable[Function]) -> list[Function]:
    """The functions that the database does not have yet."""
    by_name = {function.name: function for function in functions}
    cursor.execute("SELECT name FROM unnest(%s::text[]) name WHERE to_regproc(name) IS NULL", (list(by_name),))
    return [by_name[name] for (name,) in cursor.fetchall()]


def _types(text: str) -> dict[str, str]:
    """The parameters with their types, in the order of their names."""
    found: dict[str, str] = {}
    for name, kind in _PARAMETER.findall(text):
        found[name] = kind or found.get(name, "")
    if untyped := [name for name, kind in found.items() if not kind]:
        raise ValueError(f"no type is named for {', '.join(untyped)}")
    return dict(sorted(found.items()))
