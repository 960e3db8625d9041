"""What `pmp service install` writes to a machine."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import cli.server
from cli.errors import CommandFailed
from cli.server.machine import BACKUPS, CERTIFICATES, DATA, FOLDERS, PROGRAM, SETTINGS, UNIT, USERS
from cli.supervisor import LONGEST_DRAIN_SECONDS

_TEMPLATES: Final = Path(cli.server.__path__[0]) / "templates"
_PLAIN: Final = re.compile(r"[\w./+-]+", re.ASCII)
_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
"""Hidden from the service, except for what it is made of: https://www.freedesktop.org/software/systemd/man/systemd.exec.html#ProtectHome=."""
_MARGIN_SECONDS: Final = 15
"""Longer than the mesh takes to end, systemd waits until it kills it."""


@dataclass(frozen=True, slots=True)
class MachineFile:
    """A file of the machine."""

    path: Path
    """Where it is on the machine."""
    text: str
    """Its contents."""
    mode: int = 0o644
    """Its permissions."""
    is_kept: bool = False
    """Whether it is the operator's: it is written once, and stays when the service is removed."""


def own_program() -> Path:
    """`pmp` of the release that runs."""
    return Path(sys.executable).with_name("pmp")


def machine_files(program: Path) -> list[MachineFile]:
    """The files of a service that runs a release.

    Args:
        program: `pmp` of the release, in the `bin` of its virtual environment.

    Raises:
        CommandFailed: its path has characters that mean something to systemd or a shell.
    """
    if not _PLAIN.fullmatch(str(program)):
        raise CommandFailed(f"{program}: move the release to a path of letters, digits and any of . _ + -")
    values = {
        "program": program,
        "release": release_of(program),
        "visible": _visible(program),
        "stop_seconds": int(LONGEST_DRAIN_SECONDS) + _MARGIN_SECONDS,
        "data": DATA,
        "backups": BACKUPS,
        "certificates": CERTIFICATES,
        "settings": SETTINGS,
        "configuration": SETTINGS.parent,
    }

    def filled(name: str) -> str:
        return Template((_TEMPLATES / name).read_text()).substitute(values)

    return [
        MachineFile(UNIT, filled("pmp.service")),
        MachineFile(USERS, filled("users.conf")),
        MachineFile(FOLDERS, filled("folders.conf")),
        MachineFile(SETTINGS, filled("settings.env"), 0o600, is_kept=True),
        MachineFile(PROGRAM, filled("pmp.sh"), 0o755),
    ]


def release_of(program: Path) -> Path:
    """The folder of the checkout that `pmp` belongs to: `RELEASE/.venv/bin/pmp`."""
    return program.parents[2]


def _visible(program: Path) -> str:
    """What the service has to see of homes: the release, and the Python that its virtual environment was made with."""
    parts = {release_of(program), Path(sys.base_prefix)}
    hidden = sorted(str(part) for part in parts if any(part.is_relative_to(home) for home in _HOMES))
    return f"BindReadOnlyPaths={' '.join(hidden)}" if hidden else "# Nothing that it needs is in a home."
