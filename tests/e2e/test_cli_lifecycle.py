"""How a mesh starts and ends, and what remains of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from uuid import uuid4

import httpx
import pytest
import redis
from typer.testing import CliRunner, Result

from cli.__main__ import app
from cli.layout import INTAKE
from tests import logs
from tests.e2e.mesh import PMP, Mesh, says_ready
from tests.servers import free_port, is_alive, until

SECONDS = 60
"""Ten times what a loaded machine needs."""


class Up:
    """One `pmp up`, which the test ends."""

    def __init__(self, data: Path, *arguments: str, output: Path | None = None, **environment: str) -> None:
        self.mesh = Mesh(data, environment)
        data.mkdir(exist_ok=True)
        self.output = output or data / "up.log"
        logs.follow(self.output)
        logs.follow(data / "logs")
        with self.output.open("wb") as said:
            command = [PMP, "up", "--port", str(free_port()), *arguments]
            self.process = subprocess.Popen(command, env=self.mesh.environment, stdout=said, stderr=said)

    def said(self) -> str:
        return self.output.read_text()

    def ready(self) -> Mesh:
        until(lambda: self.process.poll() is not None or says_ready(self.said()), SECONDS)
        assert self.process.poll() is None, self.said()
        return self.mesh

    def pids(self) -> list[int]:
        return [process["pid"] for process in self.mesh.state["processes"]]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@pytest.fixture
def started() -> Iterator[list[Up]]:
    """The processes that the test starts; killed at its end in any case."""
    ups: list[Up] = []
    yield ups
    for up in ups:
        up.process.kill()  # its processes die with it
        up.process.wait()
        logs.leave(up.output)
        logs.leave(up.mesh.data / "logs")
        up.mesh.client.close()


def up(data: Path, *arguments: str) -> Result:
    """`pmp up` in this process, where it must fail."""
    return CliRunner().invoke(app, ["up", "--port", str(free_port()), "--data", str(data), *arguments])


def running_pids(pids: list[int]) -> list[int]:
    return [pid for pid in pids if is_alive(pid)]


class Shop:
    """Sends events over persistent connections until they are closed, and records the answers."""

    def __init__(self, mesh: Mesh, connections: int) -> None:
        self._url, self._headers = f"{mesh.url}/api/v1/events/track", mesh.credentials("site")
        self.sent: list[str] = []
        self.answered: list[str] = []
        self.refused: list[str] = []
        self._threads = [Thread(target=self._send) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with httpx.Client(timeout=30) as client:
            while True:
                page = {"id": str(uuid4()), "event_type": "page_view", "timestamp": datetime.now(UTC).isoformat()}
                self.sent.append(page["id"])
                try:
                    answer = client.post(self._url, json=page, headers=self._headers)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    self.answered.append(page["id"])
                else:
                    self.refused.append(answer.text)


def stored(data: Path) -> set[str]:
    with closing(sqlite3.connect(data / "ingestion.db", timeout=10)) as database:
        return {event_id for (event_id,) in database.execute("SELECT id FROM events")}


def test_a_mesh_that_could_not_start_is_not_taken_for_a_ready_one() -> None:
    assert says_ready("12:00:00 redis is ready again after 0.1 s\n12:00:01 ready in 5.9 s\n\nThe mesh is ready at")
    assert not says_ready("pmp: gateway does not start; the end of gateway.log:\ncannot bind '127.0.0.1:8080': Address already in use\n")


def test_a_mesh_drains_and_keeps_its_data(tmp_path: Path, started: list[Up]) -> None:
    data = tmp_path / "data"
    first = Up(data)
    started.append(first)
    mesh = first.ready()
    pids, secrets = first.pids(), (data / "secrets.json").read_bytes()
    shop = Shop(mesh, connections=4)
    until(lambda: len(shop.answered) > 50)
    assert first.end(signal.SIGTERM) == 0
    shop.join()
    assert shop.refused == []  # no call reached a gateway without services
    said = first.said()
    stages = ["stopping gateway", f"stopping {INTAKE}", "stopping redis", "stopped"]
    assert sorted(stages, key=said.index) == stages
    assert running_pids(pids) == []
    assert not (data / "mesh.json").exists()

    second = Up(data)
    started.append(second)
    mesh = second.ready()
    books = mesh.drained()
    assert set(shop.answered) <= stored(data) <= set(shop.sent)
    assert books["balanced"]
    assert books["stored"] == books["received"] == len(stored(data))
    assert (data / "secrets.json").read_bytes() == secrets
    with closing(sqlite3.connect(data / "ingestion.db", timeout=10)) as database, database:
        database.execute("UPDATE books SET count = count + 1 WHERE outcome = 'stored'")
    unbalanced = mesh.pmp("books", check=False)
    assert unbalanced.returncode == 1
    assert "not balanced" in unbalanced.stdout

    # `pmp up` waits for a process that can't drain, until a second signal.
    pids = second.pids()
    os.kill(mesh.pid("ingestion"), signal.SIGSTOP)
    second.process.send_signal(signal.SIGINT)
    until(lambda: f"stopping {INTAKE}" in second.said(), SECONDS)
    assert second.process.poll() is None
    assert second.end(signal.SIGINT) == 0
    assert "stopping at once" in second.said()
    assert running_pids(pids) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--redis-url", "redis://127.0.0.1:1"], "does not answer: check its address"),
        (["--redis-url", "http://127.0.0.1:1"], "the Redis URL must be like"),
        (["--database-url", "mysql+aiomysql://u:p@127.0.0.1:1/{service}"], "the databases could not be migrated"),
        (["--database-url", "mysql+aiomysql://u:p@127.0.0.1:1/all"], "the database URL must be like"),
        (["--host", "192.0.2.1"], "can't listen on 192.0.2.1"),
        (["--host", "localhost"], "the host must be an IP address"),
    ],
)
def test_a_start_that_must_fail_says_why_and_leaves_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    failure = up(tmp_path, *arguments)
    assert failure.exit_code == 1
    assert message in failure.stderr
    assert not (tmp_path / "mesh.json").exists()


def test_a_part_that_cannot_start_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "appendonly.aof").write_text("this is no log of Redis\n")
    failure = up(tmp_path)
    assert failure.exit_code == 1
    assert "redis ended with exit status 1; starting it again in 0.5 s" in failure.stdout
    assert "redis does not start; the end of" in failure.stderr
    assert "Bad file format" in failure.stderr


def test_secrets_survive_a_start_that_fails(tmp_path: Path) -> None:
    up(tmp_path, "--redis-url", "redis://127.0.0.1:1")
    secrets = (tmp_path / "secrets.json").read_bytes()
    up(tmp_path, "--redis-url", "redis://127.0.0.1:1")
    assert (tmp_path / "secrets.json").read_bytes() == secrets


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 96 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m,mode=700", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"only root can mount a disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(ballast: Path, leave: int) -> None:
    """Leaves this many bytes free on the disk."""
    with ballast.open("ab") as file:
        os.posix_fallocate(file.fileno(), file.tell(), shutil.disk_usage(ballast.parent).free - leave)


def test_intake_stops_before_the_disk_is_full_and_a_full_one_loses_nothing(small_disk: Path, started: list[Up]) -> None:
    data, ballast = small_disk / "data", small_disk / "ballast"
    # What it prints is written elsewhere: nothing can be appended on a full disk.
    first = Up(data, output=small_disk.parent / "up.log", PMP_LOG_DISK_MIN_BYTES=str(24 * 2**20))
    started.append(first)
    mesh = first.ready()
    answered: list[str] = []

    def track() -> httpx.Response:
        page = {"id": str(uuid4()), "event_type": "page_view", "timestamp": datetime.now(UTC).isoformat()}
        answer = mesh.client.post(f"{mesh.url}/api/v1/events/track", json=page, headers=mesh.credentials("site"))
        if answer.status_code == 200:
            answered.append(page["id"])
        return answer

    assert track().status_code == 200
    assert "are free on the disk of" in mesh.pmp("status").stdout
    fill(ballast, 16 * 2**20)
    until(lambda: track().status_code == 429)
    assert "the disk of the log is nearly full; try again later" in track().text
    low = mesh.pmp("status", check=False)
    assert (low.returncode, "intake stops below 24 MiB" in low.stdout) == (1, True)
    assert mesh.drained()["stored"] == len(answered)  # the pending events have space to be processed
    until(lambda: "intake stops below 24 MiB" in first.said(), SECONDS)

    fill(ballast, 0)
    with redis.Redis.from_url(mesh.state["redis_url"]) as client, pytest.raises(redis.ConnectionError):
        client.set("more", b"x" * 2**20)
    until(lambda: first.said().count("redis ended with exit status 1 (0 MiB are free on the disk of") > 4, SECONDS)
    assert 1 < max(float(pause) for pause in re.findall(r"redis ended .* again in ([\d.]+) s", first.said())) <= 5
    ballast.unlink()
    until(lambda: track().status_code == 200, SECONDS)
    until(lambda: mesh.pmp("status", check=False).returncode == 0, SECONDS)
    mesh.drained()
    assert stored(data) == set(answered)
