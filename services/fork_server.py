"""Forks the processes of roles from one that has imported all of them: they start at once, and share the memory of what was imported.

`python -m services.fork_server SOCKET` listens on a Unix socket once everything is imported. A connection stands for a process: the
client sends a `ForkRequest` as a line of JSON, is sent a line with the process id and, when the process has ended, one with its exit
status as `subprocess` gives it. It needs Linux 5.3 or later, for pidfd_open(2).

It ignores SIGTERM as long as processes run, which the kernel kills with it: sent to all of them, they drain, and it is sent once more.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from ctypes import CDLL
from pathlib import Path
from typing import Any, Final, NamedTuple

from services import import_roles, role_modules

REQUEST_SECONDS: Final = 5.0
"""How long a client may take to send its request. Meanwhile nothing else is done."""
_LONGEST_REQUEST: Final = 2**22
"""Bytes; the kernel limits an environment to less."""
_PAUSE: Final = 0.1
"""Seconds until what the kernel refuses for the moment is tried again; its own interval between changes of a session's niceness."""
_ATTEMPTS: Final = 20
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
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        sys.exit(f"processes can't be forked here: pidfd_open(2), of Linux 5.3 and later, fails: {error}")
    # Ignored, as a launcher may have it, ends of processes could not be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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
                    _reap(selector, key.data)
                elif (request := _take_request(selector, listener)) is not None:
                    return request


def _take_request(selector: selectors.BaseSelector, listener: socket.socket) -> ForkRequest | None:
    """Forks the process that the next client requests. Returns the request in the new process, and None in the fork server."""
    if (client := _accepted(listener)) is None:
        return None
    if (request := _received(client)) is None:
        client.close()
        return None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a process would inherit that it is ignored
    if (forked := _fork()) is None:
        client.close()
        _heed_termination(selector)
        return None
    pid, end = forked
    if pid == 0:
        client.close()
        for sibling in selector.get_map().values():
            if sibling.data is not None:
                _close(sibling.data)
        return request
    process = _Process(pid, end, client)
    selector.register(end, selectors.EVENT_READ, process)
    _heed_termination(selector)
    if not _send(process, pid):  # unknown to anybody, it would run beside its successor
        os.kill(pid, signal.SIGKILL)
    return None


def _accepted(listener: socket.socket) -> socket.socket | None:
    """The next client; None as long as there is no descriptor for it."""
    try:
        return listener.accept()[0]
    except OSError as error:
        _complain(f"no connection can be accepted: {error}")
        time.sleep(_PAUSE)
        return None


def _received(client: socket.socket) -> ForkRequest | None:
    """The request of a client; None if it sends none, such as one that only looks whether requests are accepted."""
    deadline, line = time.monotonic() + REQUEST_SECONDS, b""
    with suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
        while not line.endswith(b"\n") and len(line) < _LONGEST_REQUEST:
            client.settimeout(max(0.001, deadline - time.monotonic()))
            if not (chunk := client.recv(2**16)):
                break
            line += chunk
        fields: dict[str, Any] = json.loads(line)
        fields["roles"] = tuple(fields["roles"])
        return ForkRequest(**fields)
    if line:
        _complain(f"a request is refused: it is none, or was not sent within {REQUEST_SECONDS:g} s")
    return None


def _fork() -> tuple[int, int] | None:
    """Forks.

    Returns:
        The process id and its pidfd, 0 and no pidfd in the new process; None if there is no memory or descriptor for it: those that run are
        left alone.
    """
    try:
        pid = os.fork()
    except OSError as error:
        _complain(f"no process can be forked: {error}")
        return None
    if pid == 0:
        return 0, -1
    try:
        return pid, os.pidfd_open(pid)
    except OSError as error:
        _complain(f"a process that was forked can't be waited for, and is killed: {error}")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None


def _complain(what: str) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()


def _reap(selector: selectors.BaseSelector, process: _Process) -> None:
    selector.unregister(process.end)
    _heed_termination(selector)
    _, status = os.waitpid(process.pid, 0)
    _send(process, os.waitstatus_to_exitcode(status))
    _close(process)


def _heed_termination(selector: selectors.BaseSelector) -> None:
    """Ends by SIGTERM if no process runs: then the selector has the listener alone."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN if len(selector.get_map()) > 1 else signal.SIG_DFL)


def _close(process: _Process) -> None:
    os.close(process.end)
    process.client.close()


def _send(process: _Process, number: int) -> bool:
    """Sends a number to the client of a process; returns False if it is gone."""
    with suppress(OSError):
        process.client.sendall(f"{number}\n".encode())
        return True
    return False


def open_log(path: str | Path) -> int:
    """Opens the log of a process for its output; only its owner may read it. Returns the descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def set_niceness_of_session(pid: int, niceness: int) -> None:
    """Sets the niceness of a process's session, where the kernel schedules sessions: that of processes counts within theirs, see sched(7).

    The process has begun its session. A new one has the niceness 0. The kernel takes one change in 0.1 s from users other than root.
    """
    if niceness == 0:
        return
    for _ in range(_ATTEMPTS):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
        except BlockingIOError:
            time.sleep(_PAUSE)
        except OSError:
            return  # the kernel does not schedule sessions
        else:
            return


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
    set_niceness_of_session(os.getpid(), request.niceness)
    if request.log is not None:
        log = open_log(request.log)
        for output in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(log, output)
        os.close(log)
    os.environ.clear()
    os.environ.update(request.environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
