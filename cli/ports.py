"""Ports of this machine for the processes of a local mesh."""

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
"""Below the ports Linux gives to outgoing connections (32768-60999): one of those could take the port of a process that is down for a
moment, or, knocking at it, connect to itself."""


class Ports:
    """Ports that are held until the block ends, from before their processes listen until after those have died and been started again.

    A held port is bound and does not listen. Servers listen on it all the same, as every one of the mesh sets SO_REUSEADDR; nobody else
    is given it: no outgoing connection, and no other mesh, which without this could choose the same ones while this one starts.
    """

    def __init__(self) -> None:
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.close()

    def hold(self, host: str, port: int) -> bool:
        """Holds a port that somebody chose; False when something listens there.

        Raises:
            CommandFailed: the address is none of this machine's, or the port is for the privileged.
        """
        holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._held.enter_context(holder)
        # Connections of a mesh that has just stopped may still linger there; a listener is refused all the same.
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
        """Different ports of the loopback interface that nobody uses or holds.

        Raises:
            CommandFailed: there are not enough of them.
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
            # Without SO_REUSEADDR, which comes after: so that it is refused where another holder is.
            holder.bind((LOOPBACK, port))
        except OSError:
            holder.close()
            return False
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.enter_context(holder)
        return True


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback interface that are free now.

    Raises:
        CommandFailed: there are not enough of them.
    """
    with Ports() as ports:
        return ports.take(count)
