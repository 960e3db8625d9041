"""The ledger is compared with the shop: what differs is found exactly, and corrected by the shop's own reports."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from cli.layout import Processes
from tests.e2e.mesh import Mesh, running
from tests.e2e.shop_double import Order, Shop, open_shop
from tests.receiver import SECRET
from tests.servers import PrivateMariaDb

NOW = datetime.now(UTC).replace(microsecond=0)
ORDERS = 240
DIFFERENT = 3
AGREES = 0


@pytest.fixture(params=["sqlite", "mariadb"], scope="module")
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    urls: list[str] = []
    if request.param == "mariadb":
        server: PrivateMariaDb = request.getfixturevalue("mariadb_server")
        urls = ["--database-url", server.url.replace("{service}", "compared_{service}")]
    with running(
        tmp_path_factory.mktemp("mesh"), *urls, environment={"PMP_SITE_ERASURE_SECRET": SECRET}, processes=Processes.SHARED
    ) as mesh:
        yield mesh


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


@pytest.fixture
def numbers(request: pytest.FixtureRequest) -> range:
    """Numbers of orders that no other test has."""
    start = 1000 * (1 + request.session.items.index(request.node))
    return range(start, start + ORDERS)


def reconcile(mesh: Mesh, shop: Shop, *arguments: str) -> CompletedProcess[str]:
    return mesh.pmp("reconcile", "woocommerce", "--url", shop.url, *arguments, check=False)


def differences(mesh: Mesh, shop: Shop, file: Path, *arguments: str, status: int) -> list[dict[str, str]]:
    """Compares, and returns the lines of the file."""
    ran = reconcile(mesh, shop, "--csv", str(file), *arguments)
    assert ran.returncode == status, ran.stdout + ran.stderr
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def post(mesh: Mesh, path: str, body: dict[str, Any], scope: str = "site") -> dict[str, Any]:
    answer = mesh.client.post(f"{mesh.url}/api/v1/{path}", json=body, headers=mesh.credentials(scope))
    assert answer.is_success, answer.text
    return answer.json()


def get(mesh: Mesh, path: str, scope: str = "read") -> dict[str, Any]:
    answer = mesh.client.get(f"{mesh.url}/api/v1/{path}", headers=mesh.credentials(scope))
    assert answer.is_success, answer.text
    return answer.json()


def report(mesh: Mesh, orders: list[Order]) -> None:
    """Reports orders, as the plugin does."""
    for order in orders:
        for refund in order.reports()["refunds"]:
            post(mesh, f"purchases/{order.number}/refunds", refund)
    assert post(mesh, "purchases/batch", {"purchases": [each.purchase() for each in orders]})["accepted"] == len(orders)


def ledger(mesh: Mesh) -> dict[int, dict[str, Any]]:
    """The orders of the mesh, by number."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = get(mesh, f"purchases?include_excluded=true&page_size=500&page_token={token}")
        found += page["purchases"]
        if not (token := page["next_page_token"]):
            return {int(each["order_id"]): each for each in found}


def net(purchase: dict[str, Any]) -> Decimal:
    """What the ledger of an order adds up to."""
    booked = sum((Decimal(str(entry["amount"])) for entry in purchase["entries"]), Decimal())
    assert booked == Decimal(str(purchase["paid_amount"])) - Decimal(str(purchase["refunded_amount"]))
    return booked


def open_orders(shop: Shop, numbers: range, chance: random.Random) -> None:
    """Fills a shop with orders of each kind."""
    for number in numbers:
        created = NOW - timedelta(days=80) + timedelta(minutes=chance.randrange(80 * 24 * 60))
        order = Order(number, created, Decimal(chance.randrange(100, 100_000)) / 100, paid=created + timedelta(minutes=1))
        order.currency = chance.choice(["USD", "EUR"])
        shop.orders[number] = order
        kind = number % 12
        if kind == 0:
            order.status, order.paid = "pending", None
        if kind == 1:
            shop.refund(number, order.total / 4 // Decimal("0.01") * Decimal("0.01"))
        if kind == 2:
            order.status = "refunded"
            shop.refund(number, order.total)


Damage = Callable[[Shop, Order], None]


def _amount(_: Shop, order: Order) -> None:
    order.total += Decimal("0.01")


def _refunds(shop: Shop, order: Order) -> None:
    shop.refund(order.number, Decimal("0.01"))


def _status(_: Shop, order: Order) -> None:
    order.status = "cancelled"


def _trash(_: Shop, order: Order) -> None:
    order.status = "trash"


def _deletes(shop: Shop, order: Order) -> None:
    del shop.orders[order.number]


DAMAGES: dict[Damage, tuple[str, set[str]]] = {
    _amount: ("different", {"amount", "paid"}),
    _refunds: ("different", {"status", "refunded"}),
    _status: ("different", {"status", "paid"}),
    _trash: ("different", {"status", "paid"}),
    _deletes: ("missing there", {"status", "currency", "amount", "paid", "refunded"}),
}
"""Changes of a shop that were not reported, and what differs then."""


def test_fifty_random_damages_are_found_exactly_and_corrected(mesh: Mesh, shop: Shop, numbers: range, tmp_path: Path) -> None:
    chance = random.Random(17)  # noqa: S311
    open_orders(shop, numbers, chance)
    paid = [number for number in numbers if shop.orders[number].status == "completed" and not shop.orders[number].refunds]
    damaged = chance.sample(paid, 50)
    unreported = set(damaged[:10])
    report(mesh, [order for order in shop.orders.values() if order.number not in unreported])
    expected = {str(number): ("missing here", {"status", "currency", "amount", "paid", "refunded"}) for number in unreported}
    deleted: set[int] = set()
    for place, number in enumerate(damaged[10:]):
        damage = [*DAMAGES][place % len(DAMAGES)]
        damage(shop, shop.orders[number])
        expected[str(number)] = DAMAGES[damage]
        deleted |= {number} - shop.orders.keys()

    seen = differences(mesh, shop, tmp_path / "seen.csv", "--no-heal", status=DIFFERENT)
    healed = differences(mesh, shop, tmp_path / "healed.csv", status=AGREES)

    for found, outcome in ((seen, "left"), (healed, "corrected")):
        own = [row for row in found if int(row["order"]) in numbers]
        fields = {row["order"]: {each["field"] for each in own if each["order"] == row["order"]} for row in own}
        assert {row["order"]: (row["difference"], fields[row["order"]]) for row in own} == expected
        assert {row["outcome"] for row in own} == {outcome}
    known = ledger(mesh)
    assert {number: net(known[number]) for number in numbers} == {
        number: Decimal() if number in deleted else shop.orders[number].net for number in numbers
    }
    assert {entry["reason"] for number in deleted for entry in known[number]["entries"][1:]} == {"deleted"}
    assert [len(known[number]["lines"]) for number in deleted] == [1] * len(deleted), "what was sold stays known"
    assert differences(mesh, shop, tmp_path / "again.csv", status=AGREES) == []
    newest = get(mesh, "comparisons/newest")["comparison"]
    assert (newest["shop"], newest["found"], newest["different"]) == ("woocommerce", "0", "0")
    assert int(newest["orders"]) == ORDERS - len(deleted)
