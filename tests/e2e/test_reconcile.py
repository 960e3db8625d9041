"""The ledger is compared with the shop: what differs is found exactly, and corrected by the shop's own reports."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, cast

import pytest
from typer.testing import CliRunner, Result

from cli.__main__ import app
from cli.folder import DataFolder
from cli.local_secrets import Secrets
from tests import woocommerce
from tests.e2e import jobs
from tests.e2e.mesh import Mesh, running
from tests.e2e.shop_double import Order, RestApi, Shop, open_shop
from tests.receiver import SECRET, receiving
from tests.servers import PrivateMariaDb

NOW = datetime.now(UTC).replace(microsecond=0)
ORDERS = 120
NUMBERS = range(1000, 1000 + ORDERS)
DIFFERENT = 3
AGREES = 0


@pytest.fixture(params=["sqlite", "mariadb"], scope="module")
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    urls: list[str] = []
    if request.param == "mariadb":
        server: PrivateMariaDb = request.getfixturevalue("mariadb_server")
        urls = ["--database-url", server.url.replace("{service}", "compared_{service}")]
    with running(tmp_path_factory.mktemp("mesh"), *urls, environment={"PMP_SITE_ERASURE_SECRET": SECRET}) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def shop(mesh: Mesh) -> Iterator[Shop]:  # noqa: ARG001 (each mesh has a shop of its own)
    with open_shop() as shop:
        yield shop


on_sqlite = pytest.mark.parametrize("mesh", ["sqlite"], indirect=True)
"""For what does not depend on the database."""


def reconcile(mesh: Mesh, url: str, *arguments: str, **environment: str) -> Result:
    """Runs the command in this process, which spares the start of another."""
    return CliRunner().invoke(app, ["reconcile", "woocommerce", "--url", url, *arguments], env={**mesh.environment, **environment})


def differences(mesh: Mesh, shop: Shop, file: Path, *arguments: str, status: int) -> list[dict[str, str]]:
    """Compares, and returns the lines of the file."""
    ran = reconcile(mesh, shop.url, "--csv", str(file), *arguments)
    assert ran.exit_code == status, ran.output
    return read(file)


def read(file: Path) -> list[dict[str, str]]:
    """The lines of a file."""
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


def report(mesh: Mesh, orders: list[Order], at: datetime | None = None, source: str = "plugin") -> None:
    """Reports orders as of a time, by default now, as the plugin does."""
    for order in orders:
        for refund in order.reports(at)["refunds"]:
            post(mesh, f"purchases/{order.number}/refunds", refund)
    reports = [each.purchase(at) | {"source": source} for each in orders]
    assert post(mesh, "purchases/batch", {"purchases": reports})["accepted"] == len(orders)


def ledger(mesh: Mesh) -> dict[int, dict[str, Any]]:
    """The orders of the mesh, by number."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = get(mesh, f"purchases?include_excluded=true&page_size=500&page_token={token}")
        found += page["purchases"]
        if not (token := page["next_page_token"]):
            return {int(each["order_id"]): each for each in found if each["order_id"].isdecimal()}


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


Compare = Callable[..., list[dict[str, str]]]
"""Compares a mesh with its shop, and returns the lines of the file: given arguments and the expected exit status."""


