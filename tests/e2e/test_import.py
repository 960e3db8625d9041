"""`pmp import` into a running mesh on MariaDB: exact to the cent, also after kills, and one sale with what the plugin reports."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import PMP, Mesh, running
from tests.servers import PrivateMariaDb, until
from tests.woocommerce import KEY, SECRET, Record, Shop, serving

ORDERS = int(os.environ.get("PMP_IMPORT_ORDERS", "600"))
LONGEST = max(300, ORDERS // 40)
"""Seconds that one import may take: 2,400 orders a minute."""
pytestmark = pytest.mark.timeout(2 * LONGEST)
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, mariadb_server: PrivateMariaDb) -> Iterator[Mesh]:
    database = mariadb_server.url.replace("{service}", "import_{service}")
    settings = {"PMP_SITE_RETENTION": "P3650D", "PMP_WOOCOMMERCE_KEY": KEY, "PMP_WOOCOMMERCE_SECRET": SECRET}
    arguments = ["--database-url", database]
    with running(tmp_path_factory.mktemp("mesh"), *arguments, environment=settings) as mesh:
        yield mesh


@pytest.fixture
def shop() -> Iterator[Shop]:
    with serving(Shop()) as shop:
        shop.products = [{"id": 201, "categories": [{"slug": "online-courses"}], "meta_data": []}]
        yield shop


def import_shop(mesh: Mesh, shop: Shop, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [PMP, "import", "woocommerce", "--url", shop.url, *arguments]
    return subprocess.run(command, env=mesh.environment, check=False, capture_output=True, text=True, timeout=LONGEST)


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
    refunded: dict[int, Decimal] = defaultdict(Decimal)
    for refund in shop.refunds:
        refunded[refund["parent_id"]] += Decimal(refund["amount"])
    for record in shop.orders:
        if record["date_paid_gmt"]:
            added = (Decimal(1), Decimal(record["total"]), refunded[record["id"]])
            sums[record["currency"]] = [have + more for have, more in zip(sums[record["currency"]], added, strict=True)]
    return {currency: (int(count), sold, returned) for currency, (count, sold, returned) in sums.items()}


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
    shop.is_still = True
    command = [PMP, "import", "woocommerce", "--url", shop.url]
    killed = subprocess.Popen(command, env=mesh.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = mesh.data / "imports" / f"{of(shop)}.json"
    # Pages that were not yet answered are sent as well: of few orders, the first answer is the middle.
    until(lambda: (journal.exists() and json.loads(journal.read_bytes())["read"] > ORDERS // 4) or killed.poll() is not None, LONGEST)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    shop.requests.clear()
    assert counted(mariadb_server, first, first + ORDERS) != expected(shop), "it was killed in the middle"
    finished = import_shop(mesh, shop)
    assert finished.returncode == 0, finished.stderr
    assert counted(mariadb_server, first, first + ORDERS) == expected(shop)
    pages = shop.requests.pop("orders")
    totals = counts(mesh, of(shop))
    assert totals["users new"] + totals["users known"] == 149
    # All of it again: nothing changes.
    again = import_shop(mesh, shop, "--again")
    assert again.returncode == 0, again.stderr
    assert pages < shop.requests["orders"], "the import that was killed went on where it was"
    assert counted(mariadb_server, first, first + ORDERS) == expected(shop)
    sold = sum(count for count, _, _ in expected(shop).values())
    unsold = Counter({"left out: never paid": ORDERS - sold, "left out: staff": 1})
    assert counts(mesh, of(shop)) == Counter({"orders known": sold, "users known": 149, "refunds known": len(shop.refunds)}) + unsold
    marks = mariadb_server.query("import_purchases", "SELECT DISTINCT historical FROM purchases WHERE wordpress_order_id >= 1000000")
    assert [*marks] == [(1,)]


@pytest.mark.parametrize("is_import_first", [True, False], ids=["import, plugin", "plugin, import"])
def test_an_order_of_the_plugin_and_of_an_import_is_one_sale(mesh: Mesh, shop: Shop, *, is_import_first: bool) -> None:
    number = 20 if is_import_first else 21
    paid = NEW_YEAR + timedelta(days=40)
    record = shop.order(number, paid, "99.900000", customer_id=42, total_tax="15.950000")
    shop.refund(record, 900 + number, "10.00", paid + timedelta(days=3), "asked by ada@example.org")
    plugin = [
        ("purchases/track", reported(record, "wc-order-1", paid + timedelta(minutes=1))),
        (f"purchases/{number}/refunds", refunded(900 + number, paid + timedelta(days=3, seconds=1))),
        ("purchases/track", {**reported(record, "wc-order-2", paid + timedelta(days=3, seconds=2)), "refunded_total": 10.0}),
    ]
    steps = [lambda: import_shop(mesh, shop), *(lambda call=call: post(mesh, *call) for call in plugin)]
    for step in steps if is_import_first else [*steps[1:], steps[0]]:
        step()
    found = order(mesh, number)
    at = [time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in (paid, paid + timedelta(days=3))]
    assert ledger(found) == [("sale", "", 99.9, at[0]), ("partial_refund", str(900 + number), -10, at[1])]
    assert (found["payment_status"], found.get("disputed", False)) == ("partially_refunded", False)
    assert [line["product_type"] for line in found["lines"]] == ["course"]


def reported(record: Record, id_: str, at: datetime) -> Record:
    """An order of the double as the plugin reports it at a time."""
    paid = f"{record['date_paid_gmt']}Z"
    line: Record = {"product_id": "201", "product_name": "PMP course", "product_type": "course", "quantity": 1, "amount": 99.9}
    line["course_ids"] = ["201"]
    return {
        "id": id_,
        "timestamp": paid,
        "paid_at": paid,
        "order_id": str(record["id"]),
        "user_id": "42",
        "email": record["billing"]["email"],
        "amount": 99.9,
        "currency": "USD",
        "payment_method": "stripe",
        "payment_status": "completed",
        "tax_total": 15.95,
        "refunded_total": 0.0,
        "lines": [line],
        "source": "plugin",
        "reported_at": at.isoformat(),
    }


def refunded(id_: int, at: datetime) -> Record:
    made = (at - timedelta(seconds=1)).isoformat()
    fields = {"reference": str(id_), "amount": 10.0, "refunded_total": 10.0, "timestamp": made}
    return {**fields, "source": "plugin", "reported_at": at.isoformat()}


def test_a_dry_run_says_what_would_change_and_sends_nothing(mesh: Mesh, shop: Shop) -> None:
    known, new, broken = (shop.order(number, NEW_YEAR + timedelta(days=number), "10.00") for number in (30, 31, 32))
    import_shop(mesh, shop)
    shop.refund(known, 930, "4.00", NEW_YEAR + timedelta(days=50))
    shop.orders.remove(new)
    import_shop(mesh, shop, "--again")
    shop.order(33, NEW_YEAR + timedelta(days=33), "11.00")
    shop.order(34, NEW_YEAR + timedelta(days=34), "11.00", currency="QQQ")
    shop.customer(777)
    broken["total"] = "12.00"
    ran = import_shop(mesh, shop, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert counts(mesh, f"{of(shop)}-dry-run") == Counter(
        {
            "orders known": 1,
            "refunds known": 1,
            "orders changed": 1,
            "orders new": 1,
            "orders rejected": 1,
            "users new, or known by the address": 1,
        }
    )
    with (mesh.data / "imports" / f"{of(shop)}-dry-run.rejects.csv").open(newline="") as file:
        [_, (origin, reason)] = csv.reader(file)
    assert (origin, reason.partition(":")[0]) == ("order 34", "purchase.currency")
    asked = mesh.client.get(f"{mesh.url}/api/v1/purchases/33", headers=mesh.credentials("site"))
    assert asked.status_code == 404


def test_a_shop_before_woocommerce_9_that_is_busy_is_imported_with_its_refunds(mesh: Mesh, shop: Shop) -> None:
    shop.has_refunds_route = False
    record = shop.order(40, NEW_YEAR, "10.00")
    shop.refund(record, 940, "10.00", NEW_YEAR + timedelta(days=2))
    record["status"] = "refunded"
    shop.refusals = [503, 429]
    assert import_shop(mesh, shop).returncode == 0
    assert [entry["amount"] for entry in order(mesh, 40)["entries"]] == [10, -10]


def test_a_wrong_key_is_explained(mesh: Mesh, shop: Shop) -> None:
    mesh.environment["PMP_WOOCOMMERCE_SECRET"] = "cs_wrong"
    try:
        refused = import_shop(mesh, shop)
    finally:
        mesh.environment["PMP_WOOCOMMERCE_SECRET"] = SECRET
    assert refused.returncode == 1
    assert "the shop refuses the key for products (401 woocommerce_rest_cannot_view)" in refused.stderr


def test_payments_of_stripe_are_the_shops_orders_where_they_name_them(mesh: Mesh, shop: Shop, tmp_path: Path) -> None:
    shop.order(50, NEW_YEAR, "25.00")
    assert import_shop(mesh, shop).returncode == 0
    file = tmp_path / "payments.csv"
    file.write_text(
        "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Status,Customer Email,Description,order_id (metadata)\n"
        "ch_1,2024-01-01 00:00:00,25.00,0.00,usd,true,Paid,buyer50@example.org,Order 50,50\n"
        "ch_2,2024-01-02 10:30,40.00,15.00,eur,true,Paid,grace@example.org,Invoice,\n"
        "ch_3,2024-01-03 10:30,40.00,0.00,eur,false,Failed,grace@example.org,Invoice,\n"
    )
    assert mesh.pmp("import", "stripe", str(file)).returncode == 0
    assert counts(mesh, "stripe-*") == Counter({"orders known": 1, "orders new or changed": 1, "refunds new": 1, "left out: not paid": 1})
    assert ledger(order(mesh, 50)) == [("sale", "", 25, "2024-01-01T00:00:00Z")]
    entries = ledger(order(mesh, "stripe:ch_2"))
    assert entries == [("sale", "", 40, "2024-01-02T10:30:00Z"), ("partial_refund", "ch_2-refunded", -15, "2024-01-02T10:30:00Z")]


def test_events_are_stored_once_and_what_is_wrong_is_set_aside_with_its_line(mesh: Mesh, tmp_path: Path) -> None:
    before = mesh.drained()
    lines = [{"timestamp": "2024-05-01T10:00:00Z", "event_type": "page_view", "session_id": "old-1"}] * 2
    lines += [{"id": "seen", "timestamp": "2024-05-01T10:00:01Z", "event_type": "lead_capture", "session_id": "old-1"}]
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join([*map(json.dumps, lines), "nonsense", '{"event_type": "page_view"}']) + "\n")
    for arguments in ([], ["--again"]):
        assert mesh.pmp("import", "events", str(file), *arguments).returncode == 0
    gained = {name: count - before[name] for name, count in mesh.drained().items() if count != before[name]}
    assert gained["stored"] == 3
    assert gained["duplicate"] == 3
    [rejects] = (mesh.data / "imports").glob("events-*.rejects.csv")
    assert [row.split(",")[0] for row in rejects.read_text().splitlines()] == ["where", "line 4", "line 5"]
