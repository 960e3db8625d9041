"""A supervised process: started, restarted when it dies, ended in order."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cli.forked import fork, is_forking
from cli.readiness import Ready
from cli.state import Kind, ProcessState, State
from services.fork_server import ForkRequest, open_log, set_niceness_of_session

FIRST_PAUSE = 0.5
"""Seconds before a process that died is restarted; doubled each time."""
LONGEST_PAUSE = 30.0
"""Longest pause in seconds, unless the command sets another."""
STEADY_SECONDS = 20.0
"""After a process ran this long, the pauses start over."""
GRACE_SECONDS = 15.0
"""How long a process may take to end before it is killed, unless its command sets another time."""
KILLED_SECONDS = 5.0
"""How long the end of a process that was killed is waited for: where a fork server hangs, nobody reports it."""
POLL_SECONDS = 0.1
"""Interval between two checks of a process that is starting."""
WAITING_SECONDS = 20.0
"""After so long, a process says that it waits for the fork server."""
NO_LOG = Path(os.devnull)
"""Log of a process whose output goes elsewhere."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a process is started, checked for readiness and ended."""

    name: str
    """Its display name."""
    kind: Kind
    """Kind of process."""
    argv: tuple[str, ...]
    """The program and its arguments."""
    environment: Mapping[str, str]
    """The whole environment of the process."""
    log: Path
    """File for its output."""
    address: str
    """Address of its readiness check."""
    ready: Ready
    """The readiness check."""
    roles: tuple[str, ...] = ()
    """The roles of services that it runs."""
    fork_server: Path | None = None
    """Socket of the fork server that forks it once it accepts requests; its program, which does the same, is not run."""
    niceness: int = 0
    """How far it yields to other processes, as in nice(1)."""
    metrics_url: str | None = None
    """URL of its metrics for Prometheus."""
    before_end: Callable[[], Awaitable[None]] | None = None
    """Runs before it is terminated."""
    grace_seconds: float = GRACE_SECONDS
    """How long it may take to end before it is killed."""
    longest_pause: float = LONGEST_PAUSE
    """Longest pause before a restart, in seconds."""
    why: Callable[[], str] | None = None
    """Returns the likely reason why it died, or an empty string."""


class Process(Protocol):
    """A process that was started, as of `asyncio.subprocess`."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit status; None as long as it runs."""
        ...

    async def wait(self) -> int:
        """Waits until it has ended; returns its exit status."""
        ...

    def terminate(self) -> None:
        """Sends SIGTERM."""
        ...

    def kill(self) -> None:
        """Sends SIGKILL."""
        ...


