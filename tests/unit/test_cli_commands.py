from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.__main__ import app


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["books"],
        ["report", "dashboard"],
        ["credentials"],
        ["demo"],
        ["replay", "ingestion"],
        ["dead-letters", "list", "ingestion"],
    ],
)
def test_without_a_mesh_the_way_to_one_is_explained(tmp_path: Path, command: list[str]) -> None:
    refusal = CliRunner().invoke(app, [*command, "--data", str(tmp_path / "nothing")])
    assert refusal.exit_code == 1
    assert "run `pmp up` first" in refusal.stderr
    assert refusal.stdout == ""


def test_a_scope_that_is_none_is_refused() -> None:
    refusal = CliRunner().invoke(app, ["credentials", "--scope", "root"])
    assert refusal.exit_code == 2
    assert all(scope in refusal.stderr for scope in ("track", "site", "read", "admin"))


def test_databases_are_made_where_there_are_none(tmp_path: Path) -> None:
    migrated = CliRunner().invoke(app, ["migrate", "ingestion", "--data", str(tmp_path / "data")])
    assert (migrated.exit_code, migrated.stdout) == (0, "ingestion: newest version\n")
    assert (tmp_path / "data" / "ingestion.db").exists()


def test_a_database_that_is_down_is_reported(tmp_path: Path) -> None:
    refusal = CliRunner().invoke(
        app, ["migrate", "ingestion", "--data", str(tmp_path), "--database-url", "mysql+aiomysql://u:p@127.0.0.1:1/{service}"]
    )
    assert refusal.exit_code == 1
    assert "the database of ingestion could not be migrated" in refusal.stderr
