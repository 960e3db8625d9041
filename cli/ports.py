"""Ports of the loopback interface for the processes of a local mesh."""

from __future__ import annotations

import errno
import random
import socket

from cli.errors import CommandFailed

LOOPBACK = "127.0.0.1"
RANGE = range(20_000, 32_768)
"""Below the ports Linux gives to outgoing connections (32768-60999): one of those could take the port of a process that is down for a
moment, or, knocking at it, connect to itself."""


def is_free(host: str, port: int) -> bool:
    """Whether nothing listens on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of a mesh that has just stopped may still linger there; a listener is refused all the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            message = f"can't listen on {host}:{port}: {error.strerror}"
            raise CommandFailed(message) from error
    return True


def free_ports(count: int) -> list[int]:
    """Different free ports of the loopback interface.

    Raises:
        CommandFailed: there are not enough of them.
    """
    found: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        if len(found) == count:
            return found
        if is_free(LOOPBACK, port):
            found.append(port)
    message = f"fewer than {count} ports of {LOOPBACK} are free between {RANGE.start} and {RANGE.stop - 1}"
    raise CommandFailed(message)
