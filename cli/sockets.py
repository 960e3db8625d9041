"""Unix sockets of a mesh's processes."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cli.errors import CommandFailed
from cli.folder import DataFolder
from gateway.settings import SOCKET_PATH_BYTES


def socket_path(folder: DataFolder, process: str) -> str:
    """Path of a process's Unix socket: in the data folder or, if that path is too long, in another private folder.

    Raises:
        CommandFailed: that folder belongs to another user or is not private.
    """
    path = os.fsencode(folder.path / f"{process}.sock")
    if len(path) > SOCKET_PATH_BYTES:
        own = f"pmp-{os.geteuid()}-{hashlib.sha256(path).hexdigest()[:16]}"
        homes = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]  # noqa: S108 (the folder in it is this user's alone)
        fits = (Path(home) / own for home in homes if home and len(os.fsencode(f"{home}/{own}/{process}.sock")) <= SOCKET_PATH_BYTES)
        private = next(fits)
        with suppress(FileExistsError):
            private.mkdir(mode=0o700)
        made = private.lstat()
        if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.geteuid() or made.st_mode & 0o077:
            message = f"{private} must be a folder of this user alone: remove it"
            raise CommandFailed(message)
        path = os.fsencode(private / f"{process}.sock")
    return os.fsdecode(path)


def remove_sockets(folder: DataFolder, paths: Iterable[str]) -> None:
    """Removes the sockets of processes that have ended, with the folders that were created for them; in the data folder they stay."""
    for socket in map(Path, paths):
        if socket.parent != folder.path:
            with suppress(OSError):
                socket.unlink(missing_ok=True)
                socket.parent.rmdir()
