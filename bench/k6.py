"""k6 as the load: events at the rate of a scenario, whether or not the answers keep up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bench.events import template
from bench.load import run_load
from bench.servers import BenchFailed, program
from cli.credentials import Credentials

SCRIPT = Path(__file__).with_name("scenarios.js")
"""Sends the events and prints the result."""
_MOST_P95_MS = 2000.0
_MOST_FAILED = 0.01


@dataclass(frozen=True, slots=True)
class Scenario:
    """Load for k6."""

    name: str
    """Name of the scenario."""
    seconds: int
    """Duration."""
    per_second: int = 0
    """Constant arrival rate of single events; 0 ramps visitors up to 200 and down again, each viewing a page per second."""


class Answers(BaseModel):
    """The responses to a scenario."""

    model_config = ConfigDict(frozen=True)

    requests: int
    """Responses."""
    failed: int
    """Responses other than 200."""
    not_sent: int
    """Events that k6 left out because 200 responses were outstanding."""
    p50_ms: float
    """Median of the response times."""
    p95_ms: float
    """95th percentile."""
    p99_ms: float
    """99th percentile."""
    max_ms: float
    """Slowest response."""
    seconds: float = 0.0
    """Duration, k6's own start included."""
    load_cpu_percent: float = 0.0
    """Share of one core that k6 itself used."""

    @property
    def passes(self) -> bool:
        """True if the thresholds hold: p95 below 2 s, failures below 1 %."""
        return self.p95_ms < _MOST_P95_MS and self.failed < _MOST_FAILED * self.requests


async def send(target: Credentials, scenario: Scenario, run: str) -> Answers:
    """Sends events whose ids begin with `run`.

    Raises:
        BenchFailed: k6 is missing or failed, or there was no response.
    """
    variables = {
        "BENCH_EVENT": template(),
        "BENCH_URL": target.url,
        "BENCH_API_KEY": target.api_key,
        "BENCH_TOKEN": target.token,
        "BENCH_RUN": run,
        "BENCH_RATE": str(scenario.per_second),
        "BENCH_SECONDS": str(scenario.seconds),
    }
    started = time.monotonic()
    argv = (program("k6", "the Python package k6"), "run", "--quiet", "--no-usage-report", str(SCRIPT))
    output, cpu = await run_load(argv, variables)
    seconds = time.monotonic() - started
    answers = Answers.model_validate_json(output.splitlines()[-1]).model_copy(
        update={"seconds": seconds, "load_cpu_percent": 100 * cpu / seconds}
    )
    if not answers.requests:
        raise BenchFailed(f"{scenario.name}: no response")
    return answers
