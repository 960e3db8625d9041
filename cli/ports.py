"""Ports for the processes of a local mesh."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from cli.errors import CommandFailed

LOOPBACK = "127.0.0.1"
RANGE = range(20_000, 32_768)
"""Below Linux's ephemeral ports (32768-60999): an outgoing connection could take the port of a process that is down for a moment, or
connect to itself."""


class Ports:
    """Ports that are reserved until the block ends, even while their processes are being restarted.

    A reserved port is bound without listening. The mesh's servers can listen on it, since all of them set SO_REUSEADDR. The kernel gives
    it to no outgoing connection and to no other mesh, which could otherwise choose the same ports while this one starts.
    """

    def __init__(self) -> None:
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.close()

    def hold(self, host: str, port: int) -> bool:
        """Reserves a given port; False when another program listens on it.

        Raises:
            CommandFailed: the address is not one of this machine's, or the port is privileged.
        """
        holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._held.enter_context(holder)
        # Connections of a mesh that has just stopped may linger on the port; a port with a listener is still refused.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            message = f"can't listen on {host}:{port}: {error.strerror}"
            raise CommandFailed(message) from error
        return True

    def take(self, count: int) -> list[int]:
        """Reserves different ports of the loopback interface that are neither used nor reserved.

        Raises:
            CommandFailed: there are too few.
        """
        found: list[int] = []
        for port in random.sample(RANGE, len(RANGE)):
            if len(found) == count:
                return found
            if self._take(port):
                found.append(port)
        message = f"fewer than {count} ports of {LOOPBACK} are free between {RANGE.start} and {RANGE.stop - 1}"
        raise CommandFailed(message)

    def _take(self, port: int) -> bool:
        holder = socket.socket()
        try:
            # SO_REUSEADDR is set only afterwards, so that a port that another mesh has reserved is refused.
            holder.bind((LOOPBACK, port))
        except OSError:
            holder.close()
            return False
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.enter_context(holder)
        return True
