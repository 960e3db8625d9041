"""The disk of the log: Redis ends when it can't write, so intake stops before."""

from __future__ import annotations

import shutil
from pathlib import Path

from kit.telemetry.names import MetricName
from kit.telemetry.state import meter


class LogDisk:
    """How much is free on the disk that holds the log.

    Args:
        folder: a folder on it.
        least: bytes below which intake stops.
    """

    def __init__(self, folder: Path, least: int) -> None:
        self._folder = folder
        self._least = least
        self._free = meter().create_gauge(MetricName.LOG_DISK_FREE, "By", "Free on the disk of the log, where it is this machine's.")

    def is_low(self) -> bool:
        """Whether less is free than a full log needs to drain.

        Raises:
            OSError: the folder can't be looked at.
        """
        free = shutil.disk_usage(self._folder).free
        self._free.set(free)
        return free < self._least