def find_fifty_damages(mesh: Mesh, shop: Shop, numbers: range, compare: Compare, reported_at: datetime | None = None) -> None:
    """Damages fifty orders of a shop that the mesh does not hear of, compares them, and has them corrected."""
    chance = random.Random(17)  # noqa: S311
    open_orders(shop, numbers, chance)
    paid = [number for number in numbers if shop.orders[number].status == "completed" and not shop.orders[number].refunds]
    damaged = chance.sample(paid, 50)
    unreported = set(damaged[:10])
    report(mesh, [shop.orders[number] for number in numbers if number not in unreported], reported_at)
    expected = {str(number): ("missing here", {"status", "currency", "amount", "paid", "refunded"}) for number in unreported}
    deleted: set[int] = set()
    for place, number in enumerate(damaged[10:]):
        damage = [*DAMAGES][place % len(DAMAGES)]
        damage(shop, shop.orders[number])
        expected[str(number)] = DAMAGES[damage]
        deleted |= {number} - shop.orders.keys()

    seen = compare("--no-heal", status=DIFFERENT)
    healed = compare(status=AGREES)

    for found, outcome in ((seen, "left"), (healed, "corrected")):
        fields = {row["order"]: {each["field"] for each in found if each["order"] == row["order"]} for row in found}
        assert {row["order"]: (row["difference"], fields[row["order"]]) for row in found} == expected
        assert {row["outcome"] for row in found} == {outcome}
    known = ledger(mesh)
    assert {number: net(known[number]) for number in numbers} == {
        number: Decimal() if number in deleted else shop.orders[number].net for number in numbers
    }
    assert {entry["reason"] for number in deleted for entry in known[number]["entries"][1:]} == {"deleted"}
    refunds = {number: shop.orders[number].refunds for number in damaged if number in shop.orders and shop.orders[number].refunds}
    assert {number: [entry["reference"] for entry in known[number]["entries"][1:]] for number in refunds} == {
        number: [str(reference) for reference in each] for number, each in refunds.items()
    }
    assert [len(known[number]["lines"]) for number in deleted] == [1] * len(deleted), "what was sold stays known"
    assert compare(status=AGREES) == []
    newest = get(mesh, "comparisons/newest")["comparison"]
    assert (newest["shop"], newest["found"], newest["different"]) == ("woocommerce", "0", "0")
    assert int(newest["orders"]) == len(shop.orders)


def test_fifty_random_damages_are_found_exactly_and_corrected(mesh: Mesh, shop: Shop, tmp_path: Path) -> None:
    find_fifty_damages(mesh, shop, NUMBERS, partial(differences, mesh, shop, tmp_path / "found.csv"))
    assert len(shop.orders) < ORDERS


@on_sqlite
def test_they_are_without_the_plugin_by_the_shops_own_api(mesh: Mesh, shop: Shop, tmp_path: Path) -> None:
    """A webhook may have reported an order of such a shop, too. There are not so many that later tests delete few of them."""
    with woocommerce.serving(RestApi(shop)) as api:

        def compare(*arguments: str, status: int) -> list[dict[str, str]]:
            keys = {"PMP_WOOCOMMERCE_KEY": woocommerce.KEY, "PMP_WOOCOMMERCE_SECRET": woocommerce.SECRET}
            ran = reconcile(mesh, api.url, "--csv", str(tmp_path / "found.csv"), *arguments, **keys)
            assert ran.exit_code == status, ran.output
            return read(tmp_path / "found.csv")

        minute_ago = datetime.now(UTC) - timedelta(minutes=1)
        find_fifty_damages(mesh, shop, range(5000, 5080), compare, minute_ago)
        report(mesh, [place(Shop(""), 6000), place(shop, 6001)], minute_ago, "woocommerce")
        shop.orders[6001].total += 1
        rows = compare(status=AGREES)
    assert {(row["order"], row["difference"]) for row in rows} == {("6000", "missing there"), ("6001", "different")}
    known = ledger(mesh)
    assert {number: (net(known[number]), known[number]["disputed"]) for number in (6000, 6001)} == {
        6000: (Decimal(), False),
        6001: (Decimal("20.90"), False),
    }


def place(shop: Shop, number: int, **fields: Any) -> Order:
    """A paid order of today."""
    at = NOW - timedelta(hours=1)
    values: dict[str, Any] = {"created": at, "total": Decimal("19.90"), "paid": at, **fields}
    shop.orders[number] = Order(number, **values)
    return shop.orders[number]


def found_in(rows: list[dict[str, str]]) -> set[tuple[str, str, str, str, str]]:
    return {(row["order"], row["field"], row["shop"], row["ledger"], row["outcome"]) for row in rows}


