"""`pmp report dashboard`: the figures of a period, as the gateway returns them."""

from __future__ import annotations

from typing import Final

import httpx
from pydantic import BaseModel, Field, ValidationError
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.calls import call, connect
from cli.credentials import Credentials
from cli.errors import CommandFailed

_DASHBOARD: Final = "/api/v1/analytics/dashboard"
_PATIENCE_SECONDS: Final = 10.0
_RATIO: Final = "ratio"


class Period(BaseModel):
    """Whole days."""

    first: str = Field(alias="from")
    last: str = Field(alias="to")


class Figure(BaseModel):
    """One figure."""

    key: str
    unit: str
    value: float | None = None
    compared: float | None = None


class Dashboard(BaseModel):
    """The figures."""

    period: Period
    compared: Period
    figures: list[Figure]


async def fetch_dashboard(credentials: Credentials, since: str, until: str) -> str:
    """Requests the figures of a period from the gateway, compared with the one before it; returns them as JSON.

    Raises:
        CommandFailed: there is no answer, it refuses the period, or it does not contain figures.
    """
    path = f"{_DASHBOARD}?{httpx.QueryParams({'from': since, 'to': until})}"
    async with connect() as client:
        answer = await call(client, credentials, path, patience=_PATIENCE_SECONDS)
    if answer.response.is_error:
        raise CommandFailed(f"the gateway refused to show the figures: {answer.response.status_code} {answer.response.text.strip()}")
    try:
        Dashboard.model_validate_json(answer.response.content)
    except ValidationError as error:
        raise CommandFailed(f"{credentials.url} answered, but not with figures: is it the gateway of a mesh?") from error
    return answer.response.text


def print_dashboard(console: Console, answer: str) -> None:
    """Prints the figures beside those of the period before."""
    dashboard = Dashboard.model_validate_json(answer)
    table = Table(box=SIMPLE, padding=0, pad_edge=False, show_edge=False)
    table.add_column("figure")
    for period in (dashboard.period, dashboard.compared):
        table.add_column(f"{period.first}\n{period.last}", justify="right")
    table.add_column("unit")
    for figure in dashboard.figures:
        shown = [_shown(value, figure.unit) for value in (figure.value, figure.compared)]
        table.add_row(figure.key, *shown, "%" if figure.unit == _RATIO else figure.unit)
    console.print(table)


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == _RATIO:
        return f"{value * 100:,.1f}"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
