"""`pmp demo` on real input: a shop's clickstream, compared with a count over the file that does not use the demo's code."""

from __future__ import annotations

import csv
import gzip
import re
import sqlite3
import stat
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pytest

import cli
from tests.e2e.mesh import PMP, Mesh, running
from tests.object_store import ObjectStore
from tests.servers import PrivateMariaDb, PrivateRedis
from tests.variants import EVERY_VARIANT, long_test

CSV = Path(cli.__file__).parent / "data" / "shop-clickstream.csv.gz"
ROWS, REPEATED, MALFORMED = (31_106, 1_303, 49) if EVERY_VARIANT else (6_000, 307, 11)
PEOPLE, ORDERS, REVENUE, REPEATED_ORDERS = (600, 470, "93,530.00", 19) if EVERY_VARIANT else (118, 87, "17,313.00", 3)
DEMO = ["demo", *([] if EVERY_VARIANT else ["--events", str(ROWS)])]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh"), environment={"PMP_SITE_RETENTION": "P3650D"}) as mesh:
        yield mesh


@pytest.fixture
def object_store(tmp_path: Path) -> Iterator[ObjectStore]:
    store = ObjectStore(tmp_path)
    store.start()
    yield store
    store.kill()


@pytest.fixture(scope="module")
def recorded() -> Counter[str]:
    return Counter(sent_type(row["event"]) for row in sent_rows())


def sent_rows() -> list[dict[str, str]]:
    with gzip.open(CSV, "rt", newline="") as file:
        return list(islice(csv.DictReader(file), ROWS))


def sent_type(name: str) -> str:
    """Rows that are no action of a visitor and no fault of the shop are views of pages."""
    return name if name in ACTIONS else "page_view"


def gained(mesh: Mesh, before: dict[str, int]) -> dict[str, int]:
    books = mesh.books()
    assert books.pop("balanced")
    return {name: count - before[name] for name, count in books.items() if count != before[name]}


def shown_types(output: str) -> list[tuple[str, int, int]]:
    """The rows of the printed table: event, in the mesh, in the clickstream."""
    lines = output.partition("most frequent events")[2].partition("The books")[0].splitlines()[3:]
    return [(name, int(mesh.replace(",", "")), int(file.replace(",", ""))) for name, mesh, file in map(str.split, lines)]


def stored_types(mesh: Mesh) -> Counter[str]:
    with closing(sqlite3.connect(f"file:{mesh.data}/ingestion.db?mode=ro", uri=True)) as database:
        return Counter(dict(database.execute("SELECT event_type, COUNT(*) FROM events GROUP BY event_type")))


ACTIONS = {"product_view", "add_to_cart", "wishlist_add", "purchase", "support_chat", "payment_error", "checkout_bug"}
FUNNEL = ("page_view", "product_view", "add_to_cart", "purchase")
IDS = uuid.UUID("6f0b6c3e-6d7c-5d8f-9c0a-2f5b7f3f1f0e")


def counted_funnel() -> list[int]:
    """The file's funnel, counted in SQL: the first row of each step after the first row of the previous step."""
    with closing(sqlite3.connect(":memory:")) as database:
        rows = [
            (row["user_id"], sent_type(row["event"]), f"{row['timestamp']} {uuid.uuid5(IDS, str(number))}")
            for number, row in enumerate(sent_rows(), start=1)
        ]
        database.execute("CREATE TABLE seen (user, event, at)")
        database.executemany("INSERT INTO seen VALUES (?, ?, ?)", rows)
        database.execute("CREATE INDEX by_event ON seen (event, user, at)")
        query = f"SELECT user, MIN(at) AS at FROM seen WHERE event = '{FUNNEL[0]}' GROUP BY user"  # noqa: S608
        counts = [database.execute(f"SELECT COUNT(*) FROM ({query})").fetchone()[0]]  # noqa: S608
        for step in FUNNEL[1:]:
            query = (
                f"SELECT seen.user, MIN(seen.at) AS at FROM seen JOIN ({query}) AS before ON before.user = seen.user "  # noqa: S608
                f"AND seen.at > before.at WHERE seen.event = '{step}' GROUP BY seen.user"
            )
            counts.append(database.execute(f"SELECT COUNT(*) FROM ({query})").fetchone()[0])  # noqa: S608
    return counts


