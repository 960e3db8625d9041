"""A private mesh, run as a user runs it: `pmp up` on a temporary data folder and a free port."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import urlsplit

import httpx

from cli.credentials import Scope, credentials
from cli.folder import DataFolder
from cli.layout import Processes
from tests import logs
from tests.servers import free_port, until

PMP = Path(sys.executable).with_name("pmp")


class Mesh:
    """A running mesh."""

    def __init__(self, data: Path, environment: Mapping[str, str]) -> None:
        self.data = data
        self.environment = {**os.environ, **environment, "PMP_DATA": str(data)}
        self.client = httpx.Client(timeout=30)
        self._credentials: dict[tuple[str, str], dict[str, str]] = {}
        self._restarted: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def state(self) -> dict[str, Any]:
        """The supervisor's state of its processes."""
        return json.loads((self.data / "mesh.json").read_text())

    @property
    def url(self) -> str:
        """URL of the gateway."""
        return self.state["url"]

    def pid(self, name: str) -> int:
        """Process id of a process of the mesh."""
        return next(process["pid"] for process in self.state["processes"] if process["name"] == name)

    def kill(self, name: str) -> None:
        """Kills a process; the supervisor restarts it, unless it is stopped."""
        if (own := self._restarted.get(name)) is not None:
            own.kill()
            own.wait()
        else:
            os.kill(self.pid(name), signal.SIGKILL)

    @contextmanager
    def unattended(self) -> Generator[Callable[[str], None]]:
        """Stops the supervisor: processes that die stay dead until they are restarted by the yielded function."""
        mesh = self.state
        started: list[subprocess.Popen[bytes]] = []
        parts = {process["name"]: Path(f"/proc/{process['pid']}") for process in mesh["processes"]}
        commands = {name: (path / "cmdline").read_text().split("\0")[:-1] for name, path in parts.items()}
        environments = {name: (path / "environ").read_text().split("\0")[:-1] for name, path in parts.items()}

        def start(name: str) -> None:
            command, environment = commands[name], dict(variable.split("=", 1) for variable in environments[name])
            process = next(each for each in mesh["processes"] if each["name"] == name)
            if process["roles"]:  # it was forked
                command = [sys.executable, "-m", "services", *process["roles"]]
                environment |= _own_ports(process, json.loads(environment["PMP_STREAM_ADDRESSES"]))
            with (self.data / "logs" / f"{name}.log").open("ab") as log:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
            self._restarted[name] = started[-1]

        os.kill(mesh["supervisor_pid"], signal.SIGSTOP)
        try:
            yield start
        finally:
            self._restarted.clear()
            for process in started:
                process.kill()
                process.wait()
            os.kill(mesh["supervisor_pid"], signal.SIGCONT)

    def pmp(self, *arguments: str, check: bool = True, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the command line on this mesh, with more in its environment if need be."""
        variables = {**self.environment, **(environment or {})}
        return subprocess.run([PMP, *arguments], env=variables, check=check, capture_output=True, text=True, timeout=300)

    def credentials(self, scope: str, user: str = "") -> dict[str, str]:
        """Headers of a caller."""
        known = self._credentials.get((scope, user))
        if known is None:
            made = credentials(DataFolder(self.data), Scope(scope), user or None, {})
            known = self._credentials[scope, user] = made.headers()
        return known

    def books(self) -> dict[str, int]:
        """Totals of the books, and whether they balance as `balanced`."""
        answer = self.client.get(f"{self.url}/api/v1/events/accounting", headers=self.credentials("read")).json()
        return {**{name: int(count) for name, count in answer["total"].items()}, "balanced": answer["balanced"]}

    def drained(self) -> dict[str, int]:
        """The books once nothing is pending."""
        until(lambda: self.books()["pending"] == 0, 60)
        return self.books()


def _own_ports(process: Mapping[str, Any], streams: Mapping[str, str]) -> Mapping[str, str]:
    """The addresses that a process of roles listens on, as the supervisor has given them to it."""
    addresses: dict[str, str] = {
        "PMP_LISTEN": process["address"],
        "PMP_METRICS_PORT": urlsplit(process["metrics_url"]).netloc.rpartition(":")[2],
    }
    own = next((address for role, address in streams.items() if role in process["roles"]), None)
    return addresses if own is None else addresses | {"PMP_STREAM_LISTEN": own}


@cache
def _migrated() -> Path:
    """A folder with new databases, made once: migrating takes a sixth of the processor time of a start."""
    folder = Path(mkdtemp(prefix="pmp-migrated-"))
    atexit.register(shutil.rmtree, folder)
    subprocess.run([PMP, "migrate", "--data", folder / "data"], check=True, capture_output=True)
    databases = folder / "databases"
    databases.mkdir(mode=0o700)
    for path in (folder / "data").glob("*.db"):
        path.rename(databases / path.name)
    return databases


@contextmanager
def running(
    data: Path, *arguments: str, environment: Mapping[str, str] | None = None, processes: Processes = Processes.SHARED
) -> Generator[Mesh]:
    """Runs a mesh until the block ends, then stops it as Ctrl-C does.

    Args:
        arguments: further ones of `pmp up`.
        environment: settings.
        processes: how its roles are distributed. Tests that kill a service alone need `EACH`, which takes twice the time to start.
    """
    mesh = Mesh(data, environment or {})
    if "--database-url" not in arguments and not data.exists():
        shutil.copytree(_migrated(), data)
    data.mkdir(parents=True, exist_ok=True)
    with (data / "up.log").open("ab") as output:
        before = output.tell()
        command = [PMP, "up", "--port", str(free_port()), "--processes", processes, *arguments]
        process = subprocess.Popen(command, env=mesh.environment, stdout=output, stderr=output)

    def said() -> str:
        return (data / "up.log").read_bytes()[before:].decode()

    with logs.followed(data / "up.log", data / "logs"):
        try:
            deadline = time.monotonic() + 120
            while not says_ready(said()):
                assert process.poll() is None, said()
                assert time.monotonic() < deadline, said()
                time.sleep(0.1)
            yield mesh
        finally:
            mesh.client.close()
            process.send_signal(signal.SIGINT)
            try:
                process.wait(40)
            finally:
                process.kill()


def says_ready(said: str) -> bool:
    """Whether `pmp up` has printed a line that says so: `Address already in use` contains the same letters."""
    return re.search(r"^[\d:]+ ready in [\d.]+ s$", said, re.MULTILINE) is not None
