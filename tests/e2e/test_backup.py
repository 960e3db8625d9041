"""A restore drill: a mesh is backed up under load, lost, and restored elsewhere; nothing accepted by then is missing or counted twice."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from cli.folder import DataFolder
from tests.e2e.mesh import PMP, Mesh, running
from tests.servers import until

API = "/api/v1"
Json = dict[str, Any]


class Drill(NamedTuple):
    """What a mesh accepted before its backup was asked for, what it accepted until it was lost, and the backup."""

    before: list[Json]
    every: list[Json]
    orders: list[Json]
    backup: Path
    lost: Path


def _events(count: int) -> list[Json]:
    now = datetime.now(UTC).isoformat()
    return [
        {
            "id": str(uuid4()),
            "event_type": "page_view",
            "timestamp": now,
            "session_id": f"session-{number % 20}",
            "page_url": "https://shop/",
        }
        for number in range(count)
    ]


def _order(number: int) -> Json:
    now = datetime.now(UTC).isoformat()
    return {
        "id": f"woo:order:{number}",
        "order_id": str(number),
        "timestamp": now,
        "paid_at": now,
        "payment_status": "completed",
        "amount": 10,
        "currency": "EUR",
        "product_id": "1",
        "product_name": "A course",
        "product_type": "course",
        "email": f"buyer{number}@example.org",
        "payment_method": "card",
    }


def _send(mesh: Mesh, events: list[Json]) -> None:
    answer = mesh.client.post(f"{mesh.url}{API}/events/batch", json={"events": events}, headers=mesh.credentials("site"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == len(events), answer.text


def _sell(mesh: Mesh, order: Json) -> None:
    answer = mesh.client.post(f"{mesh.url}{API}/purchases/track", json=order, headers=mesh.credentials("site"))
    assert answer.status_code == 200, answer.text


def _figures(mesh: Mesh) -> dict[str, float]:
    today = datetime.now(UTC).date().isoformat()
    query = {"from": today, "to": today}
    answer = mesh.client.get(f"{mesh.url}{API}/analytics/dashboard", params=query, headers=mesh.credentials("read")).json()
    return {each["key"]: each["value"] for each in answer["figures"]}


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    folder = tmp_path_factory.mktemp("drill")
    before, after, stop = _events(600), [], Event()

    def load(mesh: Mesh) -> None:
        while not stop.is_set():
            events = _events(20)
            _send(mesh, events)
            after.extend(events)

    with running(folder / "lost") as mesh, ThreadPoolExecutor() as threads:
        for start in range(0, len(before), 200):
            _send(mesh, before[start : start + 200])
        orders = [_order(number) for number in range(20)]
        for order in orders:
            _sell(mesh, order)
        sender: Future[None] = threads.submit(load, mesh)
        killed = folder / "backups" / ".pmp-backup-killed"
        killed.mkdir(parents=True)
        (killed / "identity.db").touch()
        (folder / "backups" / "pmp-2026-01-01T000000Z.tar.partial").touch()
        for _ in range(3):
            mesh.pmp("backup", str(folder / "backups"), "--keep", "2")
        stop.set()
        sender.result()
    kept = sorted((folder / "backups").iterdir())
    assert [each.name.startswith("pmp-") and each.name.endswith(".tar.gz") for each in kept] == [True, True], "nothing else is left"
    return Drill(before, before + after, orders, kept[-1], folder / "lost")


@pytest.fixture(scope="module")
def restored(drill: Drill, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    data = tmp_path_factory.mktemp("restored") / "data"
    answer = Mesh(data, {}).pmp("restore", str(drill.backup))
    assert "docs/backup.md" in answer.stdout
    with running(data) as mesh:
        yield mesh


def test_a_restored_mesh_has_what_was_accepted_before_the_backup(drill: Drill, restored: Mesh) -> None:
    books = restored.drained()
    assert books["balanced"] is True
    assert len(drill.before) <= books["stored"] <= len(drill.every)
    assert (books["duplicate"], books["dead_lettered"]) == (0, 0)
    until(lambda: _figures(restored)["orders"] == len(drill.orders), 30)


def test_what_is_sent_again_is_counted_once(drill: Drill, restored: Mesh) -> None:
    for start in range(0, len(drill.every), 200):
        _send(restored, drill.every[start : start + 200])
    for order in drill.orders:
        _sell(restored, order)
    _sell(restored, _order(1000))
    books = restored.drained()
    assert (books["stored"], books["balanced"], books["dead_lettered"]) == (len(drill.every), True, 0)
    until(lambda: _figures(restored)["page_views"] == len(drill.every), 30)
    until(lambda: _figures(restored)["orders"] == len(drill.orders) + 1, 30)


def test_a_backup_is_private_and_leaves_no_copy_of_the_log(drill: Drill) -> None:
    assert drill.backup.stat().st_mode & 0o077 == 0
    assert not (drill.lost / "redis" / "dump.rdb").exists()
    with tarfile.open(drill.backup) as archive:
        names = set(archive.getnames())
    assert {"manifest.json", "secrets.json", "ingestion.db", "subject_keys.db"} <= names


@pytest.mark.parametrize("damage", ["cut off", "other bytes", "no backup", "folder in use"])
def test_what_is_no_whole_backup_is_refused(drill: Drill, damage: str, tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup.tar.gz"
    whole = drill.backup.read_bytes()
    backup.write_bytes({"cut off": whole[: len(whole) // 2], "no backup": b"hello"}.get(damage, whole))
    if damage == "other bytes":
        with tarfile.open(drill.backup) as archive, tarfile.open(backup, "w:gz") as changed:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None
                if member.name == "secrets.json":
                    member.size -= 1
                changed.addfile(member, content)
    if damage == "folder in use":
        DataFolder(data).create()
    before = sorted(tmp_path.rglob("*"))
    answer = Mesh(data, {}).pmp("restore", str(backup), check=False)
    assert answer.returncode == 1
    assert sorted(tmp_path.rglob("*")) == before, "nothing that a mesh would start on"
    assert {"cut off": "no whole backup", "other bytes": "secrets.json", "no backup": "no whole backup", "folder in use": "not empty"}[
        damage
    ] in answer.stderr


def test_a_backup_that_fails_leaves_nothing(restored: Mesh, tmp_path: Path) -> None:
    backup = f"ulimit -f 64; exec {PMP} backup {tmp_path / 'backups'}"
    failed = subprocess.run(["sh", "-c", backup], env=restored.environment, check=False, capture_output=True, text=True, timeout=60)
    assert (failed.returncode, "was not made" in failed.stderr) == (1, True), failed.stderr
    assert list((tmp_path / "backups").iterdir()) == []
    assert not (restored.data / "redis" / "dump.rdb").exists()


def test_a_backup_leaves_the_space_below_which_intake_stops(restored: Mesh, tmp_path: Path) -> None:
    known = (restored.data / "mesh.json").read_text()
    state = json.loads(known)
    state["disk"]["least_bytes"] = shutil.disk_usage(restored.data).free
    (restored.data / "mesh.json").write_text(json.dumps(state))
    try:
        refused = restored.pmp("backup", str(tmp_path / "backups"), check=False)
    finally:
        (restored.data / "mesh.json").write_text(known)
    assert (refused.returncode, "have to be free" in refused.stderr.replace("\n", " ")) == (1, True), refused.stderr
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_mesh_is_backed_up_once_at_a_time(restored: Mesh, tmp_path: Path) -> None:
    with (restored.data / "redis" / "backup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = restored.pmp("backup", str(tmp_path), check=False)
    assert (refused.returncode, "another backup" in refused.stderr) == (1, True)


def test_a_backup_needs_a_running_mesh_and_a_folder_that_can_be_written(drill: Drill, restored: Mesh, tmp_path: Path) -> None:
    stopped = Mesh(drill.lost, {}).pmp("backup", str(tmp_path), check=False)
    assert (stopped.returncode, "no mesh runs" in stopped.stderr) == (1, True)
    (tmp_path / "file").touch()
    refused = restored.pmp("backup", str(tmp_path / "file"), check=False)
    assert (refused.returncode, "was not made" in refused.stderr) == (1, True)
