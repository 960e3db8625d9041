"""What a number of events takes: processor time, replicas, memory, disk and network, computed from what was measured.

`python -m bench.capacity --events-per-month 1e9 --peak 5` prints the tables of docs/capacity.md for other figures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, log10
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from bench.events import template
from bench.report import RESULTS
from kit.settings import Settings

_DEPLOY: Final = Path(__file__).resolve().parents[1] / "deploy"
_MONTH: Final = timedelta(days=30)
_WHOLE: Final = RESULTS / "2026-11-29-7acc9b3.json"
"""A run of the whole mesh on MariaDB: single events, all applied while they arrive."""
_WORKER: Final = RESULTS / "2026-11-29-5d74424-2.json"
"""A run of the intake, and of the worker alone."""
_ANALYTICS: Final = RESULTS / "2026-11-29-3ae1ee1.json"
"""A run of analytics alone on MariaDB, a million events."""
_SIZES: Final = RESULTS / "2026-11-30-sizes.json"
"""What page views leave in MariaDB and in Redis, indexes included."""
_READERS: Final = 5
"""Services that read the topic of events."""
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")
_WITH_A_TENTH: Final = 10
"""Sizes below it are shown with a tenth."""
_HEADERS_BYTES: Final = 1_000
"""Of a call and its answer: key, token, and what the gateway adds."""
_WAITING_SHARE: Final = 0.5
"""Of PMP_LOG_MAX_BYTES that waiting events may fill at least: processed ones keep the other half."""
_VOLUME_BYTES: Final = 64 * 2**40
"""Largest volume of an instance of RDS."""
_VOLUME_RATE: Final = 1e9
"""Bytes a second that a volume of gp3 writes at most."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an event costs."""

    cpu_us: Mapping[str, float]
    """Processor time by part, in microseconds."""
    written_bytes: float
    """Written to disks by all processes, log and databases included."""
    stored_bytes: Mapping[str, float]
    """What stays in MySQL, by database."""
    log_bytes: float
    """Memory of Redis while it is in the raw log."""
    topic_bytes: float
    """Memory of Redis while what follows from it is in the topics."""

    @property
    def sent_bytes(self) -> float:
        """Sent over the network: by the caller and the gateway, to the log and its worker, to MySQL, to the topics and their readers."""
        return (
            2 * (len(template()) + _HEADERS_BYTES)
            + 2 * self.log_bytes
            + sum(self.stored_bytes.values())
            + (1 + _READERS) * self.topic_bytes
        )


@dataclass(frozen=True, slots=True)
class Deployed:
    """How the overlay production deploys the mesh."""

    utilisation: float
    """Of a core that one replica uses before another is added."""
    least: int
    """Replicas of each part."""
    most: int
    partitions: int
    """Replicas of a worker that have something to do."""
    log_bytes: int
    """Memory of Redis above which intake stops."""
    topic_bytes: int
    """Memory of one partition of a topic, above which its oldest entries are trimmed."""
    retention: timedelta
    """How long events are kept."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much arrives."""

    events_per_month: float
    peak: float
    """The busiest minutes, as a multiple of the mean."""

    @property
    def mean(self) -> float:
        """Events per second."""
        return self.events_per_month / _MONTH.total_seconds()

    @property
    def highest(self) -> float:
        """Events per second in the busiest minutes."""
        return self.mean * self.peak

    def monthly(self, highest: float) -> float:
        """Events of a month that has so many per second in its busiest minutes."""
        return highest / self.peak * _MONTH.total_seconds()


def measured() -> Measured:
    """What the kept results say."""
    whole = _read(_WHOLE)["mesh"]["mariadb"]["sustained"][0]["cost"]
    analytics = _read(_ANALYTICS)["analytics"]["mariadb"]["projection"]
    sizes = _read(_SIZES)
    cpu: Mapping[str, float] = whole["cpu_us_per_event"]
    return Measured(
        cpu_us={
            **{part: cpu[part] for part in ("gateway", "ingestion", "redis", "mariadb")},
            "worker": _read(_WORKER)["intake"]["into_sqlite"]["cpu_us_per_event"]["ingestion-worker"],
            "analytics": analytics["cpu_us_per_event"]["analytics"],
        },
        written_bytes=whole["written_bytes_per_event"],
        stored_bytes={**sizes["stored_bytes_per_event"], "analytics": analytics["bytes_per_event"]},
        log_bytes=sizes["log_bytes_per_event"],
        topic_bytes=sizes["topic_bytes_per_event"],
    )


