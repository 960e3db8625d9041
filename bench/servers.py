"""Private servers for one measurement: the mesh's own processes, planned as `pmp up` plans them, and a MariaDB."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import aiomysql
import psutil
from pmp_mesh_client.tokens import Scope, mint

from cli.books import Books, fetch_books
from cli.credentials import Credentials, Secrets
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.layout import Processes
from cli.plan import Options, Plan, make_plan
from cli.ports import LOOPBACK, Ports
from cli.processes import Command, last_lines, spawn
from cli.state import running_mesh
from kit.migrate import migrate
from kit.settings import KEYS_DATABASE

START_SECONDS = 60.0
"""Timeout for the start of a server."""
MESH_SECONDS = 120.0
"""Timeout for the start of a whole mesh."""
LIMITS = {"PMP_RATE_SITE_PER_SECOND": "1000000000", "PMP_LOG_MAX_BYTES": str(2**30)}
"""Limits are active and never reached: requests per second of the shop's servers, and bytes of a log without a reader."""

PORTS: Final = Ports()
"""Reserves each port until the bench ends, since its server may start long after the others."""

MARIADB = "Debian's package mariadb-server"
"""The Debian package of its programs."""


class BenchFailed(CommandFailed):
    """A server did not start, or a figure is invalid: something was lost, refused or miscounted."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh whose processes the bench starts one by one."""

    plan: Plan
    """Its processes."""
    database_url: str
    """URL of ingestion's database."""
    secrets: Secrets
    """Its secrets."""

    def credentials(self, scope: Scope) -> Credentials:
        """Credentials for the gateway, valid for an hour."""
        return Credentials(self.plan.url, self.secrets.api_keys[0], mint(self.secrets.jwt_secrets[0], scope, "42", int(time.time())))

    async def books(self) -> Books:
        """The books, as the gateway returns them."""
        return await fetch_books(self.credentials(Scope.READ))

    def gateway(self, *services: str) -> Command:
        """The gateway for these services only: the addresses of the others point to one of them, so that it becomes ready."""
        addresses = self.plan.service_addresses
        reached = {name: addresses[name if name in services else services[0]] for name in addresses}
        environment = {**self.plan.gateway.environment, "PMP_SERVICE_ADDRESSES": json.dumps(reached)}
        return replace(self.plan.gateway, environment=environment)

    def command(self, name: str) -> Command:
        """The process with this name."""
        redis = (self.plan.redis,) if self.plan.redis else ()
        return next(command for command in (*redis, *self.plan.services, self.plan.gateway) if command.name == name)


async def plan_mesh(folder: Path, database_url: str | None = None) -> Mesh:
    """A mesh on an empty folder and migrated databases of events and keys, by default on SQLite in the folder."""
    data = DataFolder(folder)
    data.create()
    secrets = Secrets.load_or_make(data)
    url = database_url or data.database_url()
    [port] = PORTS.take(1)
    plan = make_plan(Options(LOOPBACK, port, url, None, Processes.EACH), data, secrets, PORTS, {**environment(), **LIMITS})
    own = url.replace("{service}", "ingestion")
    for name in ("ingestion", KEYS_DATABASE):
        await migrate(name, url.replace("{service}", name))
    return Mesh(plan, own, secrets)


def environment() -> dict[str, str]:
    """The environment without settings of the mesh: every run measures the defaults."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PMP_", "OTEL_"))}


@asynccontextmanager
async def running(*commands: Command) -> AsyncGenerator[dict[str, psutil.Process]]:
    """Starts processes together and ends them in reverse order; yields them by name once all are ready."""
    async with AsyncExitStack() as stack:
        started = {command.name: await stack.enter_async_context(_process(command)) for command in commands}
        await asyncio.gather(*(_ready(command, started[command.name]) for command in commands))
        yield {name: psutil.Process(process.pid) for name, process in started.items()}


@asynccontextmanager
async def _process(command: Command) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await spawn(command.argv, command.environment, command.log)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), command.grace_seconds)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _ready(command: Command, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not await command.ready():
        if process.returncode is not None or time.monotonic() > deadline:
            raise BenchFailed("\n".join((f"{command.name} does not start:", *last_lines(command.log))))
        await asyncio.sleep(0.05)


@asynccontextmanager
async def pmp_up(data: DataFolder, options: tuple[str, ...] = ()) -> AsyncGenerator[tuple[psutil.Process, float]]:
    """Runs a whole mesh on a folder; yields its supervisor and the seconds until it was ready.

    Raises:
        BenchFailed: it does not start.
    """
    data.create()
    log = data.path / "pmp-up.log"
    [port] = PORTS.take(1)
    started = time.monotonic()
    argv = (sys.executable, "-m", "cli", "up", "--port", str(port), "--data", str(data.path), *options)
    process = await spawn(argv, {**environment(), **LIMITS}, log)
    try:
        while not _mesh_ready(data):
            if process.returncode is not None or time.monotonic() - started > MESH_SECONDS:
                raise BenchFailed("\n".join(("the mesh does not start:", *last_lines(log))))
            await asyncio.sleep(0.05)
        yield psutil.Process(process.pid), time.monotonic() - started
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _mesh_ready(data: DataFolder) -> bool:
    try:
        processes = running_mesh(data).processes
    except CommandFailed:
        return False
    return any(process.kind == "gateway" for process in processes) and all(process.state == "ready" for process in processes)


@asynccontextmanager
async def running_mariadb(folder: Path, *options: str) -> AsyncGenerator[tuple[str, psutil.Process]]:
    """A MariaDB that syncs at each commit: the URL of its databases, with `{service}` for their name, and its process.

    Args:
        folder: where its data lies; what an earlier one has left there is kept.
        options: additional options; other settings are as shipped.

    Raises:
        BenchFailed: MariaDB is not installed, or does not start.
    """
    server, install = program("mariadbd", MARIADB), program("mariadb-install-db", MARIADB)
    data, log = folder / "data", folder / "mariadb.log"
    common = ("--no-defaults", "--user=root", f"--datadir={data}")
    if not data.exists():
        made = await spawn((install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"), environment(), log)
        if await made.wait() != 0:
            raise BenchFailed("\n".join(("the database can't be made:", *last_lines(log))))
    [port] = PORTS.take(1)
    command = Command(
        name="mariadb",
        kind="service",
        argv=(
            server,
            *common,
            f"--socket={folder / 's'}",
            f"--port={port}",
            f"--bind-address={LOOPBACK}",
            "--innodb-flush-log-at-trx-commit=1",
            *options,
        ),
        environment=environment(),
        log=log,
        address=f"{LOOPBACK}:{port}",
        ready=partial(_mysql_ready, port),
    )
    async with running(command) as processes:
        yield f"mysql+aiomysql://root@{LOOPBACK}:{port}/pmp_{{service}}", processes["mariadb"]


async def _mysql_ready(port: int) -> bool:
    try:
        connection = await cast("Any", aiomysql).connect(host=LOOPBACK, port=port, user="root")
    except aiomysql.OperationalError:
        return False
    connection.close()
    return True


def program(name: str, package: str) -> str:
    """Path of a program of the virtual environment, or of the system.

    Raises:
        BenchFailed: it is not installed.
    """
    folders = (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin")
    path = shutil.which(name, path=os.pathsep.join(folders))
    if path is None:
        raise BenchFailed(f"{name} is missing: install {package}")
    return path


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time used by a process."""
    times = process.cpu_times()
    return times.user + times.system


def memory_mib(process: psutil.Process) -> float:
    """Memory of a process (PSS), in MiB: what it shares with others counts in parts."""
    return process.memory_full_info().pss / 2**20
