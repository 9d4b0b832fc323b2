"""Exports: every order that the filters leave, as a file; in constant memory; visibly broken where it breaks off."""

import csv
import http.client
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest

from orders.postgres import embedded
from tests.conftest import ORDERS, Sandbox, execute, wait_until
from tests.e2e.conftest import Service, Start
from tests.e2e.test_contract import problem
from tests.e2e.test_lists import keep
from tests.e2e.test_lists import made_up as made_up_few
from tests.made_up import make_up

FEW = made_up_few(60)


def body_of(service: Service, path: str) -> bytes:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200
    return body


def test_csv_and_ndjson_are_the_list_oldest_first(service: Service, sandbox: Sandbox, dsn: str) -> None:
    keep(dsn, FEW)
    product = sandbox.product(5, name='=cmd()\n"x", ☎')
    order = service.http.post(
        f"{service.url}/orders/42",
        {
            "items": [{"product_id": product, "quantity": 2}],
            "external_reference": "@7",
            "metadata": {"a": "b"},
            "notes": {"public": "two\r\nlines, \\n", "private": "-1"},
        },
    ).body
    listed = service.get("/orders?sort=created_at&limit=1000").body["orders"]
    lines = body_of(service, "/orders.ndjson").decode().splitlines()
    assert [json.loads(line) for line in lines] == listed
    rows = list(csv.DictReader(io.StringIO(body_of(service, "/orders.csv").decode(), newline="")))
    assert [(row["order_id"], row["product_id"]) for row in rows] == [
        (o["id"], str(i["product_id"]) if i else "") for o in listed for i in (o["items"] or [None])
    ]
    assert rows[-1] == {
        "order_id": order["id"],
        "number": str(order["number"]),
        "customer_id": "42",
        "channel": "",
        "status": "Ordered",
        "created_at": order["created_at"],
        "updated_at": order["updated_at"],
        "currency": "USD",
        "total": "20",
        "external_reference": "'@7",
        "metadata": '{"a": "b"}',
        "public_note": "two\r\nlines, \\n",
        "private_note": "'-1",
        "version": "1",
        "item_id": str(order["items"][0]["id"]),
        "product_id": str(product),
        "name": '\'=cmd()\n"x", ☎',
        "quantity": "2",
        "unit_price": "10",
        "item_total": "20",
        "cancelled": "0",
        "returned": "0",
    }
    for query in (
        "status=failed&status=paid",
        "product_id=7&total[gte]=5",
        "metadata[channel]=web",
        "metadata=channel=web",
    ):
        wanted = service.get(f"/orders?{query}&sort=created_at&limit=1000").body["orders"]
        assert [json.loads(line) for line in body_of(service, f"/orders.ndjson?{query}").splitlines()] == wanted
        assert wanted


def test_a_malformed_export_is_a_problem(service: Service) -> None:
    for query in ("limit=5", "sort=total", "cursor=x", "colour=blue", "status=teleported", "number=0"):
        for path in ("/orders.csv", "/orders.ndjson"):
            problem(service.get(f"{path}?{query}"), 422, "invalid_request")
    reply = service.http.send("POST", f"{service.url}/orders.csv")
    problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS"


def test_many_orders_are_exported_in_constant_memory(start: Start, dsn: str) -> None:
    make_up(dsn, 60_000)
    service = start()
    process = psutil.Process(service.process.pid)
    body_of(service, "/orders.csv?status=paid")
    before = process.memory_info().rss
    most, lines, ends = before, 0, b""
    for path in ("/orders.ndjson", "/orders.csv"):
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
        connection.request("GET", path)
        response = connection.getresponse()
        while piece := response.read(1 << 20):
            lines += piece.count(b"\n")
            ends = piece[-1:]
            most = max(most, process.memory_info().rss)
        connection.close()
        assert ends == b"\n"
    placed, items = execute(
        dsn,
        """SELECT count(DISTINCT o.id), count(*) FROM orders o JOIN order_items i ON i.order_id = o.id
           WHERE o.status <> 'Failed'""",
    )[0]
    assert lines == placed + items + 1
    assert most - before < 30_000_000  # both together are 60 MB


