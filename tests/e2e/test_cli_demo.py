"""`pmp demo` on real input: a shop's clickstream, compared with a count over the file that does not use the demo's code."""

from __future__ import annotations

import csv
import gzip
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import cli
from tests.e2e.mesh import Mesh, running
from tests.servers import PrivateMariaDb, PrivateRedis

CSV = Path(cli.__file__).parent / "data" / "shop-clickstream.csv.gz"
ROWS = 31_106
REPEATED, MALFORMED = 1_303, 49


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh"), environment={"PMP_SITE_RETENTION": "P3650D"}) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def recorded() -> Counter[str]:
    with gzip.open(CSV, "rt", newline="") as file:
        return Counter(row["event"] for row in csv.DictReader(file))


def gained(mesh: Mesh, before: dict[str, int]) -> dict[str, int]:
    books = mesh.books()
    assert books.pop("balanced")
    return {name: count - before[name] for name, count in books.items() if count != before[name]}


def shown_types(output: str) -> list[tuple[str, int, int]]:
    """The rows of the printed table: event, in the mesh, in the clickstream."""
    lines = output.partition("most frequent events")[2].splitlines()[3:13]
    return [(name, int(mesh.replace(",", "")), int(file.replace(",", ""))) for name, mesh, file in map(str.split, lines)]


def stored_types(mesh: Mesh) -> Counter[str]:
    with closing(sqlite3.connect(f"file:{mesh.data}/ingestion.db?mode=ro", uri=True)) as database:
        return Counter(dict(database.execute("SELECT event_type, COUNT(*) FROM events GROUP BY event_type")))


FUNNEL = ("home", "product_view", "add_to_cart", "purchase")
IDS = uuid.UUID("6f0b6c3e-6d7c-5d8f-9c0a-2f5b7f3f1f0e")


def counted_funnel() -> list[int]:
    """The file's funnel, counted in SQL: the first row of each step after the first row of the previous step."""
    with gzip.open(CSV, "rt", newline="") as file, closing(sqlite3.connect(":memory:")) as database:
        rows = [
            (row["user_id"], row["event"], f"{row['timestamp']} {uuid.uuid5(IDS, str(number))}")
            for number, row in enumerate(csv.DictReader(file), start=1)
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


def shown_funnel(output: str) -> list[tuple[str, int, int]]:
    """The rows of the printed table: step, people in the mesh, people in the clickstream."""
    lines = [line.split() for line in output.splitlines()]
    return [(words[0], int(words[1]), int(words[3])) for words in lines if len(words) == 4 and words[0] in FUNNEL and "%" in words[2]]


@pytest.mark.timeout(600)
def test_the_clickstream_is_stored_and_accounted_for(mesh: Mesh, recorded: Counter[str]) -> None:
    before = mesh.books()
    output = mesh.pmp("demo").stdout
    expected = {"received": ROWS + REPEATED + MALFORMED, "stored": ROWS, "duplicate": REPEATED, "rejected": MALFORMED}
    assert gained(mesh, before) == expected
    assert all(f"{count:,}" in output for count in expected.values())
    assert shown_types(output) == [(name, count, count) for name, count in recorded.most_common(10)]
    assert stored_types(mesh) == recorded
    assert shown_funnel(output) == [(step, people, people) for step, people in zip(FUNNEL, counted_funnel(), strict=True)]
    assert "What brought 93,530.00 USD of 470 orders" in output
    assert "600 users, 600 of them new" in output
    assert "470 orders, 19 of the reports were duplicates" in output


@pytest.mark.timeout(600)
def test_a_second_run_adds_duplicates_alone(mesh: Mesh, recorded: Counter[str]) -> None:
    before = mesh.books()
    output = mesh.pmp("demo").stdout
    assert gained(mesh, before) == {
        "received": ROWS + REPEATED + MALFORMED,
        "duplicate": ROWS + REPEATED,
        "rejected": MALFORMED,
    }
    assert "this run added duplicates alone" in output
    assert "600 users, 0 of them new" in output
    assert "470 orders, 489 of the reports were duplicates" in output
    assert "What brought 93,530.00 USD of 470 orders" in output
    assert stored_types(mesh) == recorded


def test_an_event_that_changed_in_the_mesh_is_found(mesh: Mesh) -> None:
    first = str(uuid.uuid5(uuid.UUID("6f0b6c3e-6d7c-5d8f-9c0a-2f5b7f3f1f0e"), "1"))
    with closing(sqlite3.connect(mesh.data / "ingestion.db", timeout=10)) as database, database:
        assert database.execute("UPDATE events SET event_type = 'changed' WHERE id = ?", (first,)).rowcount == 1
    run = mesh.pmp("demo", "--events", "200", check=False)
    assert run.returncode == 1
    assert "the mesh and the clickstream differ" in run.stderr


def test_the_books_are_the_same_on_servers_of_ones_own(tmp_path: Path, mariadb_server: PrivateMariaDb) -> None:
    redis = PrivateRedis(tmp_path)
    redis.start()
    try:
        database = mariadb_server.url.replace("{service}", "demo_{service}")
        with running(tmp_path / "data", "--database-url", database, "--redis-url", redis.url) as mesh:
            assert "redis" not in [process["name"] for process in mesh.state["processes"]]
            output = mesh.pmp("demo", "--events", "3000").stdout
            books = mesh.books()
    finally:
        redis.kill()
    assert "the mesh holds each of the 3,000 events once" in output
    assert (books["stored"], books["balanced"]) == (3000, True)
    assert books["duplicate"] > 0
    assert books["rejected"] > 0
    assert list((tmp_path / "data").glob("*.db")) == []
