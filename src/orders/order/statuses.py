"""The table of statuses: which exist, which may follow which, which are final, which give stock back.

It is read from a TOML file and checked; the built-in one is `workflow.toml`. The database holds the same table
(`statuses_sql`), and the one in the database decides.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orders.settings import SettingsError

BUILT_IN = Path(__file__).with_name("workflow.toml")

PENDING, FAILED = "Pending", "Failed"
"""Statuses that only placing and its recovery set or leave. A file must not name them."""

ORDERED = "Ordered"
"""The first status of every placed order."""

CANCELLED, RETURNED = "Cancelled", "Returned"
"""Statuses to which cancelling and returning a whole order lead, in a table that has them."""

_NAME = re.compile(r"[^\W_]+([ -][^\W_]+)*")
_MAX_NAME = 40


@dataclass(frozen=True, slots=True)
class Status:
    """A status, and the statuses that may follow it, in the table's order. From a hold an order may also go back."""

    name: str
    label: str
    description: str
    following: tuple[str, ...] = ()
    is_hold: bool = False
    is_final: bool = False
    gives_stock_back: bool = False


@dataclass(frozen=True)
class Workflow:
    """The table. `statuses` is in the order of an order's life. An order goes forward along `line`.
    `text` is the file.
    """

    statuses: tuple[Status, ...]
    line: tuple[str, ...]
    text: str

    @cached_property
    def by_name(self) -> dict[str, Status]:
        """Each status under its name."""
        return {status.name: status for status in self.statuses}

    def parse(self, text: str) -> str | None:
        """The status that `text` names, or None. "on hold", "On_Hold" and "ON  HOLD" are the same."""
        return self._by_key.get(status_key(text))

    def allowed(self, status: str, held_from: str | None = None, *, adopted: bool = False) -> tuple[str, ...]:
        """The statuses that may follow `status`.

        An adopted order may have a status that was never in the table, or `Pending` with another meaning. It may then
        go to every status that a person can set. Any other order whose status is missing in the table has a final one
        of an earlier table.
        """
        known = self.by_name.get(status)
        if adopted and (known is None or status == PENDING):
            return tuple(s.name for s in self.statuses if s.name not in (PENDING, FAILED))
        if known is None:
            return ()
        return tuple(dict.fromkeys([*([held_from] if known.is_hold and held_from else ()), *known.following]))

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {status_key(status.name): status.name for status in self.statuses}

    def document(self) -> dict[str, Any]:
        """The table as `GET /workflow` shows it."""
        return {
            "initial": ORDERED,
            "line": list(self.line),
            "statuses": [
                {
                    "status": s.name,
                    "label": s.label,
                    "description": s.description,
                    "allowed_statuses": list(s.following),
                    "hold": s.is_hold,
                    "final": s.is_final,
                    "gives_stock_back": s.gives_stock_back,
                }
                for s in self.statuses
            ],
            "mermaid": self.mermaid(),
        }

    def mermaid(self) -> str:
        """The graph as a Mermaid diagram. Thick arrows are the line, where skipping is allowed. Dotted arrows go there
        and back.
        """
        names = {status.name: f"s{n}" for n, status in enumerate(self.statuses)}
        lines = ["flowchart LR"]
        for status in self.statuses:
            opening, closing = ('(["', '"])') if status.is_final else ('["', '"]')
            lines.append(f"    {names[status.name]}{opening}{_escaped(status.label)}{closing}")
        lines += [f"    {names[a]} {arrow} {names[b]}" for a, arrow, b in self._arrows()]
        return "\n".join(lines) + "\n"

    def _arrows(self) -> Iterator[tuple[str, str, str]]:
        yield PENDING, "-->", ORDERED
        yield PENDING, "-->", FAILED
        for here, there in zip(self.line, self.line[1:], strict=False):
            yield here, "==>", there
        place = {name: n for n, name in enumerate(self.line)}
        for status in self.statuses:
            for name in status.following:
                if not (status.name in place and place.get(name, -1) > place[status.name]):
                    yield status.name, "<-.->" if self.by_name[name].is_hold else "-->", name


def load_workflow(path: Path | None = None) -> Workflow:
    """The table in this file, or the built-in one. Raises SettingsError with a line per mistake."""
    file = path or BUILT_IN
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"ORDERS_WORKFLOW: {file} can't be read: {error}") from None
    try:
        return parse_workflow(text)
    except ValueError as error:
        raise SettingsError("\n".join(f"ORDERS_WORKFLOW: {file}: {line}" for line in str(error).splitlines())) from None


