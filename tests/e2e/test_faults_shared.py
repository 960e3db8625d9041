"""Each process of `pmp up` is killed under load: everything answered with 200 is stored and published once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from cli.layout import FOLLOWERS, FORK_SERVER, INTAKE, service_names
from tests.e2e.event_load import SECONDS, load, published
from tests.e2e.mesh import Mesh, running
from tests.servers import until

_WORKER = "ingestion-worker"
RATE = 150
"""What SQLite keeps up with while the load and the mesh share two cores with other tests."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


def _column(mesh: Mesh, service: str, sql: str) -> list[str]:
    with closing(sqlite3.connect(f"file:{mesh.data / service}.db?mode=ro", uri=True, timeout=30)) as connection:
        return [row[0] for row in connection.execute(sql)]


def test_the_mesh_runs_in_three_processes_beside_redis_gateway_and_fork_server(mesh: Mesh) -> None:
    until(lambda: mesh.pmp("status", check=False).returncode == 0)
    processes = {process["name"]: process["roles"] for process in json.loads(mesh.pmp("status", "--json").stdout)["processes"]}
    roles = {INTAKE: [INTAKE], _WORKER: [_WORKER], FOLLOWERS: [name for name in service_names() if name != INTAKE]}
    ready = {process: [{"name": role, "ready": True} for role in some] for process, some in roles.items()}
    assert processes == {"redis": [], "gateway": [], FORK_SERVER: [], **ready}


@pytest.mark.parametrize("victim", [INTAKE, _WORKER, FOLLOWERS, FORK_SERVER])
async def test_nothing_answered_is_lost_or_counted_twice(mesh: Mesh, victim: str) -> None:
    """With the fork server all processes of roles die."""
    killed = mesh.pid(victim)
    answered = await load(mesh, victim, during=lambda: mesh.kill(victim), rate=RATE)
    assert len(answered) == RATE * SECONDS
    until(lambda: mesh.pid(victim) not in (None, killed))
    books = mesh.drained()
    assert books["balanced"], books
    assert books["dead_lettered"] == 0
    # Events from before earlier kills are still stored, and still once.
    stored = sorted(_column(mesh, "ingestion", "SELECT id FROM events"))
    assert [name for name in stored if name.rpartition("-")[0] == victim] == sorted(answered)
    redis_url = mesh.state["redis_url"]
    until(lambda: len(published(redis_url)) >= len(stored))
    assert sorted(published(redis_url)) == stored
    for service in ("analytics", "identity", "journeys", "purchases", "gdpr"):
        assert _column(mesh, service, "SELECT id FROM dead_letters") == []
