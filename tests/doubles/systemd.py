"""A double of systemd's programs, for a machine whose root is a folder: run as `systemctl`, `systemd-sysusers` or `systemd-tmpfiles`.

It does with the unit of a service what the mesh depends on: units are as they were at the last `daemon-reload`, the environment is that
of the unit and of its file, a service of `Type=notify` is up when it says so, only its main process is asked to end, and what remains
after `TimeoutStopSec` is killed. It does not start a service again that died, and knows neither users nor sandboxes.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


class Machine:
    """The machine, with one service."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.run = root / "run"
        self.unit = root / "etc/systemd/system" / name
        self.wanted = self.unit.parent / "multi-user.target.wants" / name
        self.loaded = self.run / name
        self.pid = self.run / f"{name}.pid"

    def load(self) -> None:
        self.run.mkdir(exist_ok=True)
        if self.unit.exists():
            shutil.copy(self.unit, self.loaded)
        else:
            self.loaded.unlink(missing_ok=True)

    def setting(self, name: str) -> str:
        lines = (self.loaded if self.loaded.exists() else self.unit).read_text().splitlines()
        return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")][-1]

    def environment(self) -> dict[str, str]:
        pairs = self.setting("Environment").split()
        file = self.root / self.setting("EnvironmentFile").removeprefix("-/")
        pairs += [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        given = dict(pair.split("=", 1) for pair in pairs)
        return {name: self.here(value.replace("%S", "/var/lib")) for name, value in given.items()}

    def here(self, value: str) -> str:
        """A path of the machine as it is for its processes, which have another root."""
        found = self.root / value.removeprefix("/")
        return str(found) if value.startswith("/") and found.exists() else value

    def is_running(self) -> bool:
        with suppress(FileNotFoundError):
            state = Path(f"/proc/{self.pid.read_text()}/stat").read_text().rpartition(")")[2].split()[0]
            return state != "Z"
        return False

    def start(self) -> None:
        if not self.loaded.exists():
            self.load()
        (self.root / "var/lib" / self.setting("StateDirectory")).mkdir(mode=0o700, parents=True, exist_ok=True)
        notified = self.run / "notify"
        notified.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver, (self.root / "journal").open("ab") as journal:
            receiver.bind(str(notified))
            environment = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(notified), **self.environment()}
            command = self.setting("ExecStart").split()
            process = subprocess.Popen(
                command, env=environment, stdout=journal, stderr=journal, stdin=subprocess.DEVNULL, start_new_session=True
            )
            self.pid.write_text(str(process.pid))
            deadline = time.monotonic() + float(self.setting("TimeoutStartSec"))
            while process.poll() is None and time.monotonic() < deadline:
                if select.select([receiver], [], [], 0.05)[0] and receiver.recv(4096) == b"READY=1":
                    return
        self.stop()
        sys.exit("Job for pmp.service failed because the control process exited with error code.")

    def stop(self) -> None:
        deadline = time.monotonic() + float(self.setting("TimeoutStopSec"))
        while self.is_running():
            is_late = time.monotonic() > deadline
            with suppress(ProcessLookupError):
                os.kill(int(self.pid.read_text()), signal.SIGKILL if is_late else signal.SIGTERM)
            while self.is_running() and (is_late or time.monotonic() < deadline):
                time.sleep(0.05)
        self.pid.unlink(missing_ok=True)


def systemctl(root: Path, verb: str, arguments: list[str]) -> None:
    """The verbs that the mesh uses."""
    machine = Machine(root, next((each for each in arguments if each.endswith(".service")), "pmp.service"))
    if verb == "daemon-reload":
        machine.load()
    elif verb == "enable":
        machine.wanted.parent.mkdir(exist_ok=True)
        machine.wanted.unlink(missing_ok=True)
        machine.wanted.symlink_to(machine.unit)
    elif verb == "restart":
        if machine.is_running():
            machine.stop()
        machine.start()
    elif verb == "disable":
        assert "--now" in arguments
        machine.stop()
        machine.wanted.unlink()
    elif verb == "show":
        state, enabled = "active" if machine.is_running() else "inactive", "enabled" if machine.wanted.exists() else "disabled"
        sys.stdout.write(f"ActiveState={state}\nUnitFileState={enabled}\nNRestarts=0\n")
    else:
        sys.exit(f"Unknown command verb {verb}.")


def tmpfiles(root: Path, file: Path) -> None:
    """Makes the folders of a file, for whoever runs this."""
    for line in file.read_text().splitlines():
        if line.startswith("d "):
            _, path, mode, *_ = line.split()
            folder = root / path.removeprefix("/")
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(int(mode, 8))


def main() -> None:
    program, option, *arguments = sys.argv[1:]
    root = Path(option.removeprefix("--root="))
    assert root.is_absolute()
    assert root != Path("/")
    if program == "systemctl":
        systemctl(root, arguments[0], arguments[1:])
    elif program == "systemd-tmpfiles":
        assert arguments[0] == "--create"
        tmpfiles(root, Path(arguments[1]))
    else:
        assert program == "systemd-sysusers"
        assert Path(arguments[0]).read_text()


if __name__ == "__main__":
    main()
