"""Keeps the logs of a local mesh from filling the disk."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path

LARGEST_BYTES = 64 * 1024 * 1024
"""A log that grew beyond this is set aside; the one set aside before is dropped."""
POLL_SECONDS = 10.0
"""Pause between two looks at the logs."""


async def rotate_forever(folder: Path) -> None:
    """Looks after the logs in a folder until it is cancelled."""
    while True:
        await asyncio.to_thread(rotate, folder, LARGEST_BYTES)
        await asyncio.sleep(POLL_SECONDS)


def rotate(folder: Path, largest: int) -> None:
    """Sets aside every log larger than `largest` bytes as `<name>.log.1`.

    The processes write to the open file and append, so it is copied and emptied rather than renamed: what they write
    between the two is lost. A disk that is full keeps the log as it is.
    """
    for log in folder.glob("*.log"):
        with suppress(OSError):
            if log.stat().st_size > largest:
                shutil.copy(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)