def deployed() -> Deployed:
    """What the manifests and the defaults of the settings say."""
    limits = yaml.safe_load((_DEPLOY / "service" / "hpa.yaml").read_text())["spec"]
    scaling = (_DEPLOY / "components" / "scaling" / "kustomization.yaml").read_text()
    settings = (_DEPLOY / "overlays" / "production" / "settings.env").read_text()
    (millicores,), (log_bytes,) = re.findall(r"averageValue: (\d+)m", scaling), re.findall(r"PMP_LOG_MAX_BYTES=(\d+)", settings)
    return Deployed(
        utilisation=int(millicores) / 1000,
        least=limits["minReplicas"],
        most=limits["maxReplicas"],
        partitions=Settings.model_fields["log_partitions"].default,
        log_bytes=int(log_bytes),
        topic_bytes=Settings.model_fields["topic_max_bytes"].default,
        retention=Settings.model_fields["site_retention"].default,
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def replicas(cost: Measured, mesh: Deployed, load: Load) -> Sequence[Sequence[str]]:
    """For each part: microseconds of an event, events a second of one replica, and the replicas that the peak takes."""

    def row(part: str) -> Sequence[str]:
        carried = _carried(cost, mesh, part)
        return part, f"{cost.cpu_us[part]:.0f}", f"{carried:,.0f}", str(max(mesh.least, ceil(load.highest / carried)))

    return [row(part) for part in ("gateway", "ingestion", "worker", "analytics")]


def stores(cost: Measured, mesh: Deployed, load: Load) -> Sequence[Sequence[str]]:
    """What Redis, MySQL and the network have to hold and carry."""
    stored = sum(cost.stored_bytes.values())
    months = mesh.retention / _MONTH
    free = _WAITING_SHARE * mesh.log_bytes / cost.log_bytes

    rates = load.mean, load.highest

    def both(amount: float, unit: Callable[[float], str]) -> Sequence[str]:
        return [unit(amount * rate) for rate in rates]

    def minutes(amount: float) -> Sequence[str]:
        return [f"{amount / rate / 60:.0f} minutes" for rate in rates]

    return [
        ("Redis, processor", *both(cost.cpu_us["redis"] / 1e6, _cores)),
        ("Redis: the topic of events keeps the last", *minutes(mesh.partitions * mesh.topic_bytes / cost.topic_bytes)),
        ("Redis: full when nothing is stored for", *minutes(free)),
        ("MySQL, processor", *both(cost.cpu_us["mariadb"] / 1e6, _cores)),
        ("written to disks, a second", *both(cost.written_bytes, _size)),
        ("network, all ways together, a second", *both(cost.sent_bytes, _size)),
        (f"MySQL: a disk of {_size(_VOLUME_BYTES)} is full after", f"{_VOLUME_BYTES / stored / load.events_per_month:.0f} months", ""),
        ("MySQL, disk a month", _size(stored * load.events_per_month), ""),
        (f"MySQL, disk for {months:.0f} months", _size(stored * load.events_per_month * months), ""),
    ]


def disks(cost: Measured) -> Sequence[Sequence[str]]:
    """Disk of a million events by database."""
    return [(database, _size(stored * 1e6)) for database, stored in sorted(cost.stored_bytes.items(), key=lambda each: -each[1])]


def limits(cost: Measured, mesh: Deployed, load: Load) -> Sequence[Sequence[str]]:
    """From how many events a month on something is full, and what then helps; what is full first comes first."""
    stored = sum(cost.stored_bytes.values())
    months = mesh.retention / _MONTH
    partitions = "more partitions, set before the first start"
    found = [
        (
            _VOLUME_BYTES / stored / months,
            f"MySQL: a disk of {_size(_VOLUME_BYTES)} after {months:.0f} months",
            "shorter retention, then TiDB or Vitess",
        ),
        (
            load.monthly(_VOLUME_RATE / cost.written_bytes),
            f"MySQL: a disk that writes {_size(_VOLUME_RATE)}/s",
            "a server for each database, then TiDB or Vitess",
        ),
        (load.monthly(mesh.utilisation * 1e6 / cost.cpu_us["redis"]), "Redis: its one core", "a Redis Cluster"),
        (
            load.monthly(mesh.most * _carried(cost, mesh, "gateway")),
            f"gateway: {mesh.most} replicas",
            "more replicas, or `PMP_GATEWAY_CONCURRENCY`",
        ),
        (load.monthly(mesh.most * _carried(cost, mesh, "ingestion")), f"ingestion: {mesh.most} replicas", "more replicas"),
        (load.monthly(mesh.partitions * _carried(cost, mesh, "worker")), f"worker: {mesh.partitions} partitions", partitions),
        (load.monthly(mesh.partitions * _carried(cost, mesh, "analytics")), f"analytics: {mesh.partitions} partitions", partitions),
    ]
    return [(f"{events / 1e9:.1f} · 10⁹", what, then) for events, what, then in sorted(found)]


def _carried(cost: Measured, mesh: Deployed, part: str) -> float:
    """Events a second that one replica carries."""
    return mesh.utilisation * 1e6 / cost.cpu_us[part]


def _cores(amount: float) -> str:
    return f"{amount:.2f} cores"


def _size(amount: float) -> str:
    power = min(int(log10(max(amount, 1)) // 3), len(_UNITS) - 1)
    scaled = amount / 1000**power
    return f"{scaled:,.{1 if scaled < _WITH_A_TENTH else 0}f} {_UNITS[power]}"


def tables(load: Load) -> str:
    """All tables, as Markdown."""
    cost, mesh = measured(), deployed()
    parts = [
        _table(("part", "us of an event", "events/s of a replica", f"replicas at {load.highest:,.0f}/s"), replicas(cost, mesh, load)),
        _table(("", f"mean, {load.mean:,.0f}/s", f"peak, {load.highest:,.0f}/s"), stores(cost, mesh, load)),
        _table(("database", "disk of a million events"), disks(cost)),
        _table(("events a month", "what is full", "then"), limits(cost, mesh, load)),
    ]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def main(
    *,
    events_per_month: Annotated[float, typer.Option(help="Events of a month.")] = 1e9,
    peak: Annotated[float, typer.Option(min=1, help="The busiest minutes, as a multiple of the mean.")] = 5.0,
) -> None:
    """Print what a number of events takes."""
    print(tables(Load(events_per_month, peak)))


if __name__ == "__main__":
    typer.run(main)
