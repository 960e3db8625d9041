"""How a mesh starts and ends, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.e2e.mesh import PMP, Mesh
from tests.servers import free_port, until

SECONDS = 60
"""For whatever a loaded machine does in a tenth of them."""


class Up:
    """One `pmp up`, whose end is the test's business."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.mesh = Mesh(data, {})
        data.mkdir(exist_ok=True)
        self.output = data / "up.log"
        with self.output.open("ab") as output:
            command = [PMP, "up", "--port", str(free_port()), *arguments]
            self.process = subprocess.Popen(command, env=self.mesh.environment, stdout=output, stderr=output)

    def ready(self) -> Mesh:
        until(lambda: self.process.poll() is not None or self.mesh.pmp("status", check=False).returncode == 0, SECONDS)
        assert self.process.poll() is None, self.output.read_text()
        return self.mesh

    def pids(self) -> list[int]:
        return [process["pid"] for process in self.mesh.state["processes"]]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Up]]:
    """What the test starts; killed at its end, whatever happened."""
    ups: list[Up] = []
    yield ups
    for up in ups:
        up.process.kill()  # its processes die with it
        up.process.wait()
        up.mesh.client.close()


def running_pids(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def track(mesh: Mesh) -> None:
    page = {"id": str(uuid4()), "event_type": "page_view", "timestamp": "2026-06-01T00:00:00Z"}
    answer = mesh.client.post(f"{mesh.url}/api/v1/events/track", json=page, headers=mesh.credentials("site"))
    assert answer.status_code == 200, answer.text


def test_a_mesh_drains_keeps_its_data_and_leaves_nothing_behind(tmp_path: Path, started: list[Up]) -> None:
    data = tmp_path / "data"
    first = Up(data)
    started.append(first)
    mesh = first.ready()
    track(mesh)
    books, pids, secrets = mesh.drained(), first.pids(), (data / "secrets.json").read_bytes()
    assert first.end(signal.SIGTERM) == 0
    said = first.output.read_text()
    assert said.index("stopping gateway") < said.index("stopping ingestion") < said.index("stopping redis") < said.index("stopped")
    assert running_pids(pids) == []
    assert not (data / "mesh.json").exists()
    assert mesh.pmp("status", check=False).returncode == 1

    second = Up(data)
    started.append(second)
    assert second.ready().drained() == books
    assert (data / "secrets.json").read_bytes() == secrets

    # Without a chance to drain, nothing is left either: the kernel ends the processes, and the folder is free.
    track(second.mesh)
    pids = second.pids()
    assert second.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: running_pids(pids) == [])
    assert "run `pmp up` first" in second.mesh.pmp("status", check=False).stderr

    third = Up(data)
    started.append(third)
    assert third.ready().drained()["stored"] == books["stored"] + 1
    with closing(sqlite3.connect(data / "ingestion.db")) as database, database:
        database.execute("UPDATE books SET count = count + 1 WHERE outcome = 'stored'")
    unbalanced = third.mesh.pmp("books", check=False)
    assert unbalanced.returncode == 1
    assert "not balanced" in unbalanced.stdout


def test_a_second_signal_does_not_wait(tmp_path: Path, started: list[Up]) -> None:
    up = Up(tmp_path / "data")
    started.append(up)
    mesh = up.ready()
    pids = up.pids()
    os.kill(mesh.pid("ingestion"), signal.SIGSTOP)  # it can't drain
    up.process.send_signal(signal.SIGINT)
    until(lambda: "stopping ingestion" in up.output.read_text(), SECONDS)
    assert up.process.poll() is None
    assert up.end(signal.SIGINT) == 0
    assert "stopping at once" in up.output.read_text()
    assert running_pids(pids) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--redis-url", "redis://127.0.0.1:1"], "does not answer: check its address"),
        (["--redis-url", "http://127.0.0.1:1"], "the Redis URL must be like"),
        (["--database-url", "mysql+aiomysql://u:p@127.0.0.1:1/{service}"], "the databases could not be migrated"),
        (["--database-url", "mysql+aiomysql://u:p@127.0.0.1:1/all"], "the database URL must be like"),
        (["--host", "192.0.2.1"], "can't listen on 192.0.2.1"),
    ],
)
def test_a_start_that_must_fail_says_why_and_leaves_nothing(tmp_path: Path, started: list[Up], arguments: list[str], message: str) -> None:
    up = Up(tmp_path / "data", *arguments)
    started.append(up)
    assert up.process.wait(SECONDS) == 1
    assert message in up.output.read_text()
    assert "Traceback" not in up.output.read_text()
    assert not (tmp_path / "data" / "mesh.json").exists()


def test_a_part_that_cannot_start_ends_the_start(tmp_path: Path, started: list[Up]) -> None:
    data = tmp_path / "data"
    (data / "redis").mkdir(parents=True)
    (data / "redis" / "appendonly.aof").write_text("this is no log of Redis\n")
    up = Up(data)
    started.append(up)
    assert up.process.wait(SECONDS) == 1
    said = up.output.read_text()
    assert "redis does not start; the end of" in said
    assert "Bad file format" in said


def test_secrets_survive_a_start_that_fails(tmp_path: Path, started: list[Up]) -> None:
    data = tmp_path / "data"
    for _ in range(2):
        up = Up(data, "--redis-url", "redis://127.0.0.1:1")
        started.append(up)
        assert up.process.wait(SECONDS) == 1
    assert set(json.loads((data / "secrets.json").read_text())) >= {
        "mesh_token",
        "vault_key",
        "api_keys",
        "browser_api_keys",
        "jwt_secrets",
    }
