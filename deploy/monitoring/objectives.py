"""Service level objectives, as recording rules: which calls count, which of them were bad, and how fast that burns the error budget.

Which rpc counts towards what follows from its access and HTTP method (`gateway.contracts.Rpc.objective`). The windows are those of
https://sre.google/workbook/alerting-on-slos/, section 6; the alerts on them are in `alerts.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from deploy.monitoring.names import CLASS, METHOD, ROUTE, ROUTE_ANSWERS, ROUTE_MILLISECONDS, STATUS, count, one_of
from gateway.contracts import Rpc
from kit.boundary.outcome import FAULTS
from kit.telemetry.names import MetricName

WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")
BAD: Final = FAULTS | {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
"""Statuses by which a service failed its caller: faults, and refusals because it is overloaded or too slow."""


@dataclass(frozen=True)
class Objective:
    """What is promised of calls of one kind, over 30 days."""

    calls: str
    """`intake` or `reads`."""
    available: float
    """Share of the calls that are answered, whatever the answer says of the caller's request."""
    fast: float
    """Share of the calls that are answered within `milliseconds`."""
    milliseconds: int
    """One of the boundaries of Envoy's histograms."""


OBJECTIVES: Final = (
    Objective("intake", available=0.999, fast=0.99, milliseconds=1000),
    Objective("reads", available=0.995, fast=0.99, milliseconds=2500),
)


def recording_rules(methods: Sequence[Rpc]) -> dict[str, Any]:
    """The rules, as a file for `rule_files` contains them.

    Args:
        methods: the rpcs that the gateway routes.
    """
    rules = [rule for each in OBJECTIVES for rule in _objective(each, methods)]
    rules += [_burn(window) for window in WINDOWS]
    return {"groups": [{"name": "pmp-mesh-objectives", "rules": rules}]}


def _objective(objective: Objective, methods: Sequence[Rpc]) -> Iterator[dict[str, Any]]:
    own = f'{ROUTE}="{objective.calls}"'
    names = one_of(f"{rpc.service}/{rpc.name}" for rpc in methods if rpc.objective == objective.calls)
    statuses = one_of(status.name for status in BAD)
    failed = f'sum(rate({ROUTE_ANSWERS}{{{own}, {CLASS}="5"}}[5m]))'
    refused = f'sum(rate({count(MetricName.CALL_DURATION)}{{{METHOD}=~"{names}", {STATUS}=~"{statuses}"}}[5m]))'
    answers = f"sum(rate({ROUTE_ANSWERS}{{{own}}}[5m]))"
    yield from _recorded(
        f"{objective.calls} availability", f"({failed} or vector(0)) + ({refused} or vector(0))", answers, objective.available
    )
    timed = f"sum(rate({ROUTE_MILLISECONDS}_count{{{own}}}[5m]))"
    in_time = f'sum(rate({ROUTE_MILLISECONDS}_bucket{{{own}, le="{objective.milliseconds}"}}[5m]))'
    yield from _recorded(f"{objective.calls} latency", f"{timed} - {in_time}", timed, objective.fast)


def _recorded(name: str, bad: str, calls: str, promised: float) -> Iterator[dict[str, Any]]:
    yield {"record": "pmp:objective_bad:rate5m", "labels": {"objective": name}, "expr": bad}
    yield {"record": "pmp:objective_calls:rate5m", "labels": {"objective": name}, "expr": calls}
    yield {"record": "pmp:objective_budget:ratio", "labels": {"objective": name}, "expr": f"vector({round(1 - promised, 6)})"}


def _burn(window: str) -> dict[str, Any]:
    """How many times faster than it may an objective's error budget is used up, on average over a window."""
    bad, calls = (f"avg_over_time(pmp:objective_{what}:rate5m[{window}])" for what in ("bad", "calls"))
    return {"record": f"pmp:objective_burn:ratio{window}", "expr": f"{bad} / {calls} / pmp:objective_budget:ratio"}
