"""`pmp restore`: makes a data folder from a backup."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from pydantic import ValidationError

from cli.backup import MANIFEST, Manifest, checksum
from cli.errors import CommandFailed
from cli.folder import DataFolder


def restore(backup: Path, folder: DataFolder) -> Manifest:
    """Unpacks a backup beside a folder that is new or empty, compares every file with its checksum, and makes that the folder.

    Raises:
        CommandFailed: the folder has files or can't be replaced, or the backup is damaged, incomplete or none: the folder is as before.
    """
    if folder.path.exists() and any(folder.path.iterdir()):
        raise CommandFailed(f"{folder.path} is not empty: a backup is restored to a new folder, and the old one stays as it is")
    try:
        folder.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.path.parent, prefix=".restored-") as place:
            new = DataFolder(Path(place) / folder.path.name)
            manifest = _restored(backup, new)
            new.path.replace(folder.path)
    except OSError as error:
        raise CommandFailed(f"{folder.path} can't be made in {folder.path.parent}: {error}") from error
    return manifest


def _restored(backup: Path, folder: DataFolder) -> Manifest:
    """Unpacks a backup into a new folder.

    Raises:
        CommandFailed: it is damaged, incomplete or none.
    """
    folder.create()
    try:
        with tarfile.open(backup) as archive:
            manifest = Manifest.model_validate_json(_member(archive, MANIFEST).read())
            for name in manifest.files:
                _unpack(archive, name, folder.path / name)
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError) as error:
        problem = "it has no manifest" if isinstance(error, ValidationError) else str(error)
        raise CommandFailed(f"{backup} is no whole backup: {problem}") from error
    if damaged := [name for name, digest in manifest.files.items() if checksum(folder.path / name) != digest]:
        raise CommandFailed(f"{backup} is damaged: {', '.join(damaged)}")
    return manifest


def _unpack(archive: tarfile.TarFile, name: str, target: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} would be outside of the folder")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.touch(mode=0o600)
    with target.open("wb") as file:
        shutil.copyfileobj(_member(archive, name), file)


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    if found is None:
        raise ValueError(f"{name} is no file")
    return found