def counted_figures() -> dict[str, str]:
    """The dashboard's figures of the file, counted in SQL."""
    rows = duckdb.execute(
        """
        WITH events AS (FROM read_csv($file) LIMIT $rows), gaps AS (
            SELECT timestamp - lag(timestamp) OVER (PARTITION BY session_id ORDER BY timestamp) AS gap FROM events)
        SELECT COUNT(DISTINCT user_id) AS visitors, (SELECT COUNT(*) FROM gaps WHERE gap IS NULL OR gap > INTERVAL 30 MINUTE) AS sessions,
            COUNT(*) FILTER (NOT list_contains($actions, event)) AS page_views, COUNT(*) FILTER (event = 'purchase') AS orders,
            199 * COUNT(*) FILTER (event = 'purchase') AS net_revenue, COUNT(DISTINCT user_id) FILTER (event = 'purchase') AS customers
        FROM events
        """,
        {"file": str(CSV), "rows": ROWS, "actions": sorted(ACTIONS)},
    )
    [figures] = rows.fetchall()
    return {column[0]: f"{figure:,}" for column, figure in zip(rows.description, figures, strict=True)}


def shown_figures(output: str) -> dict[str, str]:
    """The figures of the printed dashboard by their keys; it is the last that has figures."""
    lines = [line.split() for line in output.partition("The dashboard's")[0].splitlines()]
    return {words[0]: words[1] for words in lines if len(words) > 2}


def shown_funnel(output: str) -> list[tuple[str, int, int]]:
    """The rows of the printed table: step, people in the mesh, people in the clickstream."""
    lines = [line.split() for line in output.splitlines()]
    return [(words[0], int(words[1]), int(words[3])) for words in lines if len(words) == 4 and words[0] in FUNNEL and "%" in words[2]]


@pytest.mark.timeout(600)
def test_the_clickstream_is_stored_and_accounted_for(mesh: Mesh, recorded: Counter[str]) -> None:
    before = mesh.books()
    output = mesh.pmp(*DEMO).stdout
    expected = {"received": ROWS + REPEATED + MALFORMED, "stored": ROWS, "duplicate": REPEATED, "rejected": MALFORMED}
    assert gained(mesh, before) == expected
    assert all(f"{count:,}" in output for count in expected.values())
    assert shown_types(output) == [(name, count, count) for name, count in recorded.most_common(10)]
    assert stored_types(mesh) == recorded
    assert shown_funnel(output) == [(step, people, people) for step, people in zip(FUNNEL, counted_funnel(), strict=True)]
    assert f"What brought {REVENUE} USD of {ORDERS} orders" in output
    assert f"{PEOPLE} users, {PEOPLE} of them new" in output
    assert f"{ORDERS} orders, {REPEATED_ORDERS} of the reports were duplicates" in output
    figures = counted_figures()
    assert figures.items() <= shown_figures(output).items()
    assert f"registrations {figures['visitors']}" in re.sub(r" +", " ", output), "everybody registers in the clickstream"
    assert ("customers are those of the clickstream" in output.replace("\n", "")) is EVERY_VARIANT


EXPORTS = {
    "events": "SELECT COUNT(*), COUNT(DISTINCT id), COUNT(DISTINCT user_id), COUNT(*) FILTER (event_type = 'purchase')",
    "orders": "SELECT COUNT(*), COUNT(DISTINCT order_id), COUNT(DISTINCT user_id), SUM(paid_amount)",
    "sessions": "SELECT SUM(events), SUM(page_views), COUNT(DISTINCT visitor), COUNT(*)",
    "customers": "SELECT SUM(orders), COUNT(*), SUM(lifetime_value), COUNT(*) FILTER (first_order_at <= last_order_at)",
}


