"""The disk of the log: Redis exits when it can't write, so intake stops before that."""

from __future__ import annotations

import shutil
from pathlib import Path

from kit.telemetry.names import MetricName
from kit.telemetry.state import meter


class LogDisk:
    """Free space on the disk that holds the log.

    Args:
        folder: a folder on that disk.
        least: free bytes below which intake stops.
    """

    def __init__(self, folder: Path, least: int) -> None:
        self._folder = folder
        self._least = least
        self._free = meter().create_gauge(
            MetricName.LOG_DISK_FREE, MetricName.LOG_DISK_FREE.unit, "Free on the disk of the log, where it is this machine's."
        )

    def is_low(self) -> bool:
        """Returns whether less is free than a full log needs to drain.

        Raises:
            OSError: the folder can't be read.
        """
        free = shutil.disk_usage(self._folder).free
        self._free.set(free)
        return free < self._least
