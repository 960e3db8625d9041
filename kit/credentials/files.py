"""Secrets in files, which are read again when they change: as Kubernetes, Docker and systemd hand them out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, Generic, TypeAlias, TypeVar

import structlog

FOLDER: Final = "PMP_SECRETS_DIR"
"""The variable that names the folder of secrets. A file in it is named after the variable that it replaces: `PMP_MESH_TOKEN`."""
CERTIFICATE: Final = "tls.crt"
"""File with a certificate and those it was issued by, in PEM: named as in a Kubernetes secret of TLS."""
PRIVATE_KEY: Final = "tls.key"
"""File with the certificate's private key, in PEM."""
AUTHORITY: Final = "ca.crt"
"""File with the certificates of those who issue certificates of peers, in PEM."""
_LOOK_SECONDS: Final = 1.0

_Value = TypeVar("_Value")
_Mark: TypeAlias = "tuple[int, int, int, int] | None"
_log = structlog.get_logger(__name__)


def secret_file(variable: str) -> Path | None:
    """The file that a setting comes from; None if it comes from the environment, which has precedence, or from nowhere."""
    folder = os.environ.get(FOLDER)
    if not folder or variable in os.environ:
        return None
    path = Path(folder, variable)
    return path if path.is_file() else None


def secret(variable: str) -> str:
    """A setting from the environment, else from the folder of secrets; empty if neither has it.

    Raises:
        OSError: the file can't be read.
    """
    file = secret_file(variable)
    return read(file) if file else os.environ.get(variable, "")


def into_environment() -> None:
    """Puts the secrets of the folder into the environment, for a command that is over before they change.

    Raises:
        OSError: the folder or a file can't be read.
    """
    for file in Path(os.environ[FOLDER]).iterdir():
        if file.is_file() and not file.name.startswith("."):
            os.environ.setdefault(file.name, read(file))


def read(file: Path) -> str:
    """The secret in a file, without the line break at its end.

    Raises:
        OSError: the file can't be read.
    """
    return file.read_text().strip()


class Followed(Generic[_Value]):
    """A value made of files, and made anew after they have changed.

    Nothing watches them: they are looked at when the value is used, at most once a second. While a changed file is of no use, the
    value from before stays, and the file is read again each time.

    Args:
        files: what it is made of.
        make: reads the files; raises OSError or ValueError if they are of no use.

    Raises:
        OSError: the files can't be read.
        ValueError: they are of no use.
    """

    def __init__(self, files: Sequence[Path], make: Callable[[], _Value]) -> None:
        self._files = files
        self._make = make
        self._seen = self._marks()
        self._refused: Sequence[_Mark] | None = None
        self._value = make()
        self._next_look = monotonic() + _LOOK_SECONDS

    def value(self) -> _Value:
        """The value at this moment."""
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._look()
        return self._value

    def _look(self) -> None:
        marks = self._marks()
        if marks == self._seen:
            return
        names = [file.name for file in self._files]
        try:
            self._value = self._make()
        except (OSError, ValueError) as error:
            if marks != self._refused:
                # Its text may contain the secret.
                _log.error("changed secret refused", files=names, error=type(error).__name__)
            self._refused = marks
        else:
            self._seen, self._refused = marks, None
            _log.info("secret changed", files=names)

    def _marks(self) -> list[_Mark]:
        """What differs after a file was replaced or written, or its permissions have changed."""
        return [_mark(file) for file in self._files]


def _mark(file: Path) -> _Mark:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_size
