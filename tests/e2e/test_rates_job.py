"""The job that fetches exchange rates, as the cluster runs it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from kit.migrate import migrate
from tests.e2e.jobs import run


@pytest.fixture
def published(tmp_path: Path) -> Iterator[str]:
    """URL at which a bank publishes its rates."""
    folder = tmp_path / "bank"
    folder.mkdir()
    (folder / "rates.csv").write_text("Date,USD,JPY,\n2026-11-20,1.15,160.5,\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_rates_are_fetched_and_stored(tmp_path: Path, published: str) -> None:
    await migrate("purchases", f"sqlite+aiosqlite:///{tmp_path}/purchases.db")
    ran = run("rates", tmp_path, {"PMP_SITE_RATES_URL": f"{published}/rates.csv"})
    assert ran.returncode == 0, ran.stderr
    with closing(sqlite3.connect(tmp_path / "purchases.db")) as database:
        assert database.execute("SELECT count(*) FROM exchange_rates").fetchone()[0] > 0


@pytest.mark.parametrize("settings", [{}, {"PMP_SITE_RATES_URL": ""}])
def test_nothing_is_fetched_unless_it_is_said_where(tmp_path: Path, settings: Mapping[str, str]) -> None:
    ran = run("rates", tmp_path, settings)
    assert (ran.returncode, ran.stdout) == (0, "PMP_SITE_RATES_URL is not set: no rates are fetched\n"), ran.stderr


def test_a_job_that_fetches_nothing_fails(tmp_path: Path, published: str) -> None:
    ran = run("rates", tmp_path, {"PMP_SITE_RATES_URL": f"{published}/gone.csv"})
    assert ran.returncode != 0
    assert "404" in ran.stderr