def test_a_client_that_goes_away_leaves_nothing_running(start: Start, dsn: str) -> None:
    make_up(dsn, 20_000)
    service = start(orders_db_threads=1)
    for _ in range(5):
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
        connection.request("GET", "/orders.ndjson")
        connection.getresponse().read(1000)
        connection.close()
    assert service.get("/health").status == 200
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
    wait_until(lambda: execute(dsn, asleep) == [(1,)], "only this question is asked of the database")


def test_an_export_outlives_a_restart_of_the_database_and_breaks_off_visibly_without_one(
    start: Start, place: Path
) -> None:
    server_dsn = embedded.start(place)
    service = start(database_url=server_dsn)
    make_up(server_dsn, 30_000)
    whole = body_of(service, "/orders.ndjson")
    for comes_back in (True, False):
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=90)
        connection.request("GET", "/orders.ndjson")
        response = connection.getresponse()
        got = response.read(100_000)
        embedded.stop(place)
        if comes_back:
            embedded.start(place)
            assert got + response.read() == whole
        else:
            with pytest.raises(http.client.IncompleteRead):
                response.read()
        connection.close()


def export(dsn: str, *arguments: str, **more: Any) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [*ORDERS, "export", *arguments],
        env={"DATABASE_URL": dsn, "PATH": "", "HOME": "/tmp", **more},
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_orders_export_writes_the_same_files(service: Service, dsn: str, tmp_path: Path) -> None:
    keep(dsn, FEW)
    for kind, path in (("csv", "/orders.csv"), ("ndjson", "/orders.ndjson")):
        output = tmp_path / f"orders.{kind}"
        done = export(
            dsn, "--format", kind, "--output", str(output), "--filter", "status=paid", "--filter", "status=ordered"
        )
        assert done.returncode == 0, done.stderr
        assert output.read_bytes() == body_of(service, f"{path}?status=paid&status=ordered")
        assert export(dsn, "-f", kind, "-o", "-").stdout == body_of(service, path)
    assert b"orders are in" in done.stderr
    parquet = tmp_path / "orders.parquet"
    assert export(dsn, "-f", "parquet", "-o", str(parquet)).returncode == 0
    rows = pyarrow.parquet.read_table(parquet).to_pylist()
    plain = list(csv.DictReader(io.StringIO(body_of(service, "/orders.csv").decode(), newline="")))
    assert [(row["order_id"], str(row["number"])) for row in rows] == [
        (row["order_id"], row["number"]) for row in plain
    ]
    by_id = {order.id: order for order in FEW}
    for row in rows:
        order = by_id[row["order_id"]]
        assert (row["total"], row["created_at"], row["updated_at"]) == (order.total, order.created_at, order.updated_at)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orders.csv", "orders.ndjson", "orders.parquet"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-o", "x.csv", "--filter", "colour=blue"], 2, "colour"),
        (["-o", "x.csv", "--filter", "number=one"], 2, "number"),
        (["-o", "x.csv", "--filter", "status"], 2, "status: write it as name=value."),
        (["-o", "x.csv", "--filter", "number=1", "--filter", "number=2"], 2, "number: send it once."),
        (["-o", "x.csv", "--filter", "status=teleported"], 2, "teleported"),
        (["-o", "/nowhere/x.csv"], 1, "/nowhere/x.csv can't be written: No such file or directory."),
        (["-o", "x.csv", "-f", "pdf"], 2, "pdf"),
        (["-o", "x.xls"], 2, "x.xls ends with none of csv, ndjson, parquet"),
    ],
)
def test_what_is_wrong_with_an_export_is_said_in_a_sentence(
    dsn: str, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    done = export(dsn, *arguments)
    assert done.returncode == code
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_without_pyarrow_it_says_what_to_install(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError")
    done = export(dsn, "-f", "parquet", "-o", str(tmp_path / "x.parquet"), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert b"pip install -r requirements-parquet.txt" in done.stderr
    assert not list(tmp_path.glob("x.*"))


def test_the_bar_is_for_people_only(dsn: str, tmp_path: Path) -> None:
    keep(dsn, FEW)
    done = export(dsn, "-o", str(tmp_path / "x.csv"))
    assert done.stderr.decode().count("\n") == 1
