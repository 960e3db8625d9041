"""The version of the mesh that is installed."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

_PACKAGE: Final = "pmp-mesh"


def installed_version() -> str:
    """Returns it as the package states it; a process that is running may be of another one."""
    return version(_PACKAGE)
