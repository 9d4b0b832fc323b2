"""Replicas that are killed in the middle of placing, and databases that come late or go away."""

import itertools
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
from pyreqwest.exceptions import PyreqwestError

from orders.order.statuses import load_workflow
from orders.postgres import database
from orders.startup import set_workflow
from tests.conftest import ORDERS, Reply, Sandbox, answers, execute, free_port, wait_until
from tests.e2e.conftest import Service, Start
from tests.servers import EMBEDDED, Cluster

QUICK = {
    "orders_request_deadline_s": 2,
    "orders_lease_s": 3,
    "orders_write_horizon_s": 1,
    "orders_neighbour_timeout_s": 0.8,
    "orders_recovery_interval_s": 0.2,
}
NEIGHBOURS = {"catalog_url": "http://127.0.0.1:9", "cart_url": "http://127.0.0.1:9"}
_customers = itertools.count(int(time.time()) * 10)


def sold(dsn: str, product: int) -> int:
    return int(
        execute(
            dsn,
            """SELECT coalesce(sum(quantity), 0) FROM order_items i JOIN orders o ON o.id = order_id
               WHERE product_id = %s AND o.placed_at IS NOT NULL AND o.status <> 'Cancelled'""",
            (product,),
        )[0][0]
    )


def is_quiet(dsn: str) -> bool:
    left = "SELECT (SELECT count(*) FROM stock_claims WHERE batch_id IS NOT NULL), "
    left += "(SELECT count(*) FROM stock_returns WHERE returned_at IS NULL), "
    left += "(SELECT count(*) FROM orders WHERE status = 'Pending')"
    return execute(dsn, left) == [(0, 0, 0)]


def test_two_replicas_killed_in_the_middle_of_placing_leave_nothing_half_done(
    start: Start, sandbox: Sandbox, dsn: str
) -> None:
    products = [sandbox.product(1000) for _ in range(5)]
    sandbox.catalog_faults(slow_s=0.01)
    replies: list[Reply] = []
    for _ in range(3):
        replicas = [start(**QUICK), start(**QUICK)]
        stop = threading.Event()

        def buy(buyer: int, replicas: list[Service] = replicas, stop: threading.Event = stop) -> None:
            chance = random.Random(buyer)
            while not stop.is_set():
                lines = [(product, chance.randint(1, 3)) for product in chance.sample(products, 2)]
                try:
                    replies.append(replicas[buyer % 2].place(next(_customers), *lines))
                except PyreqwestError:
                    time.sleep(0.05)

        with ThreadPoolExecutor(12) as buyers:
            for buyer in range(12):
                buyers.submit(buy, buyer)
            time.sleep(1.5)
            for replica in replicas:
                replica.kill()
            stop.set()
    sandbox.heal()
    start(**QUICK)
    wait_until(lambda: is_quiet(dsn), "recovery has ended what the dead left")
    placed = {reply.body["id"] for reply in replies if reply.status == 201}
    assert len(placed) > 50
    kept = {row[0] for row in execute(dsn, "SELECT id::text FROM orders WHERE placed_at IS NOT NULL")}
    assert placed <= kept
    for product in products:
        assert sandbox.stock(product) == 1000 - sold(dsn, product)


def test_a_worker_recovers_what_a_killed_replica_left(start: Start, sandbox: Sandbox, dsn: str) -> None:
    product, customer = sandbox.product(10), next(_customers)
    service = start(**QUICK)
    sandbox.catalog_faults(late_rate=1, late_s=1)
    with ThreadPoolExecutor(1) as client:
        client.submit(lambda: service.place(customer, (product, 4)))
        wait_until(lambda: sandbox.puts(product), "the PUT is on its way")
        service.kill()
    sandbox.heal()
    wait_until(lambda: all(put["landed_at"] for put in sandbox.puts(product)), "it lands, after its sender's death")
    assert sandbox.stock(product) == 6
    execute(dsn, "UPDATE stock_claims SET lease_until = now() - interval '1 s', lands_until = now()")
    said = ""
    for _ in range(2):  # one round finds out what became of the claim, the next gives the stock back
        said += run_cli("worker", "--once", dsn=dsn, sandbox=sandbox).stdout
    assert "1 interrupted batches" in said
    assert "1 products with stock to give back" in said
    assert is_quiet(dsn)
    assert sandbox.stock(product) == 10
    assert execute(dsn, "SELECT status FROM orders") == [("Failed",)]


