"""What an operator meets: passwords that never show, a database that refuses, typos in settings, and the doctor."""

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.conftest import ORDERS, Http, Sandbox, execute, free_port, wait_until
from tests.e2e.conftest import Service, Start, listening, start_service, stop
from tests.e2e.test_survival import NEIGHBOURS, run_cli
from tests.servers import EMBEDDED, Cluster

SECRET = "QZXJV"
ROOT = Path(__file__).parents[2]

# Passwords ---------------------------------------------------------------------------------------------------------

MALFORMED = (
    {"database_url": f"postgres://ann:p@{SECRET}@127.0.0.1:1/x", "catalog_url": f"http://ann:{SECRET}@127.0.0.1:9"},
    {"database_url": f"host=127.0.0.1 port=1 password=a {SECRET}", "cart_url": f"http://ann:1/{SECRET}@127.0.0.1"},
    {"database_url": f"postgres://ann:{SECRET}%zz@127.0.0.1:1/x", "catalog_url": f"ann:{SECRET}@127.0.0.1:9"},
    {"database_url": f"postgresql+psycopg2://ann:{SECRET}@127.0.0.1:1/x", "orders_secret": SECRET},
)
COMMANDS = (
    ["serve"], ["dev"], ["migrate"], ["doctor"], ["worker", "--once"], ["show", "1"], ["move", "1", "paid"],
    ["reconcile"], ["export", "-o", "/dev/null", "-f", "csv"],
)  # fmt: skip


def test_no_command_repeats_any_part_of_a_malformed_password() -> None:
    settings = [{**NEIGHBOURS, "port": free_port(), **wrong} for wrong in MALFORMED]
    runs = [(words, settings[n % len(settings)]) for n, words in enumerate(COMMANDS)]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda run: run_cli(*run[0], **run[1]), runs))
    for (words, _), said in zip(runs, ended, strict=True):
        assert (words, said.returncode) == (words, 2), said
        assert SECRET not in said.stdout + said.stderr
        assert "Traceback" not in said.stderr


def test_a_service_that_waits_for_its_database_does_not_repeat_the_password(http: Http, tmp_path: Path) -> None:
    address = f"postgresql://ann@127.0.0.1:1/shop?password={SECRET}"
    with (tmp_path / "log").open("w+") as log:
        service = start_service(http, log=log, database_url=address, **NEIGHBOURS)
        wait_until(lambda: "waiting for the database" in (tmp_path / "log").read_text(), "it says that it waits")
        service.kill()
    assert SECRET not in (tmp_path / "log").read_text()