@on_sqlite
def test_what_another_source_knows_better_is_left_and_said(mesh: Mesh, shop: Shop, tmp_path: Path) -> None:
    """Money that moved at the payment provider has moved, whatever the shop says."""
    order = place(shop, 2000)
    report(mesh, [order])
    moved = {"reference": "re_1", "amount": 5, "refunded_total": 5, "source": "stripe", "provider": True}
    post(mesh, f"purchases/{order.number}/refunds", moved)
    expected = {("2000", "status", "completed", "partially_refunded", "left"), ("2000", "refunded", "0.00", "5.00", "left")}
    assert found_in(differences(mesh, shop, tmp_path / "left.csv", status=DIFFERENT)) == expected
    assert get(mesh, "comparisons/newest")["comparison"]["different"] == "1"
    shop.refund(order.number, Decimal(5))
    assert {row["outcome"] for row in differences(mesh, shop, tmp_path / "booked.csv", status=AGREES)} <= {"corrected"}
    assert get(mesh, "comparisons/newest")["comparison"]["different"] == "0"


@on_sqlite
def test_orders_that_are_not_the_shops_or_no_sale_need_no_counterpart(mesh: Mesh, shop: Shop, tmp_path: Path) -> None:
    elsewhere = place(Shop(""), 2100).purchase() | {"order_id": "invoice-7", "source": "billing"}
    post(mesh, "purchases/track", elsewhere)
    place(shop, 2101, status="pending", paid=None)
    place(shop, 2102, status="checkout-draft")
    place(shop, 2103, status="trash")
    report(mesh, [place(Shop(""), 2104, status="pending", paid=None)])
    assert differences(mesh, shop, tmp_path / "none.csv", status=AGREES) == []


@on_sqlite
def test_an_order_that_is_known_with_another_date_is_one_order(mesh: Mesh, shop: Shop, tmp_path: Path) -> None:
    order = place(shop, 2200, created=NOW - timedelta(days=89))
    report(mesh, [order])
    order.created = NOW - timedelta(days=91)
    assert differences(mesh, shop, tmp_path / "moved.csv", status=AGREES) == []


@on_sqlite
def test_many_missing_orders_are_corrected_on_request_only(mesh: Mesh, shop: Shop, tmp_path: Path) -> None:
    """The shop that answers may be a new one, or an older copy."""
    report(mesh, [place(shop, number) for number in range(2300, 2311)])
    kept = {number: shop.orders.pop(number) for number in range(2300, 2311)}
    rows = differences(mesh, shop, tmp_path / "refused.csv", status=DIFFERENT)
    assert {(row["order"], row["difference"], row["outcome"]) for row in rows} == {(str(n), "missing there", "left") for n in kept}
    assert "the shop lacks 11 orders" in rows[0]["reason"]
    assert {net(ledger(mesh)[number]) for number in kept} == {Decimal("19.90")}
    shop.orders |= kept
    assert differences(mesh, shop, tmp_path / "back.csv", status=AGREES) == []
    for number in kept:
        del shop.orders[number]
    assert {row["outcome"] for row in differences(mesh, shop, tmp_path / "agreed.csv", "--deleted", status=AGREES)} == {"corrected"}
    assert {net(ledger(mesh)[number]) for number in kept} == {Decimal()}


@on_sqlite
def test_what_happened_days_ago_is_recorded_as_history(mesh: Mesh, shop: Shop) -> None:
    place(shop, 2400)
    place(shop, 2401, created=NOW - timedelta(days=4), paid=NOW - timedelta(days=4))
    assert reconcile(mesh, shop.url).exit_code == AGREES
    known = ledger(mesh)
    assert (known[2400]["historical"], known[2401]["historical"]) == (False, True)


@on_sqlite
def test_a_shop_that_fails_for_a_moment_is_asked_again(mesh: Mesh, shop: Shop) -> None:
    shop.failures[:] = [503, 500]
    assert reconcile(mesh, shop.url).exit_code == AGREES


@on_sqlite
def test_the_outcome_of_a_short_period_is_not_kept(mesh: Mesh, shop: Shop) -> None:
    before = get(mesh, "comparisons/newest")
    today = datetime.now(UTC).date().isoformat()
    ran = reconcile(mesh, shop.url, "--from", today, "--to", today)
    assert (ran.exit_code, get(mesh, "comparisons/newest")) == (AGREES, before)
    assert f"orders of {today} to {today} compared: the ledger agrees with the shop." in ran.stdout


