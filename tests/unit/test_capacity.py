"""What a number of events takes follows from measured costs, and the page shows what the command prints."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bench.capacity import Deployed, Load, Measured, disks, limits, replicas, stores, tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "capacity.md"
MONTH = 30 * 86_400
COST = Measured(
    cpu_us={"gateway": 100, "ingestion": 700, "worker": 100, "analytics": 100, "redis": 10, "mariadb": 1000},
    written_bytes=1000,
    stored_bytes={"ingestion": 2000, "analytics": 500},
    log_bytes=1000,
    topic_bytes=500,
)
MESH = Deployed(
    utilisation=0.7, least=2, most=8, partitions=4, log_bytes=120_000_000, topic_bytes=30_000_000, retention=timedelta(days=300)
)
LOAD = Load(1000 * MONTH, 4)


def test_a_part_has_the_replicas_that_its_peak_takes_and_two_at_least() -> None:
    rows = {row[0]: row[1:] for row in replicas(COST, MESH, LOAD)}
    assert rows["ingestion"] == ("700", "1,000", "4")
    assert rows["gateway"] == ("100", "7,000", "2")


def test_stores_are_sized_by_mean_and_peak() -> None:
    rows = {row[0]: list(row[1:]) for row in stores(COST, MESH, LOAD)}
    assert rows["MySQL, processor"] == ["1.00 cores", "4.00 cores"]
    assert rows["Redis: full when nothing is stored for"] == ["1 minutes", "0 minutes"]
    assert rows["Redis: the topic of events keeps the last"] == ["4 minutes", "1 minutes"]
    assert rows["written to disks, a second"] == ["1.0 MB", "4.0 MB"]
    assert rows["MySQL, disk a month"] == ["6.5 TB", ""]
    assert rows["MySQL, disk for 10 months"] == ["65 TB", ""]
    assert disks(COST) == [("ingestion", "2.0 GB"), ("analytics", "500 MB")]


def test_what_is_full_first_comes_first() -> None:
    first, *_ = limits(COST, MESH, LOAD)
    assert first[:2] == ("2.8 · 10⁹", "MySQL: a disk of 70 TB after 10 months")
    first, *_ = limits(replace(COST, cpu_us={**COST.cpu_us, "redis": 700}), MESH, LOAD)
    assert first == ("0.6 · 10⁹", "Redis: its one core", "a Redis Cluster")


@pytest.mark.parametrize("load", [Load(1e9, 5)])
def test_the_page_shows_what_was_measured(load: Load) -> None:
    shown = PAGE.read_text().partition("<!-- tables -->\n")[2].partition("<!-- end -->")[0]
    assert shown == tables(load)
