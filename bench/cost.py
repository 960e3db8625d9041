"""What processes use: processor time, and bytes written to disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from bench.servers import cpu_seconds


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a load, from its start until everything was applied, less the mesh's usage at rest."""

    cpu_us_per_event: dict[str, float]
    """Processor time by process, in microseconds."""
    written_bytes_per_event: float
    """Bytes written to disk, by all processes."""


class Usage:
    """What processes use from now on."""

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._processes = processes
        self._started = time.monotonic()
        self._cpu_seconds = {name: cpu_seconds(process) for name, process in processes.items()}
        self._written_bytes = self._written()

    def shares(self) -> dict[str, float]:
        """Returns the share of one core that each process has used."""
        taken = time.monotonic() - self._started
        return {name: (cpu_seconds(process) - self._cpu_seconds[name]) / taken for name, process in self._processes.items()}

    def cost(self, events: int, rest: Mapping[str, float]) -> Cost:
        """Returns the cost of so many events, less what each process uses at rest, as `shares`."""
        taken = time.monotonic() - self._started
        cpu = {name: max(0.0, share - rest[name]) * taken * 1e6 / events for name, share in self.shares().items()}
        return Cost(cpu, (self._written() - self._written_bytes) / events)

    def _written(self) -> int:
        return sum(process.io_counters().write_bytes for process in self._processes.values())
