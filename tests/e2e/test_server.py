"""The mesh as a service of a machine: installed, upgraded to a release that works and to one that does not, and removed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pmp_mesh_client.tokens import Scope, mint

import tests.doubles.systemd
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.local_secrets import Secrets
from cli.server.machine import BACKUPS, DATA, PROGRAM, SERVICE, SETTINGS, UNIT, Machine
from cli.server.service import describe, service_status, uninstall
from tests import logs
from tests.servers import free_port, is_alive
from tests.shape.repository import ROOT

pytestmark = pytest.mark.skipif("PMP_UPGRADE" not in os.environ, reason="40 s of processor time")
_COPIED = ("kit", "services")
"""Parts that a release may have changed; the others are links."""
_LINKED = ("cli", "client", "dashboard", "docs", "gateway", "gen", "protos")
_SETUP = """\
setup:
\t@{python} -m venv --without-pip .venv
\t@cp paths.pth "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
\t@install --mode 755 launcher .venv/bin/pmp
"""
_TABLE = """\
from alembic import op
import sqlalchemy as sa

revision = "{branch}_{number:04}"
down_revision = "{branch}_{before:04}"
branch_labels = depends_on = None


def upgrade():
    op.create_table("of_a_later_release", sa.Column("id", sa.Integer, primary_key=True))
"""


class Server:
    """A machine with systemd's double, and releases on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs = root / "usr/bin"
        self.programs.mkdir(parents=True)
        for name in ("systemctl", "systemd-sysusers", "systemd-tmpfiles"):
            program = self.programs / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {tests.doubles.systemd.__file__} {name} "$@"\n')
            program.chmod(0o755)
        self.port = free_port()
        settings = self.path(SETTINGS)
        settings.parent.mkdir(parents=True)
        settings.write_text(f'# A comment\nPMP_PORT={self.port}\nPMP_LOG_PARTITIONS=1\nPMP_SITE_HOSTS=["shop.example"]\n')

    def path(self, absolute: Path) -> Path:
        return self.root / absolute.relative_to("/")

    def release(self, name: str, *, table: bool = False, defect: str = "") -> Path:
        """A checkout of a release, which may have one table more, or services with a defect."""
        folder = self.root / "opt" / name
        folder.mkdir(parents=True)
        for part in _LINKED:
            (folder / part).symlink_to(ROOT / part)
        for part in _COPIED:
            shutil.copytree(ROOT / part, folder / part)
        if table:
            before = int(max((folder / "services/journeys/migrations").glob("[0-9]*.py")).name[:4])
            text = _TABLE.format(branch="journeys", number=before + 1, before=before)
            (folder / f"services/journeys/migrations/{before + 1:04}_later.py").write_text(text)
        if defect:
            (folder / "services/journeys/composition.py").write_text(defect)
        paths = [
            str(folder),
            str(folder / "client"),
            str(folder / "gen"),
            f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})",
        ]
        (folder / "paths.pth").write_text("\n".join(paths))
        (folder / "launcher").write_text(f"#!{folder}/.venv/bin/python\nfrom cli.__main__ import app\napp()\n")
        (folder / "Makefile").write_text(_SETUP.format(python=sys.executable))
        return folder

    def pmp(self, release: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}"}
        command = [release / ".venv/bin/pmp", *arguments, "--root", self.root]
        ran = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=350)
        assert ran.returncode == 0 or not check, f"{ran.stdout}{ran.stderr}{(self.root / 'journal').read_text()}"
        return ran

    def call(self, path: str, scope: Scope, **options: Any) -> Any:
        secrets = Secrets.load(DataFolder(self.path(DATA)))
        token = mint(secrets.jwt_secrets[0], scope, None, int(time.time()))
        headers = {"x-api-key": secrets.api_keys[0], "authorization": f"Bearer {token}"}
        answer = httpx.request("POST" if "json" in options else "GET", f"http://127.0.0.1:{self.port}{path}", headers=headers, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def books(self) -> dict[str, int]:
        return {name: int(count) for name, count in self.call("/api/v1/events/accounting", Scope.READ)["total"].items()}

    def send(self, count: int) -> None:
        now = datetime.now(UTC).isoformat()
        events = [{"event_type": "page_view", "timestamp": now, "page_url": f"https://shop.example/{number}"} for number in range(count)]
        assert self.call("/api/v1/events/batch", Scope.SITE, json={"events": events})["accepted"] == count

    def runs(self) -> str:
        """The release that the service's process is of."""
        pid = (self.root / "run" / f"{SERVICE}.pid").read_text()
        return Path(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1]).parents[2].name


