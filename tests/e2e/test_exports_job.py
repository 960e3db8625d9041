"""The job that exports closed days, as the cluster runs it."""

from __future__ import annotations

from pathlib import Path

from kit.migrate import migrate
from tests.e2e.jobs import run


async def test_the_exports_of_every_service_are_written(tmp_path: Path) -> None:
    for service in ("analytics", "ingestion", "purchases"):
        await migrate(service, f"sqlite+aiosqlite:///{tmp_path}/{service}.db")
    store = tmp_path / "store"
    ran = run("exports", tmp_path, {"PMP_SITE_EXPORTS_URL": store.as_uri()})
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in store.iterdir()) == ["customers", "events", "orders", "sessions"]
    (tmp_path / "purchases.db").unlink()
    failed = run("exports", tmp_path, {"PMP_SITE_EXPORTS_URL": (tmp_path / "another").as_uri()})
    assert failed.returncode == 1
    assert sorted(path.name for path in (tmp_path / "another").glob("*/*/*.parquet")) == ["part-0.parquet"] * 3


def test_nothing_is_exported_unless_it_is_said_where(tmp_path: Path) -> None:
    ran = run("exports", tmp_path, {"PMP_SITE_EXPORTS_URL": ""})
    assert (ran.returncode, ran.stdout) == (0, "PMP_SITE_EXPORTS_URL is not set: nothing is exported\n"), ran.stderr
