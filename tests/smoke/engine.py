"""A private Docker engine: Debian 13's, in a folder, and gone with the process that started it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.servers import until
from tests.shape.repository import ROOT

FOLDER: Final = Path(os.environ["PMP_SMOKE"])
"""Where everything is kept between two runs."""
CHECKOUT: Final = Path("/srv/mesh")
"""The repository, to the engine. What is written there is gone afterwards."""
_HOST: Final = "unix:///run/pmp-smoke.sock"
_OPTIONS: Final = ["--exec-opt", "native.cgroupdriver=cgroupfs", "--bridge=none", "--iptables=false", "--ip6tables=false"]
"""Networks of Docker's make bridges, but no rules of a firewall: nothing leaves this machine, and its own rules stay."""
_START: Final = time.monotonic()


def say(text: str) -> None:
    """Prints a step with the seconds since the start."""
    print(f"{time.monotonic() - _START:7.1f} s  {text}", flush=True)  # noqa: T201  (the output of a command)


class Engine:
    """A running engine."""

    def __init__(self, daemon: subprocess.Popen[bytes]) -> None:
        self._daemon = daemon

    def path(self, path: Path) -> Path:
        """Where this process finds a file of the engine's file system."""
        return Path(f"/proc/{self._daemon.pid}/root") / path.relative_to("/")

    def run(self, *command: str | Path, stdin: int = subprocess.DEVNULL) -> str:
        """Runs a command in the engine's file system and returns what it prints.

        Raises:
            RuntimeError: it failed.
        """
        entered = ["nsenter", "--target", str(self._daemon.pid), "--mount", "env", f"DOCKER_HOST={_HOST}", *command]
        ran = subprocess.run(entered, check=False, stdin=stdin, capture_output=True, text=True)
        if ran.returncode != 0:
            words = " ".join(str(word) for word in command)
            raise RuntimeError(f"{words} failed ({ran.returncode}):\n{ran.stdout[-4000:]}{ran.stderr[-4000:]}")
        return ran.stdout

    def docker(self, *arguments: str | Path, stdin: int = subprocess.DEVNULL) -> str:
        """Runs docker and returns what it prints."""
        return self.run("docker", *arguments, stdin=stdin)

    def is_up(self) -> bool:
        """Whether it answers.

        Raises:
            RuntimeError: it has ended.
        """
        if self._daemon.poll() is not None:
            raise RuntimeError(f"dockerd ended: {(FOLDER / 'dockerd.log').read_text()[-2000:]}")
        try:
            self.docker("version")
        except RuntimeError:
            return False
        return True


@contextmanager
def running() -> Generator[Engine]:
    """Runs the engine. What it started ends with the PID namespace of this process, which has to be the first in it."""
    command = ["unshare", "--mount", Path(__file__).with_name("dockerd"), FOLDER / "engine", ROOT, "--host", _HOST, *_OPTIONS]
    with (FOLDER / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    engine = Engine(daemon)
    try:
        until(engine.is_up, 60)
        yield engine
    finally:
        daemon.terminate()
        daemon.wait(60)