@pytest.fixture
def _with_systemd(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{server.programs}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("machine"))
    first = server.release("first")
    subprocess.run(["make", "--directory", first, "setup"], check=True)
    with logs.followed(server.root / "journal", server.path(DATA) / "logs"):
        try:
            said = server.pmp(first, "service", "install").stdout
            assert f"wrote {UNIT}" in said
            assert str(SETTINGS) not in said.partition("is up")[0], "those of the operator stay"
            yield server
        finally:
            if server.path(UNIT).exists():
                subprocess.run([server.programs / "systemctl", f"--root={server.root}", "disable", "--now", SERVICE], check=True)


@pytest.mark.timeout(400)
def test_a_release_that_does_not_come_up_is_replaced_by_the_one_before_and_nothing_is_lost(server: Server) -> None:
    server.send(40)
    before = server.books()
    bad = server.release("bad", table=True, defect="raise SystemExit('a defect')\n")
    failed = server.pmp(server.root / "opt/first", "upgrade", str(bad), check=False)
    assert failed.returncode == 1
    assert "first runs again, on the same data, and its books are as before" in failed.stderr, failed.stderr
    assert "bad/.venv/bin/pmp service install" in failed.stdout
    assert server.runs() == "first"
    assert server.books()["received"] == before["received"]
    assert server.books()["missing"] == 0
    assert len(list(server.path(BACKUPS).glob("pmp-*.tar.gz"))) == 1
    with closing(sqlite3.connect(server.path(DATA) / "journeys.db")) as database:
        assert database.execute("SELECT count(*) FROM of_a_later_release").fetchone() == (0,), "the release before runs on the later tables"
    server.send(1)
    assert server.books()["received"] == before["received"] + 1


@pytest.mark.usefixtures("_with_systemd")
def test_the_service_is_shown(server: Server) -> None:
    said = describe(service_status(Machine(server.root)))
    assert f"{SERVICE} is active, starts with the machine" in said
    assert f"release: {server.root}/opt/first/.venv/bin/pmp" in said
    assert "last backup: " in said


def test_a_release_that_works_runs_from_then_on(server: Server) -> None:
    before = server.books()
    assert before["received"] > 0
    second = server.release("second", table=True)
    said = server.pmp(server.root / "opt/first", "upgrade", str(second), "--no-backup").stdout
    assert f"The way back: pmp upgrade {server.root / 'opt/first'}" in said
    assert server.runs() == "second"
    assert server.books()["received"] == before["received"]
    assert (second / ".venv").stat().st_mode & 0o055 == 0o055, "the service's user may read it"
    assert str(second) in server.path(PROGRAM).read_text()


@pytest.mark.usefixtures("_with_systemd")
def test_what_belongs_to_the_shop_stays_when_the_service_is_removed(server: Server) -> None:
    pid = int((server.root / "run" / f"{SERVICE}.pid").read_text())
    uninstall(Machine(server.root), print)
    assert not is_alive(pid)
    assert not server.path(UNIT).exists()
    assert not server.path(PROGRAM).exists()
    assert (server.path(DATA) / "ingestion.db").exists()
    assert server.path(SETTINGS).exists()
    with pytest.raises(CommandFailed, match="no service is installed here"):
        service_status(Machine(server.root))
