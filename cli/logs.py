"""Keeps the logs of a local mesh from filling the disk."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path

LARGEST_BYTES = 64 * 1024 * 1024
"""A log larger than this is rotated; the previously rotated one is dropped."""
POLL_SECONDS = 10.0
"""Interval between two checks of the logs."""


async def rotate_forever(folder: Path) -> None:
    """Rotates the logs in a folder until it is cancelled."""
    while True:
        await asyncio.to_thread(rotate, folder, LARGEST_BYTES)
        await asyncio.sleep(POLL_SECONDS)


def rotate(folder: Path, largest: int) -> None:
    """Rotates every log larger than `largest` bytes to `<name>.log.1`.

    The processes append to the open file, so it is copied and truncated rather than renamed: lines written between the
    two are lost. On a full disk the log stays as it is.
    """
    for log in folder.glob("*.log"):
        with suppress(OSError):
            if log.stat().st_size > largest:
                shutil.copy(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)
