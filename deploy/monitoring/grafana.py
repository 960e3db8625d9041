"""The JSON of a Grafana dashboard, from what it shows (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
_HEIGHT: Final = 8
_COLUMNS: Final = 3


@dataclass(frozen=True)
class Query:
    """A line, or some."""

    expr: str
    """In PromQL."""
    legend: str = ""
    """Name of a line, with labels as `{{label}}`."""


@dataclass(frozen=True)
class Panel:
    """One graph."""

    title: str
    unit: str
    """Of Grafana's units: `s`, `bytes`, `percentunit`, `short` or `reqps`."""
    queries: Sequence[Query]
    description: str = ""
    """What an operator reads from it."""


@dataclass(frozen=True)
class Row:
    """Graphs on one subject."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A label's value that its reader chooses."""

    name: str
    """Of the variable, and of the label."""
    of: str
    """The metric whose label it is."""


@dataclass(frozen=True)
class Dashboard:
    """One page of Grafana."""

    uid: str
    title: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = field(default_factory=tuple[Variable, ...])


def json_model(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana stores it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["pmp-mesh"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [_source(), *map(_variable, dashboard.variables)]},
        "panels": _panels(dashboard.rows),
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.of}, {variable.name})"
    return {
        "name": variable.name,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "includeAll": False,
        "multi": False,
    }


def _panels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top, width = 0, _WIDTH // _COLUMNS
    for row in rows:
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []})
        top += 1
        for index, panel in enumerate(row.panels):
            across, down = index % _COLUMNS, index // _COLUMNS
            place = {"h": _HEIGHT, "w": width, "x": across * width, "y": top + down * _HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
        top += -(-len(row.panels) // _COLUMNS) * _HEIGHT
    return panels


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend, "range": True}
            for index, query in enumerate(panel.queries)
        ],
    }