def exported(mesh: Mesh, folder: Path) -> dict[str, tuple[int, ...]]:
    """Exports everything in both formats; returns sums over the rows, which are the same in both."""
    sums: dict[str, tuple[int, ...]] = {}
    with duckdb.connect() as database:
        for what, query in EXPORTS.items():
            for form in ("parquet", "csv"):
                said = mesh.pmp("export", "--what", what, "--format", form, "--output", str(folder / f"{what}.{form}")).stdout
            database.execute(f"CREATE TABLE {what} AS FROM '{folder / what}.parquet'")
            types = {name: kind for name, kind, *_ in database.execute(f"DESCRIBE {what}").fetchall()}
            csv_rows = f"read_csv('{folder / what}.csv', columns={types}, header=true, allow_quoted_nulls=false)"
            for left, right in ((what, csv_rows), (csv_rows, what)):
                assert database.execute(f"FROM {left} EXCEPT ALL FROM {right}").fetchall() == []
            [sums[what]] = database.execute(f"{query} FROM {what}").fetchall()
            assert said.startswith(f"{len(database.execute(f'FROM {what}').fetchall()):,} rows in")
    return sums


def test_exports_contain_what_was_sent(mesh: Mesh, recorded: Counter[str], tmp_path: Path) -> None:
    sums = exported(mesh, tmp_path)
    figures = {name: int(figure.replace(",", "")) for name, figure in counted_figures().items()}
    assert sums == {
        "events": (ROWS, ROWS, figures["visitors"], figures["orders"]),
        "orders": (figures["orders"], figures["orders"], figures["customers"], figures["net_revenue"]),
        "sessions": (ROWS, recorded["page_view"], figures["visitors"], figures["sessions"]),
        "customers": (figures["orders"], figures["customers"], figures["net_revenue"], figures["customers"]),
    }
    file = tmp_path / "orders.parquet"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    limited = ["bash", "-c", f"ulimit -f 8; {PMP} export --what events --output {file}"]
    failed = subprocess.run(limited, check=False, env=mesh.environment, capture_output=True, text=True, timeout=60)
    assert (failed.returncode, failed.stderr) == (1, f"pmp: {file} can't be written: File too large\n")
    assert file.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2 * len(EXPORTS), "nothing is left of a failed export"


def test_an_export_of_a_period_has_whole_days_of_a_time_zone(mesh: Mesh, tmp_path: Path) -> None:
    for zone in ("UTC", "Asia/Kathmandu"):
        chosen = ["--from", "2024-05-10", "--to", "2024-05-11", "--timezone", zone, "--output", str(tmp_path / "events.parquet")]
        mesh.pmp("export", "--what", "events", *chosen)
        [ids] = duckdb.execute("SELECT list(id ORDER BY id) FROM read_parquet($file)", {"file": chosen[-1]}).fetchall()
        times = {
            number: datetime.fromisoformat(f"{row['timestamp']}Z").astimezone(ZoneInfo(zone))
            for number, row in enumerate(sent_rows(), start=1)
        }
        chosen_rows = [number for number, time in times.items() if "2024-05-10" <= f"{time:%Y-%m-%d}" <= "2024-05-11"]
        assert ids[0] == sorted(str(uuid.uuid5(IDS, str(number))) for number in chosen_rows)


DAYS = ["2024-05-10", "2024-05-11"]
KATHMANDU = ["--timezone", "Asia/Kathmandu"]


def read(files: str, columns: str = "*") -> Counter[tuple[object, ...]]:
    """The rows of Parquet files."""
    query = duckdb.execute(f"SELECT {columns} FROM read_parquet($files, hive_partitioning = true)", {"files": files})  # noqa: S608
    return Counter(query.fetchall())


def test_days_are_written_once_and_are_what_an_export_of_them_contains(mesh: Mesh, tmp_path: Path) -> None:
    store, period = tmp_path / "store", ["--from", DAYS[0], "--to", DAYS[1], *KATHMANDU]
    said = mesh.pmp("export-days", store.as_uri(), *period).stdout
    for what in EXPORTS:
        file = str(tmp_path / f"{what}.parquet")
        mesh.pmp("export", "--what", what, "--output", file, *period)
        written, exported = read(f"{store}/{what}/*/*.parquet", "* EXCLUDE (day)"), read(file)
        assert exported
        if what == "customers":  # one who bought on both days is a customer of each
            assert written.keys() == exported.keys()
        else:
            assert written == exported
    assert read(f"{store}/events/*/*.parquet", "DISTINCT day::VARCHAR") == {(day,): 1 for day in DAYS}
    files = sorted(path for path in store.rglob("*") if path.is_file())
    assert [str(file.relative_to(store)) for file in files] == [
        f"{what}/day={day}/part-0.parquet" for what in sorted(EXPORTS) for day in DAYS
    ]
    assert said.startswith("8 files with ")
    times = [file.stat().st_mtime_ns for file in files]
    files[2].unlink()
    assert mesh.pmp("export-days", store.as_uri(), *period).stdout.startswith("1 files with ")
    assert [file.stat().st_mtime_ns == time for file, time in zip(files, times, strict=True)] == [number != 2 for number in range(8)]
    assert mesh.pmp("export-days", store.as_uri(), "--again", *period).stdout == said


