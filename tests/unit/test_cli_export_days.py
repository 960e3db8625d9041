"""Closed days are written to a store of files by themselves: what is missing is caught up, and nothing is written twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from cli.closed_days import last_closed, next_closing
from kit.migrate import migrate

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("now", "closed", "then"),
    [
        ("2026-07-02T00:59:59+00:00", "2026-06-30", "2026-07-02T01:00:00+00:00"),
        ("2026-07-02T01:00:00+00:00", "2026-07-01", "2026-07-03T01:00:00+00:00"),
        ("2026-03-29T00:59:59+00:00", "2026-03-27", "2026-03-29T01:00:00+00:00"),  # 02:00 becomes 03:00
        ("2026-03-29T01:00:00+00:00", "2026-03-28", "2026-03-30T01:00:00+00:00"),
        ("2026-10-25T01:59:59+00:00", "2026-10-23", "2026-10-25T02:00:00+00:00"),  # 03:00 becomes 02:00
        ("2026-10-25T02:00:00+00:00", "2026-10-24", "2026-10-26T02:00:00+00:00"),
    ],
)
def test_a_day_is_closed_three_hours_after_its_end_where_the_site_is(now: str, closed: str, then: str) -> None:
    moment = datetime.fromisoformat(now)
    assert last_closed(moment, BERLIN) == date.fromisoformat(closed)
    assert next_closing(moment, BERLIN) == datetime.fromisoformat(then)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of databases without any rows."""
    folder = tmp_path_factory.mktemp("databases")
    for service in ("analytics", "ingestion", "purchases"):
        asyncio.run(migrate(service, f"sqlite+aiosqlite:///{folder}/{service}.db"))
    return f"sqlite+aiosqlite:///{folder}/{{service}}.db"


def days(store: Path, what: str) -> list[str]:
    return sorted(file.parent.name for file in store.glob(f"{what}/day=*/part-0.parquet"))


def named(*ago: int) -> list[str]:
    closed = last_closed(datetime.now(UTC), ZoneInfo("UTC"))
    return sorted(f"day={closed - timedelta(days=number)}" for number in ago)


def run(databases: str, *arguments: str) -> str:
    ran = CliRunner().invoke(app, ["export-days", *arguments], env={"PMP_DATABASE_URL": databases, "PMP_SITE_TIMEZONE": "UTC"})
    assert ran.exit_code == 0, ran.stderr
    return ran.stdout


def test_an_empty_store_begins_with_the_last_day_and_gaps_are_filled(databases: str, tmp_path: Path) -> None:
    run(databases, tmp_path.as_uri(), "--what", "orders")
    assert (days(tmp_path, "orders"), days(tmp_path, "events")) == (named(0), [])
    long_ago = named(5)[0].removeprefix("day=")
    run(databases, tmp_path.as_uri(), "--what", "orders", "--from", long_ago, "--to", long_ago)
    assert days(tmp_path, "orders") == named(0, 5)
    said = run(databases, tmp_path.as_uri())
    assert (days(tmp_path, "orders"), days(tmp_path, "events"), days(tmp_path, "sessions")) == (named(*range(6)), named(0), named(0))
    assert said == f"7 files with 0 rows were written to {tmp_path.as_uri()}, until {named(0)[0].removeprefix('day=')}\n"


TODAY = f"{datetime.now(UTC):%Y-%m-%d}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["file:///tmp/store", "--what", "users"], "there is no export 'users': there are customers, events, orders, sessions"),
        (["file:///tmp/store", "--to", TODAY], f"{TODAY} is not closed: that is 3 hours after its end in UTC; the last closed day is "),
        (
            ["file:///tmp/store", "--from", "2024-05-02", "--to", "2024-05-01"],
            "the period ends on 2024-05-01, before it begins on 2024-05-02",
        ),
        (["file:///tmp/store", "--timezone", "Mars/Olympus"], "'Mars/Olympus' is not a time zone of the IANA database"),
        (
            ["s3://key:secret@lake/shop"],
            "credentials don't belong in the URL of a store: they are read from AWS_ACCESS_KEY_ID and the like",
        ),
        (["ftp://lake/shop"], "ftp://lake/shop is no store, such as s3://bucket/folder or file:///folder: "),
        (["file:///proc/store"], " can't be written to file:///proc/store: No such file or directory"),
    ],
)
def test_a_refusal_says_why(databases: str, arguments: list[str], message: str) -> None:
    ran = CliRunner().invoke(app, ["export-days", *arguments], env={"PMP_DATABASE_URL": databases, "PMP_SITE_TIMEZONE": "UTC"})
    assert ran.exit_code == 1
    assert message in ran.stderr
