"""Passwords in URLs stay out of the list of processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.__main__ import app

WRONG = "mysql+aiomysql://mesh:the-password@127.0.0.1:1/all"
"""Checked, and refused before anything happens."""
REFUSED = "the database URL must be like"
WARNING = "every user of this machine can read the password in --database-url (`ps`): use PMP_DATABASE_URL, or --database-url @FILE"


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"PMP_DATABASE_URL": None, "PMP_REDIS_URL": None, **environment})


@pytest.mark.parametrize("command", [["up"], ["migrate"], ["replay", "journeys"], ["dead-letters", "list", "journeys"], ["keys", "new"]])
def test_a_password_on_the_command_line_is_warned_of(command: list[str]) -> None:
    result = run(*command, "--database-url", WRONG)
    assert WARNING in result.stderr
    assert "the-password" not in result.output
    assert REFUSED in result.stderr


def test_the_password_of_redis_is_one_too() -> None:
    result = run("up", "--redis-url", "rediss://:the-password@127.0.0.1:1", "--database-url", "sqlite:///all")
    assert "can read the password in --redis-url (`ps`): use PMP_REDIS_URL, or --redis-url @FILE" in result.stderr
    assert WARNING not in result.stderr


def test_a_url_of_the_environment_is_not_warned_of() -> None:
    result = run("up", PMP_DATABASE_URL=WRONG)
    assert REFUSED in result.stderr
    assert "can read the password" not in result.stderr


@pytest.mark.parametrize("given", ["environment", "option"])
def test_a_url_is_read_from_a_file(given: str, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{WRONG}\n")
    value = f"@{tmp_path / 'url'}"
    result = run("up", "--database-url", value) if given == "option" else run("up", PMP_DATABASE_URL=value)
    assert REFUSED in result.stderr
    assert "can read the password" not in result.stderr


def test_a_file_without_a_url_is_reported(tmp_path: Path) -> None:
    """An empty one would mean SQLite in the folder, which nobody wanted."""
    assert "can't be read" in run("up", "--database-url", f"@{tmp_path / 'nothing'}").stderr
    (tmp_path / "empty").touch()
    assert "is empty" in run("up", "--redis-url", f"@{tmp_path / 'empty'}").stderr