@on_sqlite
@pytest.mark.parametrize(
    ("environment", "url", "complaint"),
    [
        ({"PMP_SITE_ERASURE_SECRET": "whsec_" + "A" * 44}, "", "refuses the signature"),
        ({"PMP_SITE_ERASURE_SECRET": ""}, "", "PMP_SITE_ERASURE_SECRET is not set"),
        ({}, "http://shop.example/orders", "is neither https nor in a private network"),
    ],
)
def test_what_is_wrong_is_said(mesh: Mesh, shop: Shop, environment: dict[str, str], url: str, complaint: str) -> None:
    ran = reconcile(mesh, url or shop.url, **environment)
    assert (ran.exit_code, complaint in ran.stderr) == (1, True), ran.output


@on_sqlite
def test_a_system_that_is_no_shop_is_recognised(mesh: Mesh) -> None:
    with receiving() as receiver:
        ran = reconcile(mesh, receiver.url)
        assert (ran.exit_code, "answers, but not as the plugin does" in ran.stderr) == (1, True), ran.output
        receiver.status = 404
        ran = reconcile(mesh, receiver.url)
        assert (ran.exit_code, "it must be the address of the plugin's route" in ran.stderr) == (1, True), ran.output


def shape(value: Any) -> Any:
    """The names of the fields, and the types of their values."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in cast("dict[str, Any]", value).items()}
    return [shape(each) for each in cast("list[Any]", value)[:1]] if isinstance(value, list) else type(value).__name__


def test_the_double_answers_as_the_plugin() -> None:
    golden = json.loads((Path(__file__).parent.parent / "wordpress" / "orders-route.json").read_text())
    shop = Shop("")
    order = place(shop, 1, status="trash")
    double = {
        "orders.list": shop.answer("orders.list", {"after": 0, "until": 4_000_000_000}),
        "orders.read": shop.answer("orders.read", {"orders": ["1", "2"]}),
    }
    shop.refund(1, Decimal(1))
    assert double["orders.list"].keys() == golden["orders.list"].keys()
    theirs, ours = golden["orders.list"]["orders"][0], double["orders.list"]["orders"][0]
    assert ours.keys() == theirs.keys()
    [theirs] = [each for each in golden["orders.read"]["orders"] if not each["refunds"]]
    [ours] = double["orders.read"]["orders"]
    assert ours.keys() == theirs.keys()
    assert ours["purchase"].keys() <= theirs["purchase"].keys()
    [refund] = order.reports()["refunds"]
    assert refund.keys() <= next(each for each in golden["orders.read"]["orders"] if each["refunds"])["refunds"][0].keys()


@on_sqlite
def test_the_nightly_job_of_a_cluster_compares_and_ends_well_though_orders_differ(mesh: Mesh, shop: Shop, tmp_path: Path) -> None:
    secrets = Secrets.load(DataFolder(mesh.data))
    environment = {
        "PMP_URL": mesh.url,
        "PMP_API_KEYS": json.dumps(secrets.api_keys),
        "PMP_JWT_SECRETS": json.dumps(secrets.jwt_secrets),
        "PMP_SITE_ERASURE_SECRET": SECRET,
    }

    def run(**settings: str) -> CompletedProcess[str]:
        return jobs.run("comparison", tmp_path, environment | settings)

    idle = run()
    assert (idle.returncode, idle.stdout) == (0, "PMP_SITE_ORDERS_URL is not set: nothing is compared\n")
    report(mesh, [place(shop, 2500)])
    post(mesh, "purchases/2500/refunds", {"reference": "re_2", "amount": 5, "refunded_total": 5, "source": "stripe", "provider": True})
    ran = run(PMP_SITE_ORDERS_URL=shop.url)
    assert (ran.returncode, "1 differ from the shop's" in ran.stdout) == (0, True), ran.stdout + ran.stderr
    shop.failures[:] = [401]
    assert run(PMP_SITE_ORDERS_URL=shop.url).returncode == 1
