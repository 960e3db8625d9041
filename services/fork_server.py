"""Forks the processes of roles from one that has imported all of them: they start at once, and share the memory of what was imported.

`python -m services.fork_server SOCKET` listens on a Unix socket once everything is imported. A connection stands for a process: the
client sends a `ForkRequest` as a line of JSON, is sent a line with the process id and, when the process has ended, one with its exit
status as `subprocess` gives it. It needs Linux 5.3 or later, for pidfd_open(2).
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

REQUEST_SECONDS: Final = 5.0
"""How long a client may take to send its request."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15


class ForkRequest(NamedTuple):
    """A process to be forked."""

    name: str
    """Name of the process in ps(1) and top(1), which show 15 bytes of it."""
    roles: tuple[str, ...]
    """The roles that it runs."""
    environment: dict[str, str]
    """Its whole environment."""
    log: str | None
    """File for its output; None for that of the fork server."""
    niceness: int
    """How far it yields to other processes, as in nice(1)."""

    def line(self) -> bytes:
        """The request as it is sent."""
        return json.dumps(self._asdict()).encode() + b"\n"


class _Process(NamedTuple):
    pid: int
    end: int
    """Its pidfd, which is readable once it has ended."""
    client: socket.socket


def main(path: str) -> None:
    """Imports all roles and forks processes until it is killed; in each of these, runs the roles that were requested."""
    roles, run_roles = import_roles(role_modules())
    # Collections leave alone what exists by now: they would write to the memory that processes share.
    gc.freeze()
    server = os.getpid()
    request = next_request(path)
    become(request, server)
    gc.enable()
    run_roles([roles[name] for name in request.roles])


def next_request(path: str) -> ForkRequest:
    """Forks a process for each request that arrives at a socket. Returns in these processes alone, each time with its own request."""
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(path)
        listener.listen()
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fileobj)
                    _reap(key.data)
                    continue
                client, _ = listener.accept()
                request = _received(client)
                if request is None or (pid := _fork()) is None:
                    client.close()
                    continue
                if pid == 0:
                    client.close()
                    for sibling in selector.get_map().values():
                        if sibling.data is not None:
                            _close(sibling.data)
                    return request
                process = _Process(pid, os.pidfd_open(pid), client)
                selector.register(process.end, selectors.EVENT_READ, process)
                _send(process, pid)


def _received(client: socket.socket) -> ForkRequest | None:
    """The request of a client; None if it sends none, such as one that only looks whether requests are accepted."""
    client.settimeout(REQUEST_SECONDS)
    with suppress(OSError, ValueError, TypeError, LookupError), client.makefile("rb") as lines:
        fields: dict[str, Any] = json.loads(lines.readline())
        fields["roles"] = tuple(fields["roles"])
        return ForkRequest(**fields)
    return None


def _fork() -> int | None:
    """Forks. Returns the process id, 0 in the new process, and None if there is no memory for it: those that run are left alone."""
    try:
        return os.fork()
    except OSError as error:
        sys.stderr.write(f"no process can be forked: {error}\n")
        return None


def _reap(process: _Process) -> None:
    _, status = os.waitpid(process.pid, 0)
    _send(process, os.waitstatus_to_exitcode(status))
    _close(process)


def _close(process: _Process) -> None:
    os.close(process.end)
    process.client.close()


def _send(process: _Process, number: int) -> None:
    with suppress(OSError):  # the client is gone
        process.client.sendall(f"{number}\n".encode())


def open_log(path: str | Path) -> int:
    """Opens the log of a process for its output; only its owner may read it. Returns the descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def become(request: ForkRequest, server: int) -> None:
    """Makes this process the requested one: in a session of its own, and killed by the kernel when the fork server dies.

    Args:
        request: what was requested.
        server: process id of the fork server.
    """
    os.setsid()
    process_control = CDLL(None).prctl
    process_control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    process_control(_PR_SET_NAME, request.name.encode())
    if os.getppid() != server:
        sys.exit("the fork server died")
    os.nice(request.niceness)
    if request.log is not None:
        log = open_log(request.log)
        for output in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(log, output)
        os.close(log)
    os.environ.clear()
    os.environ.update(request.environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