def test_an_object_store_gets_the_same_files(mesh: Mesh, tmp_path: Path, object_store: ObjectStore) -> None:
    period = ["--what", "events", "--what", "orders", "--from", DAYS[0], "--to", DAYS[1], *KATHMANDU]
    store = tmp_path / "store"
    said = mesh.pmp("export-days", store.as_uri(), *period).stdout
    written = mesh.pmp("export-days", object_store.url, *period, environment=object_store.environment).stdout
    assert written == said.replace(store.as_uri(), object_store.url)
    files = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert object_store.files() == files
    again = mesh.pmp("export-days", object_store.url, *period, environment=object_store.environment).stdout
    assert again.startswith("0 files with 0 rows")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--what", "users"], "there is no export 'users': there are customers, events, orders, sessions"),
        (
            ["--what", "orders", "--timezone", "Mars/Olympus"],
            "'Mars/Olympus' is not a time zone of the IANA database, such as Europe/Berlin",
        ),
        (
            ["--what", "orders", "--from", "2024-05-02", "--to", "2024-05-01"],
            "the period ends on 2024-05-01, before it begins on 2024-05-02",
        ),
        (["--what", "orders", "--output", "/no/such/folder"], "/no/such/folder can't be written: No such file or directory"),
    ],
)
def test_an_export_says_why_it_is_refused(mesh: Mesh, arguments: list[str], message: str) -> None:
    refused = mesh.pmp("export", *arguments, check=False)
    assert (refused.returncode, refused.stderr) == (1, f"pmp: {message}\n")


@pytest.mark.timeout(600)
def test_an_event_that_changed_in_the_mesh_is_found(mesh: Mesh) -> None:
    first = str(uuid.uuid5(uuid.UUID("6f0b6c3e-6d7c-5d8f-9c0a-2f5b7f3f1f0e"), "1"))
    with closing(sqlite3.connect(mesh.data / "ingestion.db", timeout=10)) as database, database:
        assert database.execute("UPDATE events SET event_type = 'changed' WHERE id = ?", (first,)).rowcount == 1
    run = mesh.pmp("demo", "--events", "200", check=False)
    assert run.returncode == 1
    assert "the mesh and the clickstream differ" in run.stderr


@long_test
def test_the_books_are_the_same_on_servers_of_ones_own(tmp_path: Path, mariadb_server: PrivateMariaDb) -> None:
    redis = PrivateRedis(tmp_path)
    redis.start()
    try:
        database = mariadb_server.url.replace("{service}", "demo_{service}")
        with running(tmp_path / "data", "--database-url", database, "--redis-url", redis.url) as mesh:
            assert "redis" not in [process["name"] for process in mesh.state["processes"]]
            output = mesh.pmp("demo", "--events", "2000").stdout
            books = mesh.books()
            sums = exported(mesh, tmp_path)
            again = mesh.pmp("demo", "--events", "2000").stdout
            added = gained(mesh, books)
            assert exported(mesh, tmp_path) == sums
    finally:
        redis.kill()
    assert "the mesh holds each of the 2,000 events once" in output
    assert (books["stored"], books["balanced"]) == (2000, True)
    assert (sums["events"][0], sums["sessions"][0]) == (2000, 2000)
    assert sums["orders"][0] == sums["customers"][0] > 0
    assert books["duplicate"] > 0
    assert books["rejected"] > 0
    assert list((tmp_path / "data").glob("*.db")) == []
    assert added == {
        "received": books["received"],
        "duplicate": books["stored"] + books["duplicate"],
        "rejected": books["rejected"],
    }
    assert "this run added duplicates alone" in again
    assert ", 0 of them new" in again
    [revenue] = re.findall(r"What brought .* of \d+ orders", output)
    assert revenue in again
