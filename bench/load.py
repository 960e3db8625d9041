"""wrk as the load: requests as fast as the answers come, over a fixed number of connections."""

from __future__ import annotations

import asyncio
import resource
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
    before = ended_children_seconds()
    process = await asyncio.create_subprocess_exec(
        program("wrk", "Debian's package wrk"),
        "--threads=1",
        f"--connections={load.connections}",
        f"--duration={load.seconds}s",
        "--timeout=10s",
        f"--script={SCRIPT}",
        target.url,
        env={**environment(), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise BenchFailed(f"wrk failed: {output.decode(errors='replace').strip()}")
    answered = Answered.model_validate_json(output.splitlines()[-1]).model_copy(
        update={"load_cpu_seconds": ended_children_seconds() - before}
    )
    if answered.failed or not answered.requests:
        raise BenchFailed(f"{answered.failed} of {answered.requests} requests failed: {output.decode(errors='replace').strip()}")
    return answered


def ended_children_seconds() -> float:
    """Processor time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
