"""Forks the processes of roles from one that has imported all of them: they start at once, and share the memory of what was imported.

`python -m services.fork_server SOCKET` listens on a Unix socket once everything is imported. A connection stands for a process: the
client sends a line with an `Order`, is sent a line with the process id and, when the process has ended, one with its exit status as
`subprocess` gives it. It needs Linux 5.3 or later, for pidfd_open(2).
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from ctypes import CDLL
from pathlib import Path
from typing import Any, Final, NamedTuple

from services import import_roles, role_modules

ORDER_SECONDS: Final = 5.0
"""How long a client may take to send an order."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PRIVATE: Final = 0o600


class Order(NamedTuple):
    """A process that is asked for."""

    name: str
    """Name of the process for ps(1) and top(1), which show 15 bytes of it."""
    roles: tuple[str, ...]
    """The roles that it runs."""
    environment: dict[str, str]
    """Its whole environment."""
    log: str | None
    """File for its output; None for that of the fork server."""
    niceness: int
    """How far it yields to other processes, as in nice(1)."""

    def line(self) -> bytes:
        """The order as it is sent."""
        return json.dumps(self._asdict()).encode() + b"\n"


class _Process(NamedTuple):
    pid: int
    end: int
    """Its pidfd, which is readable once it has ended."""
    client: socket.socket


def main(path: str) -> None:
    """Imports every role and forks processes until it is killed; runs the roles of an order in each forked process."""
    roles, run_roles = import_roles(role_modules())
    # What is alive now is left alone by collections, which would write to the memory that processes share.
    gc.freeze()
    server = os.getpid()
    order = next_order(path)
    become(order, server)
    gc.enable()
    run_roles([roles[name] for name in order.roles])


def next_order(path: str) -> Order:
    """Forks a process for each order that arrives at a socket; returns only in these processes, each with its own order."""
    processes: list[_Process] = []
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen()
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fileobj)
                    processes.remove(key.data)
                    _reap(key.data)
                    continue
                client, _ = listener.accept()
                order = _received(client)
                if order is None:
                    client.close()
                    continue
                pid = os.fork()
                if pid == 0:
                    client.close()
                    for process in processes:
                        _close(process)
                    return order
                process = _Process(pid, os.pidfd_open(pid), client)
                processes.append(process)
                selector.register(process.end, selectors.EVENT_READ, process)
                _send(process, pid)


def _received(client: socket.socket) -> Order | None:
    """The order of a client; None if it sends none, as who only looks whether somebody listens."""
    client.settimeout(ORDER_SECONDS)
    with suppress(OSError, ValueError, TypeError, LookupError), client.makefile("rb") as lines:
        fields: dict[str, Any] = json.loads(lines.readline())
        fields["roles"] = tuple(fields["roles"])
        return Order(**fields)
    return None


def _reap(process: _Process) -> None:
    _, status = os.waitpid(process.pid, 0)
    _send(process, os.waitstatus_to_exitcode(status))
    _close(process)


def _send(process: _Process, number: int) -> None:
    with suppress(OSError):  # whoever ordered it is gone
        process.client.sendall(f"{number}\n".encode())


def _close(process: _Process) -> None:
    os.close(process.end)
    process.client.close()


def become(order: Order, server: int) -> None:
    """Makes this process the one that was ordered: with a session of its own, and killed by the kernel when the fork server dies."""
    os.setsid()
    process_control = CDLL(None).prctl
    process_control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    process_control(_PR_SET_NAME, order.name.encode())
    if os.getppid() != server:
        sys.exit("the fork server died")
    os.nice(order.niceness)
    if order.log is not None:
        log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _PRIVATE)
        for output in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(log, output)
        os.close(log)
    os.environ.clear()
    os.environ.update(order.environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