class SupervisedProcess:
    """Runs a command until `end` is called. Calls `changed` on each change of its state, and `say` with each message for the user."""

    def __init__(self, command: Command, changed: Callable[[], None], say: Callable[[str], None]) -> None:
        self.command = command
        self.state = ProcessState(
            name=command.name,
            kind=command.kind,
            roles=list(command.roles),
            address=command.address,
            metrics_url=command.metrics_url,
            state="starting",
        )
        self.was_ready = asyncio.Event()
        """Set when the process was ready for the first time."""
        self.deaths = 0
        """Number of times it died."""
        self._changed = changed
        self._say = say
        self._unasked = False
        self._ending = asyncio.Event()
        self._process: Process | None = None

    async def run(self) -> None:
        """Starts the process, restarts it with growing pauses when it dies, and returns when it has ended after `end`."""
        pause = FIRST_PAUSE
        while not self._ending.is_set():
            await self._until_forking()
            if self._ending.is_set():
                break
            started = time.monotonic()
            self.state.restarts = self.deaths
            try:
                death = describe_exit(await self._run_once())
            except Exception as error:  # noqa: BLE001 (a failure of one process must not affect the others)
                death = f"can't be started ({type(error).__name__}: {error})"
            if self._ending.is_set():
                break
            self._update("restarting", None)
            self.deaths += 1
            if time.monotonic() - started > STEADY_SECONDS:
                pause = FIRST_PAUSE
            reason = self.command.why() if self.command.why is not None else ""
            if not await self._is_forking():
                reason = "with the fork server"
            self._say(f"{self.command.name} {death}{f' ({reason})' if reason else ''}; starting it again in {pause:g} s")
            await self._pause(pause)
            pause = min(pause * 2, self.command.longest_pause)
        self._update("stopped", None)

    def end(self) -> None:
        """Requests the process to end; `run` returns when it has."""
        self._ending.set()

    def kill(self) -> None:
        """Kills the process."""
        self._ending.set()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _until_forking(self) -> None:
        """Waits until the fork server accepts requests, if the process is forked."""
        waits_since, has_said = time.monotonic(), False
        while not self._ending.is_set() and not await self._is_forking():
            if not has_said and time.monotonic() - waits_since > WAITING_SECONDS:
                self._say(f"{self.command.name} waits for the fork server, which accepts no requests at {self.command.fork_server}")
                has_said = True
            await self._pause(POLL_SECONDS)

    async def _is_forking(self) -> bool:
        return self.command.fork_server is None or await is_forking(self.command.fork_server)

    async def _run_once(self) -> int:
        """Runs the process until it dies or is ended; returns its exit status."""
        process = self._process = await _start(self.command)
        self._update("starting", process.pid)
        death = asyncio.create_task(process.wait())
        watch = asyncio.create_task(self._watch_readiness())
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({death, ending}, return_when=asyncio.FIRST_COMPLETED)
            watch.cancel()
            if not death.done():
                await self._end(process, death)
            return death.result() if death.done() else -signal.SIGKILL
        finally:
            for task in (watch, ending, death):
                task.cancel()
            if process.returncode is None:
                process.kill()

    async def _end(self, process: Process, death: asyncio.Task[int]) -> None:
        if self.command.before_end is not None:
            await self.command.before_end()
        if process.returncode is None:
            process.terminate()
        done, _ = await asyncio.wait({death}, timeout=self.command.grace_seconds)
        if not done:
            self._say(f"{self.command.name} did not end within {self.command.grace_seconds:g} s: killing it")
            process.kill()
            await asyncio.wait({death}, timeout=KILLED_SECONDS)

    async def _watch_readiness(self) -> None:
        started = time.monotonic()
        while not await self._is_ready():  # noqa: ASYNC110 (there is no event to wait for in another process)
            await asyncio.sleep(POLL_SECONDS)
        if self.deaths:
            self._say(f"{self.command.name} is ready again after {time.monotonic() - started:.1f} s")
        self._update("ready", self.state.pid)
        self.was_ready.set()

    async def _is_ready(self) -> bool:
        try:
            return await self.command.ready()
        except Exception as error:  # noqa: BLE001 (the check is repeated)
            if not self._unasked:
                self._say(f"{self.command.name} can't be asked whether it is ready ({type(error).__name__}: {error})")
            self._unasked = True
            return False

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return

    def _update(self, state: State, pid: int | None) -> None:
        self.state = self.state.model_copy(update={"state": state, "pid": pid})
        self._changed()


async def _start(command: Command) -> Process:
    if command.fork_server is None:
        yielding = ("nice", "-n", str(command.niceness)) if command.niceness else ()
        process = await spawn((*yielding, *command.argv), command.environment, command.log)
        # The kernel may have it wait.
        await asyncio.to_thread(set_niceness_of_session, process.pid, command.niceness)
        return process
    log = None if command.log == NO_LOG else str(command.log)
    return await fork(command.fork_server, ForkRequest(command.name, command.roles, dict(command.environment), log, command.niceness))


async def spawn(argv: tuple[str, ...], environment: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
    """Starts a process that writes to `log`, receives no signals from the terminal, and is killed by the kernel when this process dies."""
    descriptor = open_log(log)
    try:
        return await asyncio.create_subprocess_exec(
            "setpriv",
            "--pdeathsig=KILL",
            "--",
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=environment,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


async def run_to_end(argv: tuple[str, ...], environment: Mapping[str, str], log: Path) -> int:
    """Runs a process started by `spawn` and returns its exit status. When the caller is cancelled, the process is killed."""
    process = await spawn(argv, environment, log)
    try:
        return await process.wait()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise


def describe_exit(status: int) -> str:
    """Describes how a process ended, from its `subprocess` return code."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65_536))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
