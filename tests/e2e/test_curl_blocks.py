"""The `curl` commands of the README and of docs/ are run as they stand there, and answered as the page says.

Each page is a story that is told to a new service with a new sandbox and an empty database. A block of commands is
fenced as `bash`. The fence behind it, if it is `http` or `json`, is the answer to its last command: it has the same
members, types and plain values. IDs, times and the like differ, and are carried over into later commands. `…` in an
answer stands for members that the page leaves out. Other answers than 2xx are shown with their status.

A block that can't be run has a comment in front of it: `<!-- not run: the reason -->`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ORDERS, Http, Sandbox, answers, free_port, wait_until
from tests.e2e.conftest import Service, listening, start_service, stop

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"(?:^<!-- not run: (?P<why>[^>]+?) -->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
STRAY = re.compile(r"^(?:    |\t|\$ )\s*curl ", re.M)
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    if re.search(r"^curl ", page.read_text(), re.M)
)
ELSEWHERE = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"  # an order's ID
    r"|[0-9a-f]{32}"  # a request's ID
    r"|\d{4}-\d\d-\d\dT[0-9:.]+Z"  # a time
    r"|/\S*\?\S*"  # the address of a next page
)
"""Texts that are others each time."""
COUNTED = ("id", "number", "orders", "units", "revenue")
"""Members of which only the type counts. IDs and numbers: two orders that are placed at once may have them either way
round. What a report counts: that depends on the day of the test.
"""
END = "=== that was one answer ==="
AS_A_FUNCTION = f"""
curl() {{ command curl --silent --show-error --max-time 30 --include "$@"; printf '\\n{END}\\n'; }}
"""


@dataclass(frozen=True)
class Block:
    """Commands, and the answer that the page shows behind them."""

    line: int
    commands: str
    shown: str | None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


def blocks(text: str) -> list[Block]:
    """The blocks with a `curl` that are to be run."""
    fences = list(FENCE.finditer(text))
    found = []
    for at, fence in enumerate(fences):
        if fence["kind"] == "bash" and re.search(r"^curl ", fence["text"], re.M) and not fence["why"]:
            behind = fences[at + 1] if at + 1 < len(fences) else None
            is_answer = behind and behind["kind"] in ("http", "json") and not text[fence.end() : behind.start()].strip()
            shown = behind["text"] if behind and is_answer else None
            found.append(Block(text[: fence.start()].count("\n") + 1, fence["text"], shown))
    return found


def run(commands: str, dsn: str) -> list[Answer]:
    """What each `curl` of these commands got. `orders` is ours, and finds the service's database."""
    ours = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DATABASE_URL": dsn}
    words = ["bash", "-c", AS_A_FUNCTION + commands]
    ended = subprocess.run(words, env={**os.environ, **ours}, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout.count(END) == len(re.findall(r"^curl ", commands, re.M)), ended.stderr
    return [understood(text.strip("\n")) for text in ended.stdout.split(END)[:-1]]


def understood(text: str) -> Answer:
    """A status line, headers and a body, as `curl -i` prints them and as a page shows them."""
    head, _, body = text.partition("\n\n")
    first, *lines = head.splitlines()
    assert first.startswith("HTTP/"), f"no answer: {text!r}"
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), {name.lower(): value for name, value in headers.items()}, body)


def parsed(text: str) -> Any:
    """JSON in which a `…` may stand for members that are left out."""
    parts = re.split(r'("(?:[^"\\]|\\.)*")', text)
    plain = [part if part.startswith('"') else part.replace("…", '"…": 0') for part in parts]
    return json.loads("".join(plain))


