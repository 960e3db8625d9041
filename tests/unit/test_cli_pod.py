"""Commands in a pod of the mesh: each works by the pod's settings, or says that and why it can't."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup
from typer.testing import CliRunner

from cli.__main__ import app

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
IN_A_POD = {"PMP_MESH_TOKEN": "the mesh's own", "PMP_DATABASE_URL": "", "PMP_REDIS_URL": ""}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["backup", "backups"], "this is a pod: the command is for a mesh that `pmp up` runs"),
        (["keys", "new"], "the keys of a cluster are in the secret mesh-secrets"),
        (["open", "--no-browser"], "this pod has no keys of callers"),
        (["connect", "wordpress"], "this pod has no keys of callers"),
        (["credentials"], "this pod has no keys of callers"),
        (["report", "dashboard"], "this pod has no keys of callers"),
        (["demo"], "this is a pod: the command is for a mesh that `pmp up` runs"),
        (["dead-letters", "list", "journeys"], "this pod has no PMP_DATABASE_URL"),
        (["trace", "hello-1"], "this pod has no PMP_DATABASE_URL"),
        (["doctor"], "PMP_VAULT_KEY, PMP_KEY_ENCRYPTION_KEYS can't be read"),
    ],
)
def test_what_can_not_work_in_a_pod_says_so(tmp_path: Path, command: list[str], message: str) -> None:
    refusal = CliRunner().invoke(app, [*command, "--data", str(tmp_path / "nothing")], env=IN_A_POD)
    assert refusal.exit_code == 1
    assert message in refusal.stderr.replace("\n", " ")
    assert "pmp up` first" not in refusal.stderr


def _commands(command: Any, name: str = "pmp") -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for word, each in command.commands.items():
            yield from _commands(each, f"{name} {word}")
    else:
        yield name


def test_the_documentation_says_of_every_command_where_it_works() -> None:
    section = OPERATIONS.read_text().partition("## Commands in a pod\n")[2].partition("\n## ")[0]
    named = re.findall(r"`(pmp [a-z -]+)`", section)
    commands = set(_commands(typer.main.get_command(app)))
    covered = {command for command in commands if any(command == each or command.startswith(f"{each} ") for each in named)}
    assert covered == commands
    assert [each for each in named if not any(command == each or command.startswith(f"{each} ") for command in commands)] == []
    assert len(named) == len(set(named))