def parse_workflow(text: str) -> Workflow:
    """The table in this text. Raises ValueError with a line per mistake."""
    try:
        read = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML: {error}") from None
    except ValidationError as error:
        raise ValueError("\n".join(f"{_place(e['loc'])}: {e['msg']}" for e in error.errors())) from None
    if wrong := list(_wrong_names(read)):
        raise ValueError("\n".join(wrong))
    workflow = Workflow(_statuses(read), tuple(read.line), text)
    if wrong := list(_wrong_graph(workflow)):
        raise ValueError("\n".join(wrong))
    return workflow


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    label: str = Field("", max_length=60, pattern=r"^[^\x00-\x1f\x7f]*$")
    description: str = Field("", max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")
    next: list[str] = []
    hold: bool = False
    final: bool = False
    gives_stock_back: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    line: list[str] = []
    statuses: dict[str, _Entry] = Field(max_length=100)


def _statuses(read: _File) -> tuple[Status, ...]:
    """The file's statuses between the service's own. Each has all statuses that may follow it."""
    entries = [
        Status(
            name,
            entry.label or name,
            entry.description,
            _following(name, entry, read),
            is_hold=entry.hold,
            is_final=entry.final,
            gives_stock_back=entry.gives_stock_back,
        )
        for name, entry in read.statuses.items()
    ]
    pending = Status(PENDING, PENDING, "Being placed: never shown as placed, and nobody was told so.")
    failed = Status(FAILED, FAILED, "Was never placed; whatever stock was taken goes back.", is_final=True)
    return pending, *entries, failed


def _following(name: str, entry: _Entry, read: _File) -> tuple[str, ...]:
    later = read.line[read.line.index(name) + 1 :] if name in read.line else []
    return tuple(other for other in read.statuses if other in {*later, *entry.next})


def _wrong_names(read: _File) -> Iterator[str]:
    """Mistakes in the names of the file. They are looked for first, because the graph needs right names."""
    if ORDERED not in read.statuses:
        yield f"statuses: {ORDERED} is missing; every placed order begins there"
    seen: dict[str, str] = {}
    for name in read.statuses:
        yield from _wrong_name(name, seen)
    yield from _unknown("line", read.line, read)
    if len(set(read.line)) < len(read.line):
        yield "line: a status is named twice"
    for name, entry in read.statuses.items():
        yield from _unknown(f"{_place(('statuses', name))}.next", entry.next, read)
        if name in entry.next:
            yield f"{_place(('statuses', name))}.next: a status can't follow itself"


def _wrong_name(name: str, seen: dict[str, str]) -> Iterator[str]:
    where = _place(("statuses", name))
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        yield f"{where}: a name is words of letters and digits with single spaces or hyphens, at most {_MAX_NAME} long"
    if status_key(name) in (status_key(PENDING), status_key(FAILED)):
        yield f"{where}: this status belongs to the service; leave it out"
    if status_key(name) in seen:
        yield f"{where}: this is the same name as {seen[status_key(name)]!r}; upper and lower case are one"
    seen[status_key(name)] = name


def _unknown(where: str, names: Iterable[str], read: _File) -> Iterator[str]:
    for name in names:
        if name in (PENDING, FAILED):
            yield f"{where}: only the service moves an order to {name}"
        elif name not in read.statuses:
            close = difflib.get_close_matches(name, read.statuses, 1)
            yield f"{where}: there is no status {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _wrong_graph(workflow: Workflow) -> Iterator[str]:
    """Mistakes in the graph. The names are right."""
    steps = _steps(workflow)
    reached = _reachable(ORDERED, steps)
    for status in workflow.statuses[1:-1]:
        where = _place(("statuses", status.name))
        yield from (f"{where}: {what}" for what in _wrong_status(status, workflow))
        if status.name != ORDERED and status.name not in reached:
            yield f"{where}: no order can get here from {ORDERED}; name it in some status's `next`, or in `line`"
    yield from _twice_back(workflow, steps)


def _wrong_status(status: Status, workflow: Workflow) -> Iterator[str]:
    if status.is_final and status.following:
        yield f"it is final, and yet {', '.join(status.following)} may follow"
    if not status.is_final and not status.following and not status.is_hold:
        yield "nothing may follow it; say so with `final = true`, or name what does in `next`"
    if status.is_hold and (status.is_final or status.gives_stock_back or status.name in (*workflow.line, ORDERED)):
        yield f"a hold can't be final, give stock back, be in `line`, or be {ORDERED}"
    if status.is_hold and any(workflow.by_name[name].is_hold for name in status.following):
        yield "a hold can't be followed by a hold: it would forget where the order was"
    if status.name == ORDERED and status.gives_stock_back:
        yield "an order that was just placed needs its stock"
    if status.name == CANCELLED and not status.gives_stock_back:
        yield "a cancelled order gives its stock back: `gives_stock_back = true`"


def _twice_back(workflow: Workflow, steps: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Statuses that would give stock back a second time. Stock that went back is not the order's any more."""
    givers = [s.name for s in workflow.statuses if s.gives_stock_back or s.name == RETURNED]
    for name in givers:
        for again in givers:
            if again in _reachable(name, steps):
                yield (
                    f"{_place(('statuses', name))}: its stock is dealt with, and yet {again} can follow, which would "
                    "give it back again"
                )


def _steps(workflow: Workflow) -> dict[str, tuple[str, ...]]:
    """The steps that an order can take from each status. From a hold it can go back to each status that leads to the
    hold.
    """
    back = {
        hold.name: tuple(s.name for s in workflow.statuses if hold.name in s.following)
        for hold in workflow.statuses
        if hold.is_hold
    }
    return {s.name: (*s.following, *back.get(s.name, ())) for s in workflow.statuses}


def _reachable(start: str, steps: Mapping[str, Sequence[str]]) -> set[str]:
    """The statuses that can be reached from `start` in one step or more."""
    reached: set[str] = set()
    ahead = list(steps[start])
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead.extend(steps[name])
    return reached


def status_key(text: str) -> str:
    """A key that is the same for all spellings of one status."""
    return " ".join(text.replace("_", " ").split()).casefold()


def _place(loc: Iterable[str | int]) -> str:
    return ".".join(f'"{part}"' if " " in str(part) else str(part) for part in loc)


def _escaped(label: str) -> str:
    """The label for Mermaid: characters with a meaning there become codes like `#35;`."""
    return re.sub(r'[#"<>&;]', lambda found: f"#{ord(found[0])};", label)
