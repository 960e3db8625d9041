"""The data folder of a local mesh: its secrets, state, databases and logs."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli.errors import CommandFailed

MESH_TOKEN = "PMP_MESH_TOKEN"  # noqa: S105  (the name of a variable)
"""What every process of a mesh has in its environment."""
LOCK_ATTEMPTS = 5
"""Readers hold the lock for an instant to see whether a mesh runs: `pmp up` retries rather than take one of them for a mesh."""
LOCK_PAUSE = 0.05
"""Seconds between two attempts."""


class DataFolder:
    """Paths in the data folder, and the lock of the mesh that runs on it."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.secrets = self.path / "secrets.json"
        self.state = self.path / "mesh.json"
        self.redis = self.path / "redis"
        self.logs = self.path / "logs"
        self.traces = self.path / "traces"
        self._lock = self.path / "lock"

    def create(self) -> list[Path]:
        """Creates missing folders and makes existing files private; returns the paths that other users could access.

        Raises:
            CommandFailed: the file system refuses, or a path belongs to another user.
        """
        try:
            for folder in (self.path, self.redis, self.logs, self.traces):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_mode & stat.S_IWOTH:
                message = f"everybody may write to {self.path}: name a folder of your own with --data"
                raise CommandFailed(message)
            # The outermost first: from then on other users can't replace the paths that are checked.
            return [path for path in self._contents() if _close(path)]
        except OSError as error:
            message = f"the data folder can't be created: {error}"
            raise CommandFailed(message) from error

    def _contents(self) -> Iterator[Path]:
        """The folders and their contents."""
        yield self.path
        yield from (path for path in self.path.iterdir() if not path.is_dir())
        for folder in (self.redis, self.logs, self.traces):
            yield folder
            yield from folder.rglob("*")

    def database_url(self) -> str:
        """SQLAlchemy URL of the embedded databases, one file per service, with `{service}` for its name."""
        return f"sqlite+aiosqlite:///{self.path}/{{service}}.db"

    def log(self, process: str) -> Path:
        """The log file of a process."""
        return self.logs / f"{process}.log"

    @contextmanager
    def lock(self) -> Generator[None]:
        """Locks the folder for one mesh. The kernel releases the lock when the process ends, however it ends.

        Raises:
            CommandFailed: another mesh runs on the folder.
        """
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for attempt in range(LOCK_ATTEMPTS):
                if _try_lock(descriptor, fcntl.LOCK_EX):
                    break
                if attempt < LOCK_ATTEMPTS - 1:
                    time.sleep(LOCK_PAUSE)
            else:
                message = f"another `pmp up` runs on {self.path}: stop it, or name another folder with --data"
                raise CommandFailed(message)
            yield
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Whether a mesh runs on the folder."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)


def in_pod(folder: DataFolder, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a command runs in a pod of the mesh, which has its settings in the environment; a mesh on the data folder goes first."""
    return MESH_TOKEN in environ and not folder.is_locked()


def write_private(path: Path, text: str) -> None:
    """Replaces a file atomically, readable by its owner only; readers see the old text or the new one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _close(path: Path) -> bool:
    """Removes other users' permissions on a file or folder; False when they had none. The target of a link is not touched.

    Raises:
        CommandFailed: it belongs to another user, who could still read it.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:  # such as a database's journal, deleted meanwhile
        return False
    if stat.S_ISLNK(found.st_mode):
        return False
    if found.st_uid != os.geteuid():
        message = f"{path} belongs to another user ({found.st_uid}): run `pmp` as that user, or change its owner"
        raise CommandFailed(message)
    if not found.st_mode & 0o077:
        return False
    path.chmod(stat.S_IMODE(found.st_mode) & 0o700)
    return True


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
