"""The last part of `pmp demo`: the dashboard's figures of the clickstream's period, compared with the clickstream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console

from cli.clickstream import PRICE, Row, count_sessions, count_types, purchases, registrations, timestamp
from cli.credentials import Credentials
from cli.errors import CommandFailed
from cli.report import Dashboard, fetch_dashboard, print_dashboard
from cli.sending import PATIENCE_SECONDS

_POLL_SECONDS: Final = 0.5


def expected_figures(rows: Sequence[Row]) -> Mapping[str, float]:
    """The figures of the rows, by the dashboard's keys."""
    orders = {order["order_id"]: order["user_id"] for order in purchases(rows)}
    return {
        "visitors": len({row["user_id"] for row in rows}),
        "sessions": count_sessions(rows),
        "page_views": count_types(rows)["page_view"],
        "registrations": len(registrations(rows)),
        "orders": len(orders),
        "net_revenue": len(orders) * PRICE,
        "customers": len(set(orders.values())),
    }


async def show_dashboard(rows: Sequence[Row], reader: Credentials, console: Console, *, whole: bool) -> None:
    """Prints the dashboard's figures of the rows' period.

    Args:
        rows: the clickstream.
        reader: credentials for reports.
        console: console to print to.
        whole: all rows were sent, so that the mesh's figures must match them.

    Raises:
        CommandFailed: a call was refused, or the figures do not match the rows.
    """
    times = sorted(datetime.fromisoformat(timestamp(row)) for row in rows)
    # A day more on either side: the days of the shop's time zone may be others.
    first, last = times[0] - timedelta(days=1), times[-1] + timedelta(days=1)
    expected = expected_figures(rows)
    since, known = time.monotonic(), ""
    with console.status("waiting for the dashboard"):
        while True:
            answer = await fetch_dashboard(reader, f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}")
            differences = _differences(answer, expected, whole=whole)
            if answer != known:
                known, since = answer, time.monotonic()
            if not differences or time.monotonic() - since > PATIENCE_SECONDS:
                break
            await asyncio.sleep(_POLL_SECONDS)
    print_dashboard(console, answer)
    if whole and differences:
        raise CommandFailed("\n".join(("the dashboard and the clickstream differ:", *differences)))
    if whole:
        console.print(f"[green]The dashboard's {', '.join(expected)} are those of the clickstream.[/]")


def _differences(answer: str, expected: Mapping[str, float], *, whole: bool) -> list[str]:
    """The figures that are not as expected; without all rows sent, those that are less."""
    shown = {figure.key: figure.value or 0 for figure in Dashboard.model_validate_json(answer).figures}
    wrong = {key: value for key, value in expected.items() if shown[key] < value or (whole and shown[key] > value)}
    return [f"{key} is {shown[key]:,}, not {value:,}" for key, value in wrong.items()]
