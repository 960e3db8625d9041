"""What an upgrade decides, with releases whose `pmp` is a script; `tests/e2e/test_server.py` has real ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cli.errors import CommandFailed
from cli.server.machine import BACKUPS, DATA, UNIT, Machine
from cli.server.upgrade import upgrade

_PMP = """\
#!/bin/sh
here=$(dirname "$0")/../..
case "$1" in
  service) cat "$here/fault" >&2; [ ! -s "$here/fault" ] && echo "$0" >> "$4/started" ;;
  status) [ ! -e "$here/not-ready" ] ;;
  books) cat "$here/books"; exit 1 ;;
  backup) echo "$2/pmp-2026-11-30T030000Z.tar.gz"; echo backup >> "$PMP_DATA/done" ;;
esac
"""
_SETUP = "setup:\n\t@mkdir -p .venv/bin && install --mode 755 script .venv/bin/pmp\n"


class Server:
    """A machine whose service runs the release `old`."""

    def __init__(self, root: Path) -> None:
        self.machine = Machine(root)
        self.said: list[str] = []
        self.data = self.machine.path(DATA)
        self.data.mkdir(parents=True)
        self.old = self.release("old", received=40)
        (self.old / ".venv/bin").mkdir(parents=True)
        (self.old / ".venv/bin/pmp").write_text(_PMP)
        (self.old / ".venv/bin/pmp").chmod(0o755)
        unit = self.machine.path(UNIT)
        unit.parent.mkdir(parents=True)
        unit.write_text(f"[Service]\nExecStart={self.old}/.venv/bin/pmp up\n")

    def release(self, name: str, *, received: int = 40, missing: int = 0, fault: str = "") -> Path:
        folder = self.machine.root / "opt" / name
        folder.mkdir(parents=True)
        counts = dict.fromkeys(("stored", "duplicate", "rejected", "dead_lettered", "suppressed", "recovered", "pending"), 0)
        total = {**counts, "received": received, "missing": missing}
        (folder / "books").write_text(json.dumps({"total": total, "hours": [], "balanced": not missing, "lost": []}))
        (folder / "fault").write_text(fault)
        (folder / "script").write_text(_PMP)
        (folder / "Makefile").write_text(_SETUP)
        return folder

    def upgrade(self, release: Path, *, backup: bool = True) -> None:
        upgrade(self.machine, release, self.said.append, backup=backup)

    def started(self) -> list[str]:
        """The releases that were started, in order."""
        return [Path(line).parents[2].name for line in (self.machine.root / "started").read_text().splitlines()]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_a_release_that_is_ready_and_has_the_books_of_before_stays(server: Server) -> None:
    server.upgrade(new := server.release("new", received=41))
    assert server.started() == ["new"]
    assert server.said[0] == f"backup: {server.machine.path(BACKUPS)}/pmp-2026-11-30T030000Z.tar.gz"
    assert server.said[-1] == f"{new} runs; its books are as before. The way back: pmp upgrade {server.old}"


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ({"fault": "a defect"}, "service install --root .*` failed: a defect"),
        ({"received": 39}, "the books changed: received=40 .* became received=39"),
        ({"missing": 1}, "the books changed: .*missing=1"),
    ],
)
def test_another_one_is_replaced_by_the_one_before(server: Server, release: dict[str, Any], reason: str) -> None:
    new = server.release("new", **release)
    with pytest.raises(CommandFailed, match=f"^{server.old} runs again, on the same data, and its books are as before$") as failed:
        server.upgrade(new)
    assert server.started()[-1] == "old"
    assert re.search(reason, str(failed.value.__cause__))


def test_a_release_that_is_not_ready_is_replaced(server: Server) -> None:
    new = server.release("new")
    (new / "not-ready").touch()
    with pytest.raises(CommandFailed, match="runs again"):
        server.upgrade(new)
    assert server.started() == ["new", "old"]


def test_if_neither_comes_up_the_operator_is_referred_to_what_to_do(server: Server) -> None:
    (server.old / "fault").write_text("no disk")
    with pytest.raises(CommandFailed, match=r"^the release before does not come up either \(.*no disk\): docs/server.md"):
        server.upgrade(server.release("new", fault="no disk"))


def test_no_backup_is_made_of_what_is_elsewhere(server: Server) -> None:
    server.upgrade(server.release("new"), backup=False)
    assert not (server.data / "done").exists()


def test_a_release_that_runs_already_or_can_not_be_built_changes_nothing(server: Server) -> None:
    broken = server.release("broken")
    (broken / "Makefile").write_text("setup:\n\t@false\n")
    empty = server.machine.root / "empty"
    empty.mkdir()
    for release, reason in ((server.old, "another folder"), (broken, "can't be built"), (empty, "is no checkout of a release")):
        with pytest.raises(CommandFailed, match=reason):
            server.upgrade(release)
    assert not (server.machine.root / "started").exists()
    assert not (server.data / "done").exists()


def test_a_machine_without_the_service_has_nothing_to_upgrade(server: Server) -> None:
    server.machine.path(UNIT).unlink()
    with pytest.raises(CommandFailed, match="no service is installed here"):
        server.upgrade(server.release("new"))
