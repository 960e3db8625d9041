"""Processes that the fork server forks."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.fork_server import ForkRequest

ANSWER_SECONDS: Final = 15.0
"""How long the fork server may take to fork a process: others may ask at the same time."""


class ForkedProcess:
    """A process that was forked; has the methods of `asyncio.subprocess.Process`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int) -> None:
        self.pid = pid
        """Its process id."""
        self.returncode: int | None = None
        """Its exit status as `subprocess` gives it; None as long as it runs."""
        self._reader = reader
        self._writer = writer

    async def wait(self) -> int:
        """Waits until it has ended; returns its exit status."""
        try:
            line = await self._reader.readline()
        finally:
            self._writer.close()
        # The kernel kills it when the fork server dies.
        self.returncode = int(line) if line else -signal.SIGKILL
        return self.returncode

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


async def fork(server: Path, request: ForkRequest) -> ForkedProcess:
    """Has the fork server at a socket fork a process.

    Raises:
        OSError: the fork server does not answer, or forks no process.
    """
    reader, writer = await asyncio.open_unix_connection(server)
    writer.write(request.line())
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await reader.readline()
    except TimeoutError:
        writer.close()
        message = f"the fork server did not answer within {ANSWER_SECONDS:g} s"
        raise TimeoutError(message) from None
    if not line:
        writer.close()
        message = "the fork server forked no process: its log says why"
        raise ConnectionResetError(message)
    return ForkedProcess(reader, writer, int(line))


async def is_forking(server: Path) -> bool:
    """Whether the fork server at a socket accepts requests, as it does once everything is imported."""
    try:
        _, writer = await asyncio.open_unix_connection(server)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
