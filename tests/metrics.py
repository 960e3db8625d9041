"""All metrics that the code declares, as Prometheus shows them."""

from __future__ import annotations

from deploy.monitoring.names import bucket, count, total
from kit.telemetry.names import Metric
from tests.roles import ROLES


def measured() -> set[str]:
    """The names of the metrics of all roles, whatever kind of instrument each is."""
    assert ROLES, "they import what declares the metrics of services"
    metrics = [metric for names in Metric.__subclasses__() for metric in names]
    return {name for metric in metrics for name in (metric.shown, total(metric), count(metric), bucket(metric))}
