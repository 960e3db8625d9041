"""Where the mesh is on a machine, and the programs of the machine that set it up."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.errors import CommandFailed

SERVICE: Final = "pmp.service"
UNIT: Final = Path("/etc/systemd/system") / SERVICE
USERS: Final = Path("/etc/sysusers.d/pmp.conf")
FOLDERS: Final = Path("/etc/tmpfiles.d/pmp.conf")
SETTINGS: Final = Path("/etc/pmp/settings.env")
"""`PMP_*` of this shop; may hold secrets, and only root reads it."""
CERTIFICATES: Final = Path("/etc/pmp/tls")
PROGRAM: Final = Path("/usr/local/bin/pmp")
"""`pmp` as the user of the mesh."""
DATA: Final = Path("/var/lib/pmp")
BACKUPS: Final = Path("/var/backups/pmp")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, by the root of its file system: `/`, or the folder where that of another one is mounted."""

    root: Path = Path("/")

    def path(self, absolute: Path) -> Path:
        """Where a path of the machine is for this process."""
        return self.root / absolute.relative_to("/")

    def run(self, program: str, *arguments: str) -> str:
        """Runs one of systemd's programs, and returns what it printed.

        Raises:
            CommandFailed: it is missing, or fails.
        """
        command = [program, *([f"--root={self.root}"] if self.root != Path("/") else []), *arguments]
        try:
            ran = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  (programs of the machine)
        except FileNotFoundError:
            raise CommandFailed(f"{program} is missing: this machine is not run by systemd") from None
        if ran.returncode != 0:
            raise CommandFailed(f"`{' '.join(command)}` failed: {ran.stderr.strip() or ran.stdout.strip()}")
        return ran.stdout

    def properties(self, *names: str) -> dict[str, str]:
        """Properties of the service, as systemd has them: `ActiveState`, `UnitFileState`.

        Raises:
            CommandFailed: systemd does not answer.
        """
        shown = self.run("systemctl", "show", SERVICE, f"--property={','.join(names)}")
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def must_be_root(machine: Machine, command: str) -> None:
    """Checks that this process may change the machine.

    Raises:
        CommandFailed: it may not.
    """
    if os.geteuid() != 0 and machine.root == Path("/"):
        raise CommandFailed(f"`pmp {command}` changes this machine: run it as root, such as by sudo")
