"""Processes of roles are forked, and are then like any that was started by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.forked import ForkedProcess, fork, is_forking
from cli.processes import KILLED_SECONDS, Command, SupervisedProcess
from services.fork_server import REQUEST_SECONDS, ForkRequest
from tests import background
from tests.background import eventually
from tests.servers import is_alive, niceness_of_session, until

PROGRAM = """
import json, os, signal, sys, time
from services.fork_server import become, next_request
server = os.getpid()
request = next_request(sys.argv[1])
become(request, server)
exec(request.environment["PROGRAM"])
"""
"""A fork server whose processes run a program from their environment in the place of roles."""


class ForkServer:
    """One that runs."""

    def __init__(self, path: Path, *command: str) -> None:
        self.socket = path / "s"
        self.log = path / "log"
        with (path / "server.log").open("wb") as output:
            self.process = subprocess.Popen([sys.executable, *command, self.socket], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.output = path / "server.log"

    async def fork(self, program: str, niceness: int = 0, *, logs: bool = True, **environment: str) -> ForkedProcess:
        """Forks a process that runs a program."""
        await eventually(lambda: is_forking(self.socket))
        log = str(self.log) if logs else None
        return await fork(self.socket, ForkRequest("a-process", ("realtime",), {**environment, "PROGRAM": program}, log, niceness))

    def end(self) -> None:
        """Kills it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server() -> Iterator[ForkServer]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket has a short path
        started = ForkServer(Path(folder), "-c", PROGRAM)
        yield started
        started.end()


async def test_a_forked_process_has_what_was_requested(server: ForkServer) -> None:
    shown = (
        "print(json.dumps([os.getpid(), os.getsid(0), os.nice(0), dict(os.environ), open('/proc/self/comm').read(), sys.stdin.read(),"
        " len(os.listdir('/proc/self/fd'))]))"
    )
    process = await server.fork(shown, 3, OWN="1")
    assert await process.wait() == process.returncode == 0
    pid, session, niceness, environment, name, read, descriptors = json.loads(server.log.read_text())
    assert (pid, session, niceness, name.strip(), read) == (process.pid, process.pid, 3, "a-process", "")
    assert environment == {"PROGRAM": shown, "OWN": "1"}
    assert descriptors == 4, "standard streams and the folder that is listed: nothing of the fork server's"
    assert server.log.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(niceness_of_session(os.getpid()) is None, reason="the kernel does not schedule sessions")
async def test_sessions_of_forked_processes_yield_and_that_of_the_fork_server_does_not(server: ForkServer) -> None:
    forked = [await server.fork("time.sleep(300)", niceness) for niceness in (0, 5, 7, 0, 5, 7)]
    until(lambda: [niceness_of_session(each.pid) for each in forked] == [0, 5, 7, 0, 5, 7], 10)
    assert niceness_of_session(server.process.pid) == niceness_of_session(os.getpid())
    server.end()
    assert {await each.wait() for each in forked} == {-signal.SIGKILL}


async def test_without_a_log_it_writes_where_the_fork_server_does(server: ForkServer) -> None:
    process = await server.fork("print('shown')", logs=False)
    assert await process.wait() == 0
    assert server.output.read_text() == "shown\n"


async def test_each_process_reports_its_own_end(server: ForkServer) -> None:
    waiting = await server.fork("time.sleep(300)")
    failing = await server.fork("sys.exit(3)")
    stubborn = await server.fork("signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(300)")
    assert await failing.wait() == 3
    assert (waiting.returncode, stubborn.returncode) == (None, None)
    waiting.terminate()
    assert await waiting.wait() == -signal.SIGTERM
    until(lambda: "ready" in server.log.read_text())
    stubborn.terminate()
    stubborn.kill()
    assert await stubborn.wait() == -signal.SIGKILL
    stubborn.kill()  # nobody is there any more


async def test_processes_die_with_the_fork_server(server: ForkServer) -> None:
    process = await server.fork("time.sleep(300)")
    assert is_alive(process.pid)
    server.end()
    assert await process.wait() == -signal.SIGKILL
    until(lambda: not is_alive(process.pid))
    assert not await is_forking(server.socket)
    with pytest.raises(OSError, match="refused"):
        await fork(server.socket, ForkRequest("a", (), {}, None, 0))


def supervised(server: ForkServer, said: list[str]) -> SupervisedProcess:
    """A process that is forked whenever it does not run."""

    async def is_ready() -> bool:
        return True

    environment, roles = {"PROGRAM": "time.sleep(300)"}, ("realtime",)
    return SupervisedProcess(
        Command(
            "part",
            "service",
            (),
            environment,
            server.log,
            "127.0.0.1:1",
            is_ready,
            roles=roles,
            fork_server=server.socket,
            grace_seconds=0.2,
        ),
        lambda: None,
        said.append,
    )


