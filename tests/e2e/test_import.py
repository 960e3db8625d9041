"""`pmp import` into a running mesh on MariaDB: exact to the cent, also after kills, and one sale with what the plugin reports."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cli.layout import Processes
from tests.e2e.mesh import PMP, Mesh, running
from tests.servers import PrivateMariaDb, until
from tests.woocommerce import KEY, SECRET, Record, Shop, serving

ORDERS = int(os.environ.get("PMP_IMPORT_ORDERS", "600"))
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
PLUGIN = {"source": "plugin"}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, mariadb_server: PrivateMariaDb) -> Iterator[Mesh]:
    database = mariadb_server.url.replace("{service}", "import_{service}")
    settings = {"PMP_SITE_RETENTION": "P3650D", "PMP_WOOCOMMERCE_KEY": KEY, "PMP_WOOCOMMERCE_SECRET": SECRET}
    arguments = ["--database-url", database]
    with running(tmp_path_factory.mktemp("mesh"), *arguments, environment=settings, processes=Processes.SHARED) as mesh:
        yield mesh


@pytest.fixture
def shop() -> Iterator[Shop]:
    with serving(Shop()) as shop:
        shop.products = [{"id": 201, "categories": [{"slug": "online-courses"}], "meta_data": []}]
        yield shop


def import_shop(mesh: Mesh, shop: Shop, *arguments: str) -> subprocess.CompletedProcess[str]:
    return mesh.pmp("import", "woocommerce", "--url", shop.url, *arguments, check=False)


def counts(mesh: Mesh, pattern: str) -> Counter[str]:
    """The records of the one import whose progress has this name, by verdict."""
    [journal] = (mesh.data / "imports").glob(f"{pattern}.json")
    return Counter(json.loads(journal.read_text())["counts"])


def of(shop: Shop) -> str:
    """The name of the progress of a shop."""
    return f"woocommerce-{shop.url.removeprefix('http://').replace(':', '-')}"


def order(mesh: Mesh, number: object) -> Record:
    answer = mesh.client.get(f"{mesh.url}/api/v1/purchases/{number}", headers=mesh.credentials("site"))
    assert answer.status_code == 200, answer.text
    return answer.json()["purchase"]


def ledger(found: Record) -> list[tuple[str, str, float, str]]:
    entries = found["entries"]
    return [(entry["kind"], entry.get("reference", ""), entry["amount"], entry["timestamp"]) for entry in entries]


def post(mesh: Mesh, path: str, body: Any) -> Any:
    answer = mesh.client.post(f"{mesh.url}/api/v1/{path}", json=body, headers=mesh.credentials("site"))
    assert answer.status_code == 200, answer.text
    return answer.json()


def many_orders(shop: Shop, first: int, count: int) -> None:
    """A shop of years: several currencies, tax on lines, refunds, orders that were never paid, an hour of a bulk edit."""
    chance = random.Random(7)  # noqa: S311
    edited = NEW_YEAR + timedelta(days=500)
    for number in range(first, first + count):
        at = NEW_YEAR + timedelta(minutes=13 * (number - first), seconds=chance.randrange(60))
        currency = chance.choice(["USD", "EUR", "JPY"])
        digits = 0 if currency == "JPY" else 2
        cents = chance.randrange(100, 50_000)
        total, tax = f"{Decimal(cents).scaleb(-digits):.6f}", f"{Decimal(cents // 6).scaleb(-digits):.6f}"
        # A bulk edit changes a third of them in one second, more than a page.
        modified = edited if number % 3 == 0 else at
        record = shop.order(number, at, total, currency=currency, total_tax=tax, modified=modified)
        if chance.random() < 0.05:
            record |= {"status": "cancelled", "date_paid": None, "date_paid_gmt": None}
        elif chance.random() < 0.08:
            parts = [cents // 2, cents - cents // 2][: chance.choice([1, 2])]
            for index, part in enumerate(parts):
                amount = f"{Decimal(part).scaleb(-digits):.2f}"
                shop.refund(record, 10_000_000 + number * 10 + index, amount, at + timedelta(days=1 + index))
            if len(parts) == 2:
                record["status"] = "refunded"


def expected(shop: Shop) -> dict[str, tuple[int, Decimal, Decimal]]:
    """Orders, revenue and refunds by currency, counted over the shop's records alone."""
    sums: dict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 3)
    for record in shop.orders:
        if record["date_paid_gmt"]:
            amounts = [Decimal(refund["amount"]) for refund in shop.refunds if refund["parent_id"] == record["id"]]
            added = (Decimal(1), Decimal(record["total"]), sum(amounts, Decimal(0)))
            sums[record["currency"]] = [have + more for have, more in zip(sums[record["currency"]], added, strict=True)]
    return {currency: (int(count), sold, refunded) for currency, (count, sold, refunded) in sums.items()}


def counted(mariadb: PrivateMariaDb, first: int, last: int) -> dict[str, tuple[int, Decimal, Decimal]]:
    """The same from the ledger."""
    rows = mariadb.query(
        "import_purchases",
        "SELECT currency, COUNT(DISTINCT p.id), SUM(IF(kind = 'sale', e.amount, 0)), -SUM(IF(kind = 'sale', 0, e.amount)) "  # noqa: S608
        "FROM purchases p JOIN purchase_entries e ON e.purchase_id = p.id "
        f"WHERE wordpress_order_id BETWEEN {first} AND {last} GROUP BY currency",
    )
    return {currency: (count, Decimal(sold), Decimal(refunded)) for currency, count, sold, refunded in rows}


def test_a_shop_is_imported_exactly_although_the_import_is_killed_and_run_again(
    mesh: Mesh, shop: Shop, mariadb_server: PrivateMariaDb
) -> None:
    first = 1_000_000
    many_orders(shop, first, ORDERS)
    for id_ in range(1, 151):
        shop.customer(id_, role="shop_manager" if id_ == 7 else "customer")
    command = [PMP, "import", "woocommerce", "--url", shop.url]
    killed = subprocess.Popen(command, env=mesh.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: known(mariadb_server, first) > ORDERS // 3 or killed.poll() is not None, 600)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    requests = shop.requests
    assert counted(mariadb_server, first, first + ORDERS) != expected(shop), "it was killed in the middle"
    started = time.monotonic()
    finished = import_shop(mesh, shop)
    assert finished.returncode == 0, finished.stderr
    assert counted(mariadb_server, first, first + ORDERS) == expected(shop)
    assert shop.requests - requests < ORDERS // 100 + 12, "it goes on where it was"
    print(f"{ORDERS} orders, the rest in {time.monotonic() - started:.1f} s")
    totals = counts(mesh, of(shop))
    assert totals["users new"] + totals["users known"] == 149
    # All of it again: nothing changes.
    again = import_shop(mesh, shop, "--again")
    assert again.returncode == 0, again.stderr
    assert counted(mariadb_server, first, first + ORDERS) == expected(shop)
    sold = sum(count for count, _, _ in expected(shop).values())
    unsold = Counter({"left out: never paid": ORDERS - sold, "left out: staff": 1})
    assert counts(mesh, of(shop)) == Counter({"orders known": sold, "users known": 149, "refunds known": len(shop.refunds)}) + unsold
    marks = mariadb_server.query("import_purchases", "SELECT DISTINCT historical FROM purchases WHERE wordpress_order_id >= 1000000")
    assert [*marks] == [(1,)]


def known(mariadb: PrivateMariaDb, first: int) -> int:
    return mariadb.query("import_purchases", f"SELECT COUNT(*) FROM purchases WHERE wordpress_order_id >= {first}")[0][0]  # noqa: S608
