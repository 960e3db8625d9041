"""What the supervisor says to systemd, and where the logs of its processes go under it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cli.errors import CommandFailed
from cli.journal import in_journal, is_journal
from cli.notification import notify
from cli.processes import Command
from cli.server.machine import Machine, must_be_root


async def is_ready() -> bool:
    return True


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_notified_at_the_socket_that_it_names(tmp_path: Path, kind: str) -> None:
    path, name = str(tmp_path / "notify"), f"pmp-{uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path if kind == "path" else f"\0{name}")
        receiver.settimeout(5)
        notify("READY=1", {"NOTIFY_SOCKET": path if kind == "path" else f"@{name}"})
        assert receiver.recv(100) == b"READY=1"


def test_nobody_is_notified_who_does_not_wait_for_it() -> None:
    notify("READY=1", {})


def test_an_output_is_the_journal_if_systemd_says_so_of_it(tmp_path: Path) -> None:
    with (tmp_path / "own").open("w") as output, (tmp_path / "other").open("w") as other:
        found = os.fstat(output.fileno())
        stream = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(output, stream)
        assert not is_journal(other, stream), "a process whose output was redirected inherits the variable"
        assert not is_journal(output, {})


def test_each_process_has_its_identifier_in_the_journal() -> None:
    command = Command("gateway", "gateway", ("envoy", "-c", "file"), {}, Path("gateway.log"), "127.0.0.1:1", is_ready)
    written = in_journal(command)
    assert written.argv == ("systemd-cat", "--identifier=pmp-gateway", "--level-prefix=false", "envoy", "-c", "file")
    assert written.log == Path("/dev/null")


def test_a_forked_process_writes_to_the_journal_as_its_fork_server_does() -> None:
    forked = Command("followers", "service", ("python",), {}, Path("followers.log"), "127.0.0.1:1", is_ready, fork_server=Path("s"))
    written = in_journal(forked)
    assert (written.argv, written.log) == (("python",), Path("/dev/null"))


@pytest.fixture
def _as_nobody() -> Iterator[None]:
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.usefixtures("_as_nobody")
def test_a_machine_is_changed_by_root_alone() -> None:
    with pytest.raises(CommandFailed, match=r"^`pmp upgrade` changes this machine: run it as root, such as by sudo$"):
        must_be_root(Machine(), "upgrade")
    must_be_root(Machine(Path("/mnt")), "upgrade")


def test_a_machine_without_systemd_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandFailed, match=r"^systemctl is missing: this machine is not run by systemd$"):
        Machine().run("systemctl", "daemon-reload")
