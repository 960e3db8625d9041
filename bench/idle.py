"""What `pmp up` takes when nothing happens, and how fast it answers when events come steadily."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from bench.events import template
from bench.load import ended_children_seconds
from bench.servers import LIMITS, BenchFailed, environment, program
from cli.books import fetch_books
from cli.credentials import Credentials, Scope, credentials
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.ports import free_ports
from cli.processes import last_lines, spawn
from cli.state import running_mesh

SCRIPT = Path(__file__).with_name("steady.js")
"""Sends the events and prints the result."""
START_SECONDS = 120.0
"""Longest wait for the mesh."""
SETTLE_SECONDS = 3.0
"""Between the mesh being ready and its memory being looked at."""
WARM_UP_SECONDS = 2
"""The same load before the one that counts."""
STORE_SECONDS = 60.0
"""Longest wait for the worker."""


class Steady(BaseModel):
    """How the gateway answered single events that came at a constant rate, as k6 tells it."""

    model_config = ConfigDict(frozen=True)

    requests: int
    """Answers."""
    failed: int
    """Answers other than 200."""
    not_sent: int
    """Events that had to be left out because too many answers were outstanding."""
    p50_ms: float
    """Half of the answers took at most so long."""
    p99_ms: float
    """All but one in a hundred took at most so long."""
    max_ms: float
    """The slowest answer."""
    per_second: int = 0
    """The rate that was asked for."""
    load_cpu_percent: float = 0.0
    """Share of one core that k6 itself took: what the mesh could not use."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A whole mesh as `pmp up` runs it."""

    ready_seconds: float
    """From the command to all processes being ready, on an empty folder."""
    pss_mib: dict[str, float]
    """Memory of each process while idle, shared pages divided among those who share them."""
    cpu_percent: dict[str, float]
    """Share of one core each process takes while idle."""
    steady: Steady
    """Its answers under a constant load, with the worker at work."""
    steady_cpu_percent: dict[str, float]
    """Share of one core each process takes meanwhile."""


async def measure(folder: Path, per_second: int, seconds: int) -> Idle:
    """Starts a mesh on an empty folder, looks at it idle, loads it, and checks that all was stored.

    Raises:
        BenchFailed: it did not start, an answer was not 200, or the books don't hold exactly what was answered.
    """
    data = DataFolder(folder)
    async with _pmp_up(data) as (supervisor, ready_seconds):
        processes = {"pmp up": supervisor, **{each.name: psutil.Process(each.pid) for each in running_mesh(data).processes if each.pid}}
        for process in processes.values():
            process.cpu_percent()
        await asyncio.sleep(SETTLE_SECONDS)
        cpu = {name: process.cpu_percent() for name, process in processes.items()}
        pss = {name: process.memory_full_info().pss / 2**20 for name, process in processes.items()}
        target = credentials(data, Scope.SITE, "42", {})
        warm = await _send(target, "warm-", per_second, WARM_UP_SECONDS)
        for process in processes.values():
            process.cpu_percent()
        steady = await _send(target, "steady-", per_second, seconds)
        steady_cpu = {name: process.cpu_percent() for name, process in processes.items()}
        await _all_stored(credentials(data, Scope.READ, environ={}), warm.requests + steady.requests)
    return Idle(ready_seconds, pss, cpu, steady, steady_cpu)


@asynccontextmanager
async def _pmp_up(data: DataFolder) -> AsyncGenerator[tuple[psutil.Process, float]]:
    """A running mesh: its supervisor, and how long it took to be ready."""
    log = data.path / "pmp-up.log"
    [port] = free_ports(1)
    started = time.monotonic()
    process = await spawn(
        (sys.executable, "-m", "cli", "up", "--port", str(port), "--data", str(data.path)), {**environment(), **LIMITS}, log
    )
    try:
        while not _is_ready(data):
            if process.returncode is not None or time.monotonic() - started > START_SECONDS:
                raise BenchFailed("\n".join(("the mesh does not start:", *last_lines(log))))
            await asyncio.sleep(0.05)
        yield psutil.Process(process.pid), time.monotonic() - started
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _is_ready(data: DataFolder) -> bool:
    try:
        processes = running_mesh(data).processes
    except CommandFailed:
        return False
    return any(process.kind == "gateway" for process in processes) and all(process.state == "ready" for process in processes)


async def _send(target: Credentials, run: str, per_second: int, seconds: int) -> Steady:
    variables = {
        "BENCH_EVENT": template(),
        "BENCH_URL": target.url,
        "BENCH_API_KEY": target.api_key,
        "BENCH_TOKEN": target.token,
        "BENCH_RUN": run,
        "BENCH_RATE": str(per_second),
        "BENCH_SECONDS": str(seconds),
    }
    before, started = ended_children_seconds(), time.monotonic()
    process = await asyncio.create_subprocess_exec(
        program("k6", "the Python package k6"),
        "run",
        "--quiet",
        "--no-usage-report",
        str(SCRIPT),
        env={**environment(), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise BenchFailed(f"k6 failed: {output.decode(errors='replace').strip()}")
    share = 100 * (ended_children_seconds() - before) / (time.monotonic() - started)
    steady = Steady.model_validate_json(output.splitlines()[-1]).model_copy(update={"per_second": per_second, "load_cpu_percent": share})
    if steady.failed or not steady.requests:
        raise BenchFailed(f"{steady.failed} of {steady.requests} requests failed")
    return steady


async def _all_stored(reader: Credentials, events: int) -> None:
    deadline = time.monotonic() + STORE_SECONDS
    while True:
        books = await fetch_books(reader)
        if books.balanced and books.total.received == books.total.stored == events:
            return
        if time.monotonic() > deadline:
            raise BenchFailed(f"{events} events were answered, and the books say: {books.total}")
        await asyncio.sleep(0.2)