async def test_a_process_that_died_with_the_fork_server_says_so(server: ForkServer) -> None:
    said: list[str] = []
    part = supervised(server, said)
    run = asyncio.create_task(part.run())
    await part.was_ready.wait()
    server.end()
    await background.until(lambda: said)
    part.end()
    await run
    assert said == ["part was killed by SIGKILL (with the fork server); starting it again in 0.5 s"]


async def test_a_process_ends_although_the_fork_server_hangs(server: ForkServer) -> None:
    said: list[str] = []
    part = supervised(server, said)
    run = asyncio.create_task(part.run())
    await part.was_ready.wait()
    pid = part.state.pid
    assert pid is not None
    server.process.send_signal(signal.SIGSTOP)
    part.end()
    async with asyncio.timeout(2 * KILLED_SECONDS):
        await run
    assert said == ["part did not end within 0.2 s: killing it"]
    assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "the fork server would have waited for it"


@pytest.mark.parametrize("sent", [b"", b"{", b"[1]\n", b'{"name": "a"}\n', b'{"roles": 1}\n'])
async def test_what_is_no_request_is_not_answered_and_others_are(server: ForkServer, sent: bytes) -> None:
    await eventually(lambda: is_forking(server.socket))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.socket))
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(10)
        assert client.recv(100) == b""
    assert await (await server.fork("sys.exit(3)")).wait() == 3


@pytest.mark.parametrize("silence", [b"", b"{"])
async def test_a_client_that_says_no_more_is_not_waited_for_for_ever(server: ForkServer, silence: bytes) -> None:
    await eventually(lambda: is_forking(server.socket))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.socket))
        started = time.monotonic()
        forked = asyncio.create_task(server.fork("sys.exit(3)"))
        while not forked.done():
            with suppress(BrokenPipeError):
                client.sendall(silence)
            await asyncio.sleep(0.2)
        assert time.monotonic() - started < 2 * REQUEST_SECONDS
        assert await forked.result().wait() == 3


async def test_what_the_kernel_refuses_is_said_and_the_others_go_on() -> None:
    # Descriptors for the standard streams, the listener, the selector, one process with its client, and one more client.
    limited = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))\n"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = ForkServer(Path(folder), "-c", limited + PROGRAM)
        try:
            first = await server.fork("time.sleep(1)")
            with pytest.raises(ConnectionResetError, match="forked no process"):
                await server.fork("time.sleep(300)")
            assert "can't be waited for" in server.output.read_text()
            assert [each.pid for each in psutil.Process(server.process.pid).children()] == [first.pid]
            assert await first.wait() == 0
            assert await (await server.fork("sys.exit(3)")).wait() == 3
        finally:
            server.end()


async def test_it_ends_by_sigterm_once_no_process_runs(server: ForkServer) -> None:
    process = await server.fork("print('ready', flush=True); time.sleep(300)")
    until(lambda: server.log.exists() and server.log.read_text())
    server.process.terminate()
    process.terminate()
    assert await process.wait() == -signal.SIGTERM
    server.process.terminate()
    assert server.process.wait(10) == -signal.SIGTERM


async def test_a_process_that_nobody_knows_of_is_killed(server: ForkServer) -> None:
    await eventually(lambda: is_forking(server.socket))
    server.process.send_signal(signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.socket))
        client.sendall(ForkRequest("a", (), {"PROGRAM": "time.sleep(300)"}, None, 0).line())
    server.process.send_signal(signal.SIGCONT)
    assert await (await server.fork("sys.exit(3)")).wait() == 3
    until(lambda: not psutil.Process(server.process.pid).children())


async def test_whoever_leaves_does_not_disturb_the_others(server: ForkServer) -> None:
    left = await server.fork("time.sleep(300)")
    gone: Any = left
    gone._writer.close()
    os.kill(left.pid, signal.SIGKILL)
    assert await (await server.fork("sys.exit(3)")).wait() == 3
    assert not is_alive(left.pid)


async def test_roles_are_run_with_the_settings_that_were_requested() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = ForkServer(Path(folder), "-m", "services.fork_server")
        try:
            one, other = await asyncio.gather(server.fork(""), server.fork("", PMP_MESH_TOKEN="token"))
            assert [await one.wait(), await other.wait()] == [2, 2]
            complaints = server.log.read_text().splitlines()
            assert complaints.count("PMP_MESH_TOKEN is missing") == 1
            assert complaints.count("PMP_REDIS_URL is missing") == 2
        finally:
            server.end()
