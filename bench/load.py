"""wrk as the load: requests as fast as the answers come, over a fixed number of connections."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bench.events import template
from bench.servers import BenchFailed, environment, program
from cli.credentials import Credentials

SCRIPT = Path(__file__).with_name("requests.lua")
"""Generates the requests and prints the result."""


@dataclass(frozen=True, slots=True)
class Load:
    """A load."""

    events: int
    """Events in each request."""
    connections: int
    """Concurrent requests."""
    seconds: int
    """Duration."""


class Answered(BaseModel):
    """The result, as reported by the script of wrk."""

    model_config = ConfigDict(frozen=True)

    requests: int
    """Answers that came in time."""
    duration_us: int
    """Duration of the load."""
    failed: int
    """Answers other than 200, and requests without one."""
    p50_us: int
    """Median latency."""
    p99_us: int
    """99th percentile of the latency."""
    load_cpu_seconds: float = 0.0
    """Processor time of wrk itself."""

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.requests * 1e6 / self.duration_us


async def send(target: Credentials, load: Load, run: str) -> Answered:
    """Sends events whose ids begin with `run`.

    Raises:
        BenchFailed: wrk is missing, or an answer was not 200.
    """
    variables = {
        "BENCH_EVENT": template(),
        "BENCH_BATCH": str(load.events),
        "BENCH_RUN": run,
        "BENCH_API_KEY": target.api_key,
        "BENCH_TOKEN": target.token,
    }
    output, cpu = await run_load(
        (
            program("wrk", "Debian's package wrk"),
            "--threads=1",
            f"--connections={load.connections}",
            f"--duration={load.seconds}s",
            "--timeout=10s",
            f"--script={SCRIPT}",
            target.url,
        ),
        variables,
    )
    answered = Answered.model_validate_json(output.splitlines()[-1]).model_copy(update={"load_cpu_seconds": cpu})
    if answered.failed or not answered.requests:
        raise BenchFailed(f"{answered.failed} of {answered.requests} requests failed: {output}")
    return answered


async def run_load(argv: Sequence[str], variables: Mapping[str, str]) -> tuple[str, float]:
    """Runs a program that makes a load; returns its output, whose last line is its result, and its processor seconds.

    Args:
        argv: its path and arguments.
        variables: what its script reads from the environment.

    Raises:
        BenchFailed: it failed.
    """
    before = _ended_children_seconds()
    process = await asyncio.create_subprocess_exec(
        *argv, env={**environment(), **variables}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    written, _ = await process.communicate()
    output = written.decode(errors="replace").strip()
    if process.returncode != 0:
        raise BenchFailed(f"{Path(argv[0]).name} failed: {output}")
    return output, _ended_children_seconds() - before


def _ended_children_seconds() -> float:
    """Processor time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
