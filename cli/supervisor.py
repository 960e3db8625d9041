"""Runs a local mesh: starts its processes in order, restarts those that die, and drains them in reverse order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Final

import typer

from cli.chores import CHORES
from cli.envoy_drain import PATIENCE_SECONDS
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.journal import in_journal, is_journal
from cli.local_secrets import Secrets
from cli.logs import rotate_forever
from cli.notification import notify
from cli.plan import Options, Plan, make_plan
from cli.ports import Ports
from cli.processes import GRACE_SECONDS, Command, SupervisedProcess, last_lines, run_to_end
from cli.readiness import redis_ready
from cli.revisions import are_newest
from cli.sockets import remove_sockets
from cli.state import Kind, MeshState
from cli.welcome import welcome

READY_SECONDS = 10.0
"""After this long, processes that are not ready are listed."""
FATAL_DEATHS = 3
"""A process that dies this often before it was ever ready aborts the start: the fault won't pass by itself."""
DISK_SECONDS = 10.0
"""Interval between two checks of the disk."""
POLL_SECONDS = 0.05
"""Interval between two checks of the processes while the mesh starts."""
DRAIN_ORDER: Final[Sequence[Sequence[Kind]]] = (("gateway",), ("service", "worker"), ("redis", "traces", "fork-server"))
"""The kinds of processes in the order in which they are ended, so that each can still finish its work."""
LONGEST_DRAIN_SECONDS: Final = PATIENCE_SECONDS + len(DRAIN_ORDER) * GRACE_SECONDS
"""The longest that a mesh takes from a signal to its end."""


async def run_mesh(options: Options, folder: DataFolder) -> None:
    """Runs a mesh on the data folder until SIGINT, SIGTERM or SIGHUP; a second signal kills it.

    Raises:
        CommandFailed: the mesh can't be started. None of its processes is running then.
    """
    started = time.monotonic()
    if shutil.which("setpriv") is None:
        message = "the program setpriv is missing: install the package util-linux (version 2.33 or later)"
        raise CommandFailed(message)
    opened = folder.create()
    if opened:
        _print(f"other users could read {len(opened)} files and folders of {folder.path}: they are closed now")
    with folder.lock(), Ports() as ports:
        if not ports.hold(options.host, options.port):
            message = f"port {options.port} is in use by another program: stop it, or choose another port with --port"
            raise CommandFailed(message)
        plan = make_plan(options, folder, Secrets.load_or_make(folder), ports)
        supervisor = Supervisor(options, plan, folder)
        try:
            await supervisor.run(started)
        finally:
            folder.state.unlink(missing_ok=True)
            remove_sockets(folder, plan.sockets)