def test_a_service_with_passwords_in_its_addresses_works_and_never_repeats_them(
    start: Start, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Basic authentication; and the catalog's stays in while the catalog is away."""
    with ClosedCatalog(f"ann:{SECRET}") as catalog, (tmp_path / "log").open("w+") as log:
        named = catalog.url.replace("http://", f"http://ann:{SECRET}@")
        service = start(catalog_url=named, log=log, orders_breaker_failures=1000)
        assert service.place(1, (7, 1)).status == 201
        catalog.close()
        away = service.place(2, (7, 1))
        assert (away.status, away.body["code"]) == (500, "catalog_unavailable")
        answers = [away.body, *(service.get(path).body for path in ("/openapi.json", "/", "/health", "/problems"))]
        assert SECRET not in json.dumps(answers)
        wait_until(lambda: "catalog_unavailable" in (tmp_path / "log").read_text(), "the log has the failure")
        said = (tmp_path / "log").read_text()
        assert "the catalog is http://***@127.0.0.1" in said
        assert SECRET not in said


class ClosedCatalog:
    """A catalog of one product that answers 401 to everyone else."""

    def __init__(self, user_and_password: str, answer: tuple[int, str, bytes] | None = None) -> None:
        wanted = "Basic " + base64.b64encode(user_and_password.encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                self.rfile.read(length)
                product = {"id": 7, "name": "The Last Copy", "price": 95, "quantity": 5}
                status, kind, body = answer or (200, "application/json", json.dumps(product).encode())
                if answer is None and self.headers.get("authorization") != wanted:
                    status, body = 401, b"{}"
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.send_header("location", f"http://ann:{SECRET}@elsewhere/products/7?token={SECRET}")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = answer  # noqa: N815 (the base class calls them so)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "ClosedCatalog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


# A database that refuses -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop_dsn() -> Iterator[str]:
    """A database that wants a password, at a port; the right one is in the DSN."""
    cluster = Cluster(EMBEDDED, free_port())
    try:
        cluster.initialize()
        cluster.ask_for_passwords()
        cluster.start(fsync="off")
        execute(cluster.dsn, "CREATE ROLE shop LOGIN SUPERUSER PASSWORD 'right'")
        yield str(psycopg2.extensions.make_dsn(cluster.dsn, user="shop", password="right"))
    finally:
        cluster.remove()


@pytest.mark.parametrize("words", [["serve"], ["migrate"], ["show", "1"]])
def test_a_wrong_password_ends_every_command_with_a_sentence(shop_dsn: str, words: list[str]) -> None:
    wrong = psycopg2.extensions.make_dsn(shop_dsn, password=SECRET)
    said = run_cli(*words, database_url=wrong, port=free_port(), **NEIGHBOURS)
    assert (said.returncode, "Traceback" in said.stderr) == (2, False), said.stderr
    assert 'password authentication failed for user "shop"' in said.stderr
    assert "Check the user, the password and the database's name in DATABASE_URL" in said.stderr
    assert SECRET not in said.stderr


def test_the_doctor_goes_on_beyond_a_database_that_refuses(shop_dsn: str, sandbox: Sandbox) -> None:
    wrong = psycopg2.extensions.make_dsn(shop_dsn, password=SECRET)
    said = run_cli("doctor", dsn=wrong, sandbox=sandbox)
    assert (said.returncode, SECRET in said.stdout + said.stderr) == (1, False)
    assert "BAD  The database refuses this service" in said.stdout
    assert f"ok   CATALOG_URL ({sandbox.catalog_url})" in said.stdout


def test_a_wrong_password_ends_uvicorn_with_a_sentence(shop_dsn: str) -> None:
    wrong = psycopg2.extensions.make_dsn(shop_dsn, password=SECRET)
    environment = {"PATH": "/usr/bin:/bin", "DATABASE_URL": wrong, "ORDERS_LEASES_S": SECRET}
    environment |= {name.upper(): value for name, value in NEIGHBOURS.items()}
    said = subprocess.run(
        [ORDERS[0], "-m", "uvicorn", "main:app", "--port", str(free_port())],
        env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert said.returncode != 0
    assert "The service can't start. The database refuses this service" in said.stderr
    assert "Traceback" not in said.stderr
    assert said.stderr.count("did you mean ORDERS_LEASE_S?") == 1
    assert SECRET not in said.stderr


def test_a_running_service_outlives_a_password_that_is_changed(http: Http, sandbox: Sandbox, shop_dsn: str) -> None:
    neighbours = {"catalog_url": sandbox.catalog_url, "cart_url": sandbox.cart_url}
    service = listening(start_service(http, database_url=shop_dsn, **neighbours))
    try:
        assert service.get("/health").status == 200
        execute(shop_dsn, "ALTER ROLE shop PASSWORD 'other'")
        admin = psycopg2.extensions.make_dsn(shop_dsn, password="other")
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop' AND pid <> pg_backend_pid()"
        )
        execute(admin, cut)
        wait_until(lambda: service.get("/health").status == 503, "it has noticed")
        assert service.process.poll() is None
        execute(admin, "ALTER ROLE shop PASSWORD 'right'")
        wait_until(lambda: service.get("/health").status == 200, "it has tried again")
    finally:
        stop([service])


# Names that are no settings ------------------------------------------------------------------------------------------


def test_a_typo_is_told_once_when_the_service_starts(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log:
        service: Service = start(log=log, orders_leases_s=SECRET, catalogue_url=SECRET)
        assert service.get("/health").status == 200
    said = (tmp_path / "log").read_text()
    typo = (
        "WARNING orders.settings.unknown: ORDERS_LEASES_S is no setting of this version and does nothing; did you mean"
    )
    assert said.count(typo) == 1
    assert "CATALOGUE_URL" not in said  # CATALOG_URL is set
    assert SECRET not in said


# The doctor, and addresses that lead elsewhere ---------------------------------------------------------------------


def doctor(dsn: str, *words: str, **settings: str) -> list[str]:
    said = run_cli("doctor", *words, dsn=dsn, **settings)
    assert "Traceback" not in said.stderr, said.stderr
    return [line for line in said.stdout.splitlines() if "_URL (" in line]


def test_the_doctor_tells_where_an_address_leads(sandbox: Sandbox, dsn: str) -> None:
    catalog, carts = sandbox.catalog_url, sandbox.cart_url
    product = sandbox.product(5)
    with ThreadPoolExecutor(2) as pool:
        well, swapped, below, nowhere, named, unknown = pool.map(
            lambda given: doctor(dsn, *given[2:], catalog_url=given[0], cart_url=given[1]),
            [
                (catalog, carts),
                (carts, catalog),
                (f"{catalog}/products/", f"{carts}/carts"),
                (f"{catalog}/v2", f"{carts}/v2"),
                (catalog, carts, "--product", str(product)),
                (catalog, carts, "--product", "404404"),
            ],
        )
    assert well == [
        f"ok   CATALOG_URL ({catalog}): GET /products/1 gave a product (name, price, quantity), as the contract says.",
        f"ok   CART_URL ({carts}): answers as the contract says; has no cart of customer 1.",
    ]
    assert [line[:4] for line in (*swapped, *below, *nowhere)] == ["BAD "] * 6
    assert "GET /cart_items answers as a cart service does. Are CATALOG_URL and CART_URL exchanged?" in swapped[0]
    assert "GET /products/1 answers as a catalog does. Are CART_URL and CATALOG_URL exchanged?" in swapped[1]
    assert below[0].endswith(
        f"CATALOG_URL must not end in /products, which is added for each call. Set it to {catalog}"
    )
    assert below[1].endswith(f"CART_URL must not end in /carts, which is added for each call. Set it to {carts}")
    assert "has no product 1, 2, 3, 4, 5" in nowhere[0]
    assert "answers 404 to everything" in nowhere[0]
    assert "orders doctor --product N" in nowhere[0]
    assert "orders doctor --customer N" in nowhere[1]
    assert named[0].startswith(f"ok   CATALOG_URL ({catalog}): GET /products/{product} gave a product")
    assert "BAD  " in unknown[0]
    assert "has no product 404404. It answers as the contract says." in unknown[0]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((401, "application/json", b"{}"), "saw 401: it needs a login"),
        ((403, "text/html", b"<html>"), "saw 403: it needs a login"),
        ((302, "text/html", b""), "saw 302, a redirect to http://***@elsewhere/products/7. Redirects are not followed"),
        ((200, "text/html", b"<!doctype html><title>Shop</title>"), "saw 200 with a web page"),
        ((200, "application/json", b'{"cart": {"id": 1}}'), "saw 200, but the name of product"),
        ((500, "application/json", b"{}"), "It answered 500"),
    ],
)
def test_the_doctor_tells_what_it_expected_and_what_came(
    sandbox: Sandbox, dsn: str, answer: tuple[int, str, bytes], sentence: str
) -> None:
    with ClosedCatalog("", answer) as catalog:
        said = doctor(dsn, catalog_url=catalog.url.replace("//", f"//ann:{SECRET}@"), cart_url=sandbox.cart_url)
    assert said[0].startswith("BAD  CATALOG_URL (http://***@127.0.0.1:")
    assert sentence in said[0]
    assert SECRET not in said[0]


def test_the_doctor_asks_for_what_was_ordered_here_and_changes_nothing(
    service: Service, sandbox: Sandbox, dsn: str
) -> None:
    product, customer = sandbox.product(5), 77_001
    assert service.place(customer, (product, 1)).status == 201
    puts = [len(sandbox.puts(each)) for each in (product, 1)]
    said = doctor(dsn, catalog_url=sandbox.catalog_url, cart_url=sandbox.cart_url)
    assert f"GET /products/{product} gave a product" in said[0]
    assert f"has no cart of customer {customer}, 1" in said[1]
    sandbox.forget(product)
    assert (
        "GET /products/1 gave a product" in doctor(dsn, catalog_url=sandbox.catalog_url, cart_url=sandbox.cart_url)[0]
    )
    assert [len(sandbox.puts(each)) for each in (product, 1)] == puts
    sandbox.fill_cart(customer, (1, 1))
    said = doctor(dsn, "--customer", str(customer), catalog_url=sandbox.catalog_url, cart_url=sandbox.cart_url)
    assert f"ok   CART_URL ({sandbox.cart_url}): GET /carts/{customer} gave a cart" in said[1]
