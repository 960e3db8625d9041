"""The data folder of a local mesh: where its secrets, its state, its databases and its logs lie."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cli.errors import CommandFailed

LOCK_ATTEMPTS = 5
"""Readers hold the lock for an instant to see whether a mesh runs: `pmp up` tries again rather than take one of them for a mesh."""
LOCK_PAUSE = 0.05
"""Seconds between two attempts."""


class DataFolder:
    """Paths in the data folder, and the lock that says whether a mesh runs on it."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.secrets = self.path / "secrets.json"
        self.state = self.path / "mesh.json"
        self.redis = self.path / "redis"
        self.logs = self.path / "logs"
        self._lock = self.path / "lock"

    def create(self) -> None:
        """Makes the folders that are missing, for their owner only.

        Raises:
            CommandFailed: the file system refuses.
        """
        try:
            for folder in (self.path, self.redis, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            message = f"the data folder can't be made: {error}"
            raise CommandFailed(message) from error

    def database_url(self) -> str:
        """SQLAlchemy URL of the embedded databases, one file per service, with `{service}` in the place of its name."""
        return f"sqlite+aiosqlite:///{self.path}/{{service}}.db"

    def log(self, process: str) -> Path:
        """The log file of a process."""
        return self.logs / f"{process}.log"

    @contextmanager
    def lock(self) -> Generator[None]:
        """Holds the folder for one mesh. The kernel lets go of it when the process ends, however it ends.

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


def write_private(path: Path, text: str) -> None:
    """Replaces a file at once, readable by its owner only; readers see the old text or the new one."""
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


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