class Supervisor:
    """The processes of one mesh, from their start to their end."""

    def __init__(self, options: Options, plan: Plan, folder: DataFolder) -> None:
        self._options = options
        self._plan = plan
        self._folder = folder
        self._processes: list[SupervisedProcess] = []
        self._runs: dict[SupervisedProcess, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()
        self._in_journal = is_journal(sys.stdout)
        self._began = datetime.now(UTC)

    async def run(self, started: float) -> None:
        """Starts the mesh, waits for a signal and drains. `started` is the monotonic time at which the command began."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._signalled)
        loop.add_signal_handler(signal.SIGTERM, self._signalled)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(signal.SIGHUP, self._signalled)
        chores = [asyncio.create_task(rotate_forever(self._folder.logs)), asyncio.create_task(self._watch_disk())]
        try:
            if await self._unless_stopped(self._start(started)):
                self._say(f"ready in {time.monotonic() - started:.1f} s")
                notify("READY=1")
                _print(welcome(self._plan.url, self._folder, self._logs))
                environment = {**self._plan.environment, "PMP_DATA": str(self._folder.path)}
                for name, command in CHORES.items():
                    chores.append(asyncio.create_task(command.run(environment, self._folder.log(name), self._say)))
                await self._until_stopped()
        finally:
            for chore in chores:
                chore.cancel()
            await self._drain()

    async def _start(self, started: float) -> None:
        """Starts the processes that need no database alongside the migrations, then the others, which end without Redis.

        Raises:
            CommandFailed: Redis, a migration or a process fails.
        """
        redis = [self._supervise(self._plan.redis)] if self._plan.redis is not None else []
        if not redis and not await redis_ready(self._plan.redis_url):
            message = "the Redis of --redis-url (or PMP_REDIS_URL) does not answer: check its address and password"
            raise CommandFailed(message)
        if self._plan.traces is not None:
            self._supervise(self._plan.traces)
        self._supervise(self._plan.gateway)
        self._supervise(self._plan.fork_server)
        await self._migrate()
        await self._until_ready(redis, started)
        for command in self._plan.services:
            self._supervise(command)
        await self._until_ready(self._processes, started)

    @property
    def _logs(self) -> str:
        """Where the logs of processes are."""
        return "the journal" if self._in_journal else str(self._folder.logs)

    def _supervise(self, command: Command) -> SupervisedProcess:
        process = SupervisedProcess(in_journal(command) if self._in_journal else command, self._write_state, self._say)
        self._processes.append(process)
        self._runs[process] = asyncio.create_task(process.run(), name=command.name)
        return process

    async def _until_ready(self, processes: Sequence[SupervisedProcess], started: float) -> None:
        """Waits until each of the processes was ready.

        Raises:
            CommandFailed: one of them dies again and again.
        """
        late = False
        while waiting := [process for process in processes if not process.was_ready.is_set()]:
            for process in waiting:
                if process.deaths >= FATAL_DEATHS:
                    raise CommandFailed(_with_log(f"{process.command.name} does not start", process.command))
            if not late and time.monotonic() - started > READY_SECONDS:
                late = True
                names = ", ".join(process.command.name for process in waiting)
                self._say(f"not ready after {READY_SECONDS:g} s: {names} (logs are in {self._logs}); still waiting")
            await asyncio.sleep(POLL_SECONDS)

    async def _migrate(self) -> None:
        """Migrates every database, in a separate process: the memory that migrations take is freed afterwards.

        Most starts find nothing to migrate, and are spared a second of processor time.
        """
        if await asyncio.to_thread(are_newest, self._options.database_url, self._plan.environment):
            return
        log = self._folder.log("migrate")
        if await run_to_end((sys.executable, "-m", "cli", "migrate"), self._plan.environment, log) != 0:
            raise CommandFailed("\n".join(("the databases could not be migrated:", *last_lines(log))))

    async def _watch_disk(self) -> None:
        """Reports when the disk is nearly full, and when it has enough space again."""
        low = False
        while self._plan.disk is not None:
            if self._plan.disk.is_low() != low:
                low = not low
                self._say(self._plan.disk.describe())
            await asyncio.sleep(DISK_SECONDS)

    async def _drain(self) -> None:
        """Ends the processes in their order."""
        notify("STOPPING=1")
        for kinds in DRAIN_ORDER:
            stage = [process for process in self._processes if process.command.kind in kinds]
            if stage:
                self._say(f"stopping {', '.join(process.command.name for process in stage)}")
            for process in stage:
                process.end()
            await asyncio.gather(*(self._runs[process] for process in stage), return_exceptions=True)
        self._say("stopped")

    async def _until_stopped(self) -> None:
        """Waits for a signal. If the supervision of a process ends before, its error is raised."""
        stop = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({stop, *self._runs.values()}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in done:
            await task

    async def _unless_stopped(self, work: Coroutine[object, object, None]) -> bool:
        """Runs the work to completion, or cancels it on a stop signal and returns False."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            return False
        await task
        return True

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._say("stopping at once")
            for process in self._processes:
                process.kill()
            return
        self._stop.set()

    def _write_state(self) -> None:
        state = MeshState(
            url=self._plan.url,
            port=self._options.port,
            supervisor_pid=os.getpid(),
            started_at=self._began,
            database_url=self._options.database_url,
            redis_url=self._plan.redis_url,
            log_partitions=self._plan.log_partitions,
            disk=self._plan.disk,
            service_addresses=self._plan.service_addresses,
            processes=[process.state for process in self._processes],
        )
        try:
            state.write(self._folder)
        except OSError as error:
            # A full disk must not end the supervision: meanwhile other commands see an older state.
            self._say(f"{self._folder.state} can't be written: {error}")

    def _say(self, text: str) -> None:
        _print(f"{datetime.now().astimezone():%H:%M:%S} {text}")


def _print(text: str) -> None:
    try:
        typer.echo(text)
    except OSError:
        # The terminal, or the program that reads the output, is gone; the mesh goes on.
        return


def _with_log(text: str, command: Command) -> str:
    lines: Sequence[str] = last_lines(command.log)
    return "\n".join((f"{text}; the end of {command.log}:", *lines)) if lines else text
