"""Holds what `pmp service install` writes to what systemd takes, to the mesh's settings, and to a sandbox that systemd rates well."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from cli.errors import CommandFailed
from cli.server.files import MachineFile, machine_files, own_program
from cli.server.machine import BACKUPS, CERTIFICATES, DATA, FOLDERS, PROGRAM, SETTINGS, UNIT, USERS
from cli.supervisor import LONGEST_DRAIN_SECONDS
from gateway.settings import GatewaySettings
from kit.settings import Settings
from tests.roles import ROLES

MOST_EXPOSED = 2.0
"""Of 10, by `systemd-analyze security`; below it is what it calls OK."""
OPTIONS = {"PMP_HOST", "PMP_PORT", "PMP_BACKUPS", "PMP_BACKUP_KEEP"}
"""Of `pmp up` and `pmp backup`."""
FILES = {file.path: file for file in machine_files(own_program())}


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    path = tmp_path / UNIT.name
    path.write_text(FILES[UNIT].text)
    return path


def service(text: str) -> dict[str, str]:
    """The section of the service; of a key that is repeated, the last."""
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
    parser.read_string(text)
    return dict(parser["Service"])


def test_systemd_takes_the_unit(unit: Path) -> None:
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], check=False, capture_output=True, text=True)
    said = [line for line in ran.stderr.splitlines() if UNIT.name in line]
    assert (ran.returncode, said) == (0, []), ran.stderr


def test_the_service_is_sandboxed(unit: Path) -> None:
    rate = ["systemd-analyze", "security", "--offline=true", f"--threshold={int(MOST_EXPOSED * 10)}", "--no-pager", unit]
    ran = subprocess.run(rate, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_the_service_is_given_the_time_it_takes_to_drain_and_ends_its_processes_itself() -> None:
    settings = service(FILES[UNIT].text)
    assert float(settings["TimeoutStopSec"]) > LONGEST_DRAIN_SECONDS
    assert (settings["KillMode"], settings["Restart"], settings["Type"]) == ("mixed", "on-failure", "notify")


def test_the_service_writes_where_its_folders_are() -> None:
    settings = service(FILES[UNIT].text)
    assert (f"/var/lib/{settings['StateDirectory']}", settings["ReadWritePaths"]) == (str(DATA), f"-{BACKUPS}")
    assert settings["Environment"].split()[0] == "PMP_DATA=%S/pmp"
    assert settings["EnvironmentFile"] == f"-{SETTINGS}"
    folders = {line.split()[1] for line in FILES[FOLDERS].text.splitlines() if line.startswith("d ")}
    assert folders == {str(SETTINGS.parent), str(CERTIFICATES), str(BACKUPS)}
    assert f"u {settings['User']} - " in FILES[USERS].text


def test_the_settings_that_it_suggests_are_settings() -> None:
    suggested = set(re.findall(r"^#(PMP_\w+)=", FILES[SETTINGS].text, re.MULTILINE))
    classes = [Settings, GatewaySettings, *(role.settings for role in ROLES.values())]
    # The address of the rates is an argument of its command.
    assert suggested - OPTIONS - {"PMP_SITE_RATES_URL"} <= {f"PMP_{field}".upper() for each in classes for field in each.model_fields}
    assert (FILES[SETTINGS].mode, FILES[SETTINGS].is_kept) == (0o600, True)
    assert [line for line in FILES[SETTINGS].text.splitlines() if not line.startswith("#") and line] == [], "nothing is set yet"


def test_the_command_of_operators_is_a_shell_script(tmp_path: Path) -> None:
    (tmp_path / "pmp").write_text(FILES[PROGRAM].text)
    subprocess.run(["sh", "-n", tmp_path / "pmp"], check=True)
    assert FILES[PROGRAM].text.count(f"{own_program()}") == 2


@pytest.mark.parametrize("path", ["/opt/a release/.venv/bin/pmp", "/opt/100%/.venv/bin/pmp", "/opt/$HOME/.venv/bin/pmp"])
def test_a_path_that_systemd_would_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(CommandFailed, match="move the release"):
        machine_files(Path(path))


@pytest.mark.parametrize(("above", "is_hidden"), [("home", True), ("root", True), ("opt", False)])
def test_a_release_in_a_home_is_visible_to_the_service(above: str, *, is_hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    release = Path("/") / above / "pmp"
    files: list[MachineFile] = machine_files(release / ".venv" / "bin" / "pmp")
    settings = service(next(file.text for file in files if file.path == UNIT))
    assert settings["ProtectHome"] == "tmpfs"
    assert settings.get("BindReadOnlyPaths") == (str(release) if is_hidden else None)
