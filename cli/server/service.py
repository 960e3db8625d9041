"""`pmp service`: installs the mesh as a service of this machine, shows it, and removes it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from cli.backup import backups
from cli.errors import CommandFailed
from cli.server.files import MachineFile, machine_files, own_program
from cli.server.machine import BACKUPS, DATA, FOLDERS, SERVICE, SETTINGS, UNIT, USERS, Machine, must_be_root

_PROGRAM: Final = re.compile(r"^ExecStart=(\S+) up$", re.MULTILINE)


class ServiceStatus(BaseModel):
    """The service as systemd has it."""

    release: Path
    """`pmp` of the release that it runs."""
    state: str
    """Such as `active`, `activating` or `failed`."""
    is_enabled: bool
    """Whether it starts with the machine."""
    restarts: int
    """How often systemd started it again after a failure."""
    last_backup: Path | None
    """The newest backup in the default folder."""


def install(machine: Machine, say: Callable[[str], None], *, start: bool) -> None:
    """Writes the files of a service that runs this release, and starts it, or starts it anew if it runs.

    Raises:
        CommandFailed: it may not, one of systemd's programs fails, or the service does not come up.
    """
    must_be_root(machine, "service install")
    for file in machine_files(own_program()):
        if not (file.is_kept and machine.path(file.path).exists()):
            _write(machine, file)
            say(f"wrote {file.path}")
    machine.run("systemd-sysusers", str(machine.path(USERS)))
    machine.run("systemd-tmpfiles", "--create", str(machine.path(FOLDERS)))
    machine.run("systemctl", "enable", SERVICE)
    if not start:
        return
    machine.run("systemctl", "daemon-reload")
    try:
        machine.run("systemctl", "restart", SERVICE)
    except CommandFailed as failure:
        raise CommandFailed(f"{SERVICE} does not come up: `journalctl --unit {SERVICE}` says why ({failure})") from failure
    say(f"{SERVICE} is up, and starts with the machine; settings are in {SETTINGS}, data in {DATA}, backups in {BACKUPS}")


def preview(say: Callable[[str], None]) -> None:
    """Shows what `install` would write."""
    for file in machine_files(own_program()):
        say(f"==> {file.path} ({file.mode:o}{', unless it exists' if file.is_kept else ''})\n{file.text}")


def uninstall(machine: Machine, say: Callable[[str], None]) -> None:
    """Stops the service and removes its files; what belongs to the shop stays.

    Raises:
        CommandFailed: it may not, there is no service, or systemd refuses.
    """
    must_be_root(machine, "service uninstall")
    program = installed_program(machine)
    machine.run("systemctl", "disable", "--now", SERVICE)
    for file in machine_files(program):
        if not file.is_kept:
            machine.path(file.path).unlink(missing_ok=True)
    machine.run("systemctl", "daemon-reload")
    say(f"{SERVICE} is removed. Kept: {DATA} with everything that the mesh knows, {BACKUPS}, {SETTINGS.parent} and the user pmp.")


def installed_program(machine: Machine) -> Path:
    """`pmp` of the release that the service runs.

    Raises:
        CommandFailed: there is no service.
    """
    try:
        found = _PROGRAM.search(machine.path(UNIT).read_text())
    except FileNotFoundError:
        found = None
    if found is None:
        raise CommandFailed(f"no service is installed here ({UNIT}): `pmp service install` does that")
    return Path(found[1])


def service_status(machine: Machine) -> ServiceStatus:
    """The state of the service.

    Raises:
        CommandFailed: there is no service, systemd does not answer, or this user may not see the backups.
    """
    program = installed_program(machine)
    shown = machine.properties("ActiveState", "UnitFileState", "NRestarts")
    folder = machine.path(BACKUPS)
    if folder.exists() and not os.access(folder, os.R_OK | os.X_OK):
        raise CommandFailed("only root and the user pmp see the mesh of this machine")
    made = backups(folder)
    return ServiceStatus(
        release=program,
        state=shown["ActiveState"],
        is_enabled=shown["UnitFileState"] == "enabled",
        restarts=int(shown["NRestarts"]),
        last_backup=made[0] if made else None,
    )


def describe(status: ServiceStatus) -> str:
    """The state of the service in words."""
    lines = [
        f"{SERVICE} is {status.state}, {'starts' if status.is_enabled else 'does not start'} with the machine"
        + (f", and was started again {status.restarts} times after a failure" if status.restarts else ""),
        f"release: {status.release}",
        f"last backup: {_with_age(status.last_backup) if status.last_backup else 'none yet'}",
    ]
    return "\n".join(lines)


def _with_age(backup: Path) -> str:
    age = datetime.now(UTC) - datetime.fromtimestamp(backup.stat().st_mtime, UTC)
    return f"{backup.name}, {age.total_seconds() / 3600:.0f} hours ago"


def _write(machine: Machine, file: MachineFile) -> None:
    path = machine.path(file.path)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.touch(mode=0o600)
        partial.write_text(file.text)
        partial.chmod(file.mode)
        partial.replace(path)
    except OSError as error:
        raise CommandFailed(f"{path} can't be written: {error}") from error
