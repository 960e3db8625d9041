"""The disk of a local mesh: when it is full, Redis exits and intake stops."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Disk(BaseModel):
    """The disk that holds the log of a mesh."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    """A folder on it."""
    least_bytes: int
    """Intake stops while less is free."""

    def free_bytes(self) -> int:
        """Bytes that are free now; 0 when unknown."""
        try:
            return shutil.disk_usage(self.folder).free
        except OSError:
            return 0

    def is_low(self) -> bool:
        """Whether intake stops for lack of space."""
        return self.free_bytes() < self.least_bytes

    def describe(self) -> str:
        """The free space in words, and whether intake stops."""
        low = f": intake stops below {_mib(self.least_bytes)}" if self.is_low() else ""
        return f"{_mib(self.free_bytes())} are free on the disk of {self.folder}{low}"


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
