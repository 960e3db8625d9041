"""`pmp upgrade`: replaces the release that the service of this machine runs, and returns to the old one if the new one does not do.

A release is a checkout with its virtual environment, so that both are on the machine. They run on the same data: releases only add to
tables, and an older one leaves alone what a later one has added. So the way back loses nothing that was accepted meanwhile. The backup
is for a release that damages data.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cli.books import Books
from cli.errors import CommandFailed
from cli.server.files import release_of
from cli.server.machine import BACKUPS, DATA, Machine, must_be_root
from cli.server.service import installed_program


def upgrade(machine: Machine, release: Path, say: Callable[[str], None], *, backup: bool) -> None:
    """Builds a release, backs the mesh up, runs the release, and checks it; returns to the one before if that fails.

    Args:
        machine: whose service it is.
        release: the folder of a checkout.
        say: shows what is done.
        backup: whether to make a backup; those of databases and a Redis elsewhere are made by their own tools.

    Raises:
        CommandFailed: the upgrade was not begun, or the old release runs again; the message says which.
    """
    must_be_root(machine, "upgrade")
    old, new = installed_program(machine), release.absolute() / ".venv" / "bin" / "pmp"
    if old == new:
        raise CommandFailed(f"the service runs {release}: check the new release out in another folder, so that there is a way back")
    _build(release)
    before = _books(machine, old)
    if backup:
        try:
            saved = _run(machine, old, "backup", str(machine.path(BACKUPS))).strip()
        except CommandFailed as failure:
            raise CommandFailed(f"{failure}\nThe release stays as it is. With a backup of your own: `pmp upgrade --no-backup`") from failure
        say(f"backup: {saved}")
    try:
        _start(machine, new)
        _check(machine, new, before)
    except (CommandFailed, KeyboardInterrupt) as failure:
        say(f"{failure or 'interrupted'}\nreturning to {release_of(old)}")
        _return(machine, old, before)
        raise CommandFailed(f"{release_of(old)} runs again, on the same data, and its books are as before") from failure
    say(f"{release.absolute()} runs; its books are as before. The way back: pmp upgrade {release_of(old)}")


def _build(release: Path) -> None:
    """Installs the dependencies of a checkout into it, from its lock.

    Raises:
        CommandFailed: it is no checkout, or can't be built.
    """
    if not (release / "Makefile").is_file():
        raise CommandFailed(f"{release} is no checkout of a release")
    # The service's user has to read what root builds.
    built = subprocess.run(["make", "--directory", release, "setup"], check=False, umask=0o022)  # noqa: S603, S607  (the machine's make)
    if built.returncode != 0:
        raise CommandFailed(f"{release} can't be built; the service runs as before")


def _start(machine: Machine, program: Path) -> None:
    """Has the service run a release, whose own command knows what its service needs.

    Raises:
        CommandFailed: it does not come up.
    """
    root = ["--root", str(machine.root)] if machine.root != Path("/") else []
    _completed([program, "service", "install", *root])


def _check(machine: Machine, program: Path, before: Books) -> None:
    """Checks that every process is ready, and that the books have lost nothing.

    Raises:
        CommandFailed: one of them is not, or they have.
    """
    _run(machine, program, "status")
    after = _books(machine, program)
    if after.total.received < before.total.received or after.total.missing > before.total.missing:
        raise CommandFailed(f"the books changed: {before.total} became {after.total}")


def _return(machine: Machine, program: Path, before: Books) -> None:
    try:
        _start(machine, program)
        _check(machine, program, before)
    except CommandFailed as failure:
        raise CommandFailed(f"the release before does not come up either ({failure}): docs/server.md says what to do") from failure


def _books(machine: Machine, program: Path) -> Books:
    """The books, balanced or not.

    Raises:
        CommandFailed: they can't be read.
    """
    try:
        return Books.model_validate_json(_run(machine, program, "books", "--json", accepted=(0, 1)))
    except ValidationError:
        raise CommandFailed(f"the books of {release_of(program)} can't be read") from None


def _run(machine: Machine, program: Path, *arguments: str, accepted: tuple[int, ...] = (0,)) -> str:
    """Runs a command of a release as the user whose data it is, and returns what it printed.

    Raises:
        CommandFailed: there is no data, or the command fails.
    """
    data = machine.path(DATA)
    try:
        owner = data.stat()
    except OSError as error:
        raise CommandFailed(f"there is no mesh in {data}: {error.strerror}") from error
    as_owner: dict[str, Any] = {} if os.geteuid() != 0 else {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    environment = {**os.environ, "PMP_DATA": str(data)}
    return _completed([program, *arguments], accepted, env=environment, cwd=data, **as_owner)


def _completed(command: list[Any], accepted: tuple[int, ...] = (0,), **options: Any) -> str:
    try:
        ran = subprocess.run(command, check=False, capture_output=True, text=True, **options)  # noqa: S603  (of a release)
    except OSError as error:
        raise CommandFailed(f"{command[0]} can't be run: {error.strerror}") from error
    if ran.returncode not in accepted:
        raise CommandFailed(f"`{' '.join(map(str, command))}` failed: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout
