"""`python -m bench`: measures everything in one run, on private servers, and keeps the result."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from bench import analytics, attribution, deliveries, drain, intake, mesh, realtime, report, shop, wordpress
from bench.load import Load
from cli.errors import CommandFailed
from services.journeys.attribution import EVERY_MODEL

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


class Part(StrEnum):
    """Parts that can be measured separately."""

    INTAKE = "intake"
    WORKER = "worker"
    MESH = "mesh"
    SHOP = "shop"
    ATTRIBUTION = "attribution"
    WORDPRESS = "wordpress"
    REALTIME = "realtime"
    DELIVERIES = "deliveries"
    ANALYTICS = "analytics"


_WITH_MARIADB = frozenset({Part.WORKER, Part.MESH, Part.SHOP, Part.ATTRIBUTION, Part.WORDPRESS, Part.ANALYTICS})


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a run."""

    loads: tuple[Load, ...]
    """Loads of the intake."""
    rounds: int
    """Rounds of each side."""
    worker_events: int
    """Events in the log when the worker starts."""
    mesh: mesh.Size
    """Load of the whole mesh."""
    shop_calls: int
    """Calls of each rpc of the shop's services."""
    touchpoints: int
    """Rows of the journeys and the funnel."""
    orders: int
    """Orders of the year that attribution reports on."""
    reports: int
    """Reports of each model, from each database."""
    requests: int
    """Pages and checkouts with and without the plugin."""
    realtime: realtime.Size
    """Live streams."""
    deliveries: deliveries.Size
    """Webhooks to six systems."""
    analytics: analytics.Size
    """Dashboard, reports and projection."""


FULL = Size(
    (Load(1, 64, 2), Load(100, 16, 1)),
    rounds=9,
    worker_events=60_000,
    mesh=mesh.Size(
        scale=0.2,
        steady_seconds=60,
        single_seconds=20,
        batch_seconds=5,
        batch_connections=16,
        rest_seconds=20,
        single_events=20,
        with_mariadb=True,
        demo_events=None,
    ),
    shop_calls=600,
    touchpoints=1_000_000,
    orders=100_000,
    reports=40,
    requests=200,
    realtime=realtime.Size(clients=1000, unread=50, per_second=500, seconds=30),
    deliveries=deliveries.Size(per_second=500, seconds=30),
    analytics=analytics.Size(events=1_000_000, calls=40),
)
QUICK = Size(
    (Load(1, 16, 1), Load(100, 4, 1)),
    rounds=1,
    worker_events=5_000,
    mesh=mesh.Size(
        scale=0.002,
        steady_seconds=2,
        single_seconds=1,
        batch_seconds=1,
        batch_connections=1,
        rest_seconds=1,
        single_events=2,
        with_mariadb=False,
        demo_events=20,
    ),
    shop_calls=100,
    touchpoints=10_000,
    orders=1000,
    reports=1,
    requests=10,
    realtime=realtime.Size(clients=60, unread=5, per_second=100, seconds=2),
    deliveries=deliveries.Size(per_second=20, seconds=2),
    analytics=analytics.Size(events=2000, calls=2),
)


@app.command()
def bench(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Check that everything works; the figures mean little.")] = False,
    only: Annotated[list[Part] | None, typer.Option(help="Only this part; may be repeated.")] = None,
    scale: Annotated[
        float | None, typer.Option(min=0.001, max=1, help="Fraction of the full durations (26 minutes) for each whole mesh.")
    ] = None,
    events: Annotated[int | None, typer.Option(min=1000, help="Events of analytics in MariaDB; in SQLite a million at most.")] = None,
    filled: Annotated[Path | None, typer.Option(help="Folder in which analytics keeps its databases, to be asked again.")] = None,
    results: Annotated[Path, typer.Option(help="Folder for the result.")] = report.RESULTS,
) -> None:
    """Measure the cost of the mesh against an empty service with the same Envoy."""
    console = Console() if sys.stdout.isatty() else Console(width=160)
    parts = frozenset(only or Part)
    size = QUICK if quick else FULL
    if scale is not None:
        size = replace(size, mesh=replace(size.mesh, scale=scale))
    if events is not None:
        size = replace(size, analytics=replace(size.analytics, events=events))
    try:
        # Under /var/tmp, since /tmp may be memory, where a disk sync costs nothing.
        with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder:
            machine = report.machine_facts(with_mariadb=bool(_WITH_MARIADB & parts))
            for part in Part:
                (Path(folder) / part).mkdir()
            figures = asyncio.run(_measure(size, parts, Path(folder), filled or Path(folder) / Part.ANALYTICS, console))
    except CommandFailed as error:
        console.print(f"[red]{error}", highlight=False)
        raise typer.Exit(1) from None
    report.print_figures(figures, console)
    console.print(f"written: {report.write(figures, machine, quick=quick, folder=results).name}", highlight=False)


async def _measure(size: Size, parts: frozenset[Part], folder: Path, filled: Path, console: Console) -> report.Figures:
    taken = stored = whole = sold = reported = plugin = None
    with Progress(console=console) as bar:
        if Part.INTAKE in parts:
            rounds = bar.add_task("intake, in turns with the empty service", total=2 * (size.rounds + 1) * len(size.loads))
            storing = bar.add_task("worker into SQLite", total=None)

            def tick() -> None:
                bar.advance(rounds)

            taken = await intake.measure(
                folder / Part.INTAKE, size.loads, size.rounds, tick, lambda done: bar.update(storing, completed=done)
            )
            bar.update(storing, total=taken.into_sqlite.events)
        if Part.WORKER in parts:
            storing_there = bar.add_task("worker into MariaDB", total=size.worker_events)
            stored = await drain.into_mariadb(
                folder / Part.WORKER, size.worker_events, lambda done: bar.update(storing_there, completed=done)
            )
        if Part.MESH in parts:
            going = bar.add_task("the whole mesh", total=None)
            whole = await mesh.measure(
                folder / Part.MESH, size.mesh, lambda what: bar.update(going, description=f"the whole mesh on {what}")
            )
            bar.update(going, total=1, completed=1)
        if Part.SHOP in parts:
            calling = bar.add_task("orders, people, journeys", total=4 * size.shop_calls)
            sold = await shop.measure(folder / Part.SHOP, size.shop_calls, size.touchpoints, lambda done: bar.advance(calling, done))
        if Part.ATTRIBUTION in parts:
            reporting = bar.add_task("reports on a year of orders", total=2 * size.reports * len(EVERY_MODEL))
            reported = await attribution.measure(
                folder / Part.ATTRIBUTION, size.orders, size.reports, lambda done: bar.advance(reporting, done)
            )
        if Part.WORDPRESS in parts:
            visiting = bar.add_task("pages and checkouts, in turns without the plugin", total=2 * size.requests)
            plugin = await asyncio.to_thread(
                wordpress.measure, folder / Part.WORDPRESS, size.requests, lambda done: bar.advance(visiting, done)
            )
        live, delivered, figures = await _measure_followers(size, parts, folder, filled, bar)
    return report.Figures(taken, stored, whole, sold, reported, plugin, live, delivered, figures)


async def _measure_followers(
    size: Size, parts: frozenset[Part], folder: Path, filled: Path, bar: Progress
) -> tuple[realtime.Realtime | None, deliveries.Deliveries | None, Mapping[str, analytics.Analytics] | None]:
    live = delivered = figures = None
    if Part.REALTIME in parts:
        streaming = bar.add_task("live streams", total=size.realtime.seconds)
        live = await realtime.measure(folder / Part.REALTIME, size.realtime, lambda: bar.advance(streaming))
        bar.update(streaming, completed=size.realtime.seconds)
    if Part.DELIVERIES in parts:
        delivering = bar.add_task("webhooks to six systems", total=size.deliveries.seconds)
        delivered = await deliveries.measure(folder / Part.DELIVERIES, size.deliveries, lambda: bar.advance(delivering))
        bar.update(delivering, completed=size.deliveries.seconds)
    if Part.ANALYTICS in parts:
        filling = bar.add_task("two years of events into analytics, then its dashboard", total=None)
        figures = await analytics.measure(filled, size.analytics, lambda done: bar.update(filling, completed=done))
        bar.update(filling, total=1, completed=1)
    return live, delivered, figures


if __name__ == "__main__":
    app()
