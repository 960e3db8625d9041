"""The process that waits, beside Envoy, for the folder of secrets to change."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from gateway.rotation import Follower

follower = Follower(Path(sys.argv[1]))
follower.fork(lambda: print("renewed", flush=True))
print("waits", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    secret = tmp_path / "secrets" / "PMP_MESH_TOKEN"
    secret.parent.mkdir()
    secret.write_text("old")
    return secret


@pytest.fixture
def follower(secret: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, str(secret.parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.mark.timeout(20)
@pytest.mark.parametrize("change", ["written", "permissions", "deleted", "moved away"])
def test_each_change_of_a_secret_is_noticed(secret: Path, follower: subprocess.Popen[str], change: str) -> None:
    assert follower.stdout
    assert follower.stdout.readline() == "waits\n"
    match change:
        case "written":
            secret.write_text("new")
        case "permissions":
            secret.chmod(0o400)
        case "deleted":
            secret.unlink()
        case _:
            secret.rename(secret.parent.parent / "elsewhere")
    assert follower.stdout.readline() == "renewed\n"