class Story:
    """What was seen so far: what a page calls by one ID has another one here."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def told(self, commands: str) -> str:
        for shown, real in self.names.items():
            commands = commands.replace(shown, real)
        return commands

    def compare(self, shown: Any, real: Any, at: str = "") -> None:
        """Fail where they differ in more than what differs each time."""
        if isinstance(shown, dict) and isinstance(real, dict):
            self._compare_members(shown, real, at)
        elif isinstance(shown, list) and isinstance(real, list):
            assert len(shown) == len(real), f"{at}: {len(shown)} entries are shown, {len(real)} came"
            for n, (one, other) in enumerate(zip(shown, real, strict=True)):
                self.compare(one, other, f"{at}/{n}")
        else:
            self._compare_values(shown, real, at)

    def _compare_members(self, shown: dict[str, Any], real: dict[str, Any], at: str) -> None:
        missing, more = shown.keys() - real.keys() - {"…"}, real.keys() - shown.keys()
        assert not missing, f"{at}: not in the answer: {missing}"
        assert not more or "…" in shown, f"{at}: not on the page: {more}"
        for name in shown.keys() & real.keys():
            self.compare(shown[name], real[name], f"{at}/{name}")

    def _compare_values(self, shown: Any, real: Any, at: str) -> None:
        assert type(shown) is type(real), f"{at}: {shown!r} is shown, {real!r} came"
        if isinstance(shown, str) and ELSEWHERE.fullmatch(shown):
            assert ELSEWHERE.fullmatch(real), f"{at}: {shown!r} is shown, {real!r} came"
            self.names[shown] = real
        elif at.rsplit("/", 1)[-1] not in COUNTED:
            assert self.told(shown) == real if isinstance(shown, str) else shown == real, f"{at}: {shown!r} != {real!r}"


@pytest.fixture
def toys(http: Http) -> Iterator[Sandbox]:
    """A sandbox of this page's own, as `orders dev` begins it."""
    catalog, carts = free_port(), free_port()
    ports = ["--catalog-port", str(catalog), "--cart-port", str(carts)]
    process = subprocess.Popen([*ORDERS, "sandbox", *ports], stdout=subprocess.DEVNULL)
    toys = Sandbox(http, f"http://127.0.0.1:{catalog}", f"http://127.0.0.1:{carts}")
    try:
        wait_until(lambda: answers(toys.catalog_url) and answers(toys.cart_url), "the sandbox answers")
        yield toys
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def service(http: Http, toys: Sandbox, empty_dsn: str) -> Iterator[Service]:
    running = start_service(http, database_url=empty_dsn, catalog_url=toys.catalog_url, cart_url=toys.cart_url)
    yield listening(running)
    stop([running])


@pytest.mark.skipif(shutil.which("curl") is None and "CI" not in os.environ, reason="curl is not installed")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_answered_as_it_says(
    page: str, service: Service, toys: Sandbox, empty_dsn: str
) -> None:
    story = Story()
    for block in blocks((ROOT / page).read_text()):
        here = story.told(block.commands)
        for port, url in ((8000, service.url), (8001, toys.catalog_url), (8002, toys.cart_url)):
            here = here.replace(f"localhost:{port}", url.removeprefix("http://"))
        got = run(here, empty_dsn)
        where = f"{page}:{block.line}"
        must_be_well = got if block.shown is None or not block.shown.startswith("HTTP/") else got[:-1]
        for answer in must_be_well:
            assert 200 <= answer.status < 300, f"{where}: {answer}"
        if block.shown is not None:
            _compare(story, block.shown, got[-1], where)


def _compare(story: Story, shown: str, got: Answer, where: str) -> None:
    body = shown
    if shown.startswith("HTTP/"):
        expected = understood(shown)
        assert (expected.status, expected.headers.keys() - got.headers.keys()) == (got.status, set()), f"{where}: {got}"
        body = expected.body
    if body.strip():
        try:
            story.compare(parsed(body), json.loads(got.body), where)
        except AssertionError as error:
            pytest.fail(f"{error}\nThe answer was:\n{got.body}")


def test_every_curl_command_is_in_a_block_that_is_run_or_says_why_not() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        text = page.read_text()
        assert not STRAY.search(text), f"{page.name}: a curl command outside of a block that is fenced as bash"
        for fence in FENCE.finditer(text):
            if re.search(r"^\s*(\$ )?curl ", fence["text"], re.M):
                assert fence["kind"] == "bash", f"{page.name}: {fence['text']}"


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ('{"a": 1}', {"a": "1"}),
        ('{"a": 1}', {"a": 2}),
        ('{"a": 1}', {"a": 1, "b": 2}),
        ('{"a": 1, "b": 2}', {"a": 1}),
        ('{"a": [1]}', {"a": []}),
        ('{"a": null}', {"a": 1}),
        ('{"a": 1, …}', {"b": 1}),
        ('{"at": "2026-11-24T02:45:24.710116Z"}', {"at": "now"}),
    ],
)
def test_an_answer_that_differs_is_noticed(shown: str, real: Any) -> None:
    with pytest.raises(AssertionError):
        Story().compare(parsed(shown), real)


def test_what_a_page_leaves_out_and_what_differs_each_time_is_no_difference() -> None:
    story = Story()
    first, second = "01a20aba-6e99-743f-8292-11e9cafb05ea", "01a20b71-9ba4-7706-bca7-e64472bcc954"
    story.compare(
        parsed(f'{{"id": "{first}", "number": 1, "note": "a … b", … }}'),
        {"id": second, "number": 3, "note": "a … b", "x": 1},
    )
    assert story.told(f"curl localhost:8000/orders/{first}") == f"curl localhost:8000/orders/{second}"