def run_cli(
    *words: str, dsn: str | None = None, sandbox: Sandbox | None = None, **settings: Any
) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": "/usr/bin:/bin", **{name.upper(): str(value) for name, value in settings.items()}}
    if dsn:
        environment["DATABASE_URL"] = dsn
    if sandbox:
        environment |= {"CATALOG_URL": sandbox.catalog_url, "CART_URL": sandbox.cart_url}
    return subprocess.run([*ORDERS, *words], env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_show_and_doctor_say_what_there_is(service: Service, sandbox: Sandbox, dsn: str) -> None:
    order = service.place(next(_customers), (sandbox.product(5), 1)).body
    for name in (order["id"], str(order["number"])):
        shown = run_cli("show", name, dsn=dsn, sandbox=sandbox)
        assert (shown.returncode, order["id"] in shown.stdout) == (0, True)
    well = run_cli("doctor", dsn=dsn, sandbox=sandbox)
    assert (well.returncode, "BAD" in well.stdout) == (0, False), well.stdout
    ill = run_cli("doctor", dsn=dsn, catalog_url="http://127.0.0.1:9")
    assert ill.returncode == 1
    assert "CATALOG_URL (http://127.0.0.1:9): It can't be reached" in ill.stdout
    assert "CART_URL is not set" in ill.stdout


def test_the_five_settings_name_the_same_database(sandbox: Sandbox, dsn: str) -> None:
    named = psycopg2.extensions.parse_dsn(dsn)
    parts = {"db_name": named["dbname"], "db_user": named["user"], "db_host": named["host"]}
    parts |= {"db_port": named.get("port", "5432"), "db_password": "not asked for"}
    set_workflow(dsn, load_workflow(), replace=False)  # whether or not a service has run on it before
    said = run_cli("doctor", sandbox=sandbox, **parts)
    assert (said.returncode, f"The tables are at version {database.newest_version()}" in said.stdout) == (0, True), said


def test_tables_that_may_not_be_made_at_start_are_asked_for(sandbox: Sandbox, empty_dsn: str) -> None:
    off = {"orders_migrate_at_start": "false", "port": free_port()}
    said = run_cli("serve", dsn=empty_dsn, sandbox=sandbox, **off)
    assert (said.returncode, "Run `orders migrate`" in said.stderr, "Traceback" in said.stderr) == (1, True, False)
    assert "(before: none)" in run_cli("migrate", dsn=empty_dsn).stdout


def test_errors_on_the_command_line_are_a_sentence_and_an_exit_code(dsn: str, sandbox: Sandbox) -> None:
    taken = sandbox.catalog_url.split(":")[-1]
    for words, settings, code, sentence in [
        (("show", "x y"), {}, 2, "is no order's ID"),
        (("show", "123456"), {}, 1, "There is no order 123456"),
        (("serve",), {}, 2, "CATALOG_URL and CART_URL: not set"),
        (("serve",), {"port": "x"}, 2, "PORT"),
        (("doctor",), {"database_url": "nonsense"}, 2, "DATABASE_URL: something in it is no key=value pair"),
        (
            ("serve",),
            {**NEIGHBOURS, "database_url": "nonsense"},
            2,
            "DATABASE_URL: something in it is no key=value pair",
        ),
        (("serve",), {**NEIGHBOURS, "host": "127.0.0.1", "port": taken}, 1, "choose another with --port"),
        (("sandbox", "bank"), {}, 2, "none of catalog, carts, both"),
    ]:
        said = run_cli(*words, **{"dsn": dsn if "database_url" not in settings else None, **settings})
        assert (said.returncode, "Traceback" in said.stderr) == (code, False), said.stderr
        assert sentence in said.stderr


def test_uvicorn_main_app_says_what_is_missing() -> None:
    said = subprocess.run(
        [ORDERS[0], "-m", "uvicorn", "main:app", "--port", "1"],
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert said.returncode != 0
    assert "CATALOG_URL and CART_URL: not set" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_database_that_comes_late_is_waited_for_and_one_that_goes_away_is_survived(
    start: Start, sandbox: Sandbox
) -> None:
    cluster = Cluster(EMBEDDED)
    try:
        cluster.initialize()
        service = start(wait=False, database_url=cluster.dsn, **QUICK)
        time.sleep(1.5)
        assert not answers(service.url)
        cluster.start()
        wait_until(lambda: answers(service.url), "the service has found its database")
        product, customer = sandbox.product(10), next(_customers)
        assert service.place(customer, (product, 1)).status == 201
        cluster.stop()
        away = service.place(customer, (product, 1))
        assert (away.status, away.body["code"]) == (503, "database_unavailable")
        assert service.get("/orders").status == 503
        assert service.get("/health").status == 503
        cluster.start()
        wait_until(lambda: service.place(customer, (product, 1)).status == 201, "it has noticed, without a restart")
        assert sandbox.stock(product) == 8
        service.kill()
    finally:
        cluster.remove()


def test_a_lost_connection_is_replaced(service: Service, sandbox: Sandbox, dsn: str, postgres: str) -> None:
    product = sandbox.product(100)
    assert service.place(next(_customers), (product, 1)).status == 201
    ours = psycopg2.extensions.parse_dsn(dsn)["dbname"]
    execute(postgres, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (ours,))
    statuses = [service.place(next(_customers), (product, 1)).status for _ in range(12)]
    assert statuses == [201] * 12  # they were idle when they broke: seen before anything was sent
    wait_until(lambda: is_quiet(dsn), "nothing is left half-done")
    assert sandbox.stock(product) == 100 - sold(dsn, product)


def test_reconcile_explains_a_difference_and_puts_it_right(service: Service, sandbox: Sandbox, dsn: str) -> None:
    product = sandbox.product(10)
    assert service.place(next(_customers), (product, 3)).status == 201
    here = {"dsn": dsn, "sandbox": sandbox}
    well = run_cli("reconcile", **here)
    assert (well.returncode, "1 products compared, 0 want a look." in well.stdout) == (0, True), well
    sandbox.restock(product, 10)
    ill = run_cli("reconcile", **here)
    assert (ill.returncode, f"orders reconcile --restore {product}" in ill.stdout) == (1, True), ill
    done = run_cli("reconcile", "--restore", str(product), **here)
    assert (done.returncode, "7 is written" in done.stdout, sandbox.stock(product)) == (0, True, 7)
    stale = run_cli("reconcile", "--set", f"{product}:10=8", **here)
    assert (stale.returncode, "says 7, not 10" in stale.stderr) == (1, True)
    assert "write PRODUCT:FOUND=COUNTED" in run_cli("reconcile", "--set", "7=8", **here).stderr
