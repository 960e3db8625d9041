"""The figures as a table, and as a file for comparing runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from bench.analytics import Analytics
from bench.attribution import Attribution
from bench.cost import Cost
from bench.deliveries import Deliveries
from bench.drain import Drained
from bench.intake import Compared, Intake, Side
from bench.machine import commit, facts, mariadb_version
from bench.mesh import Offered, Sustained, WholeMesh
from bench.realtime import Realtime
from bench.shop import BATCH, Shop, Timed
from bench.wordpress import Plugin

RESULTS = Path(__file__).with_name("results")
"""Folder of the results."""
_RATIO_TARGETS = {1: 0.8, 100: 0.7}
_MESH_TARGETS = {("sqlite", 1): 0.55, ("mariadb", 1): 0.5, ("sqlite", 100): 0.12, ("mariadb", 100): 0.12}


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of one run; None for the parts that were left out."""

    intake: Intake | None
    """Intake compared with the empty service, and the worker into SQLite."""
    into_mariadb: Drained | None
    """The worker into MariaDB."""
    mesh: Mapping[str, WholeMesh] | None
    """The whole mesh of `pmp up`, by database."""
    shop: Shop | None
    """Orders, registrations, journeys and funnels."""
    attribution: Attribution | None
    """Reports on a year of orders."""
    wordpress: Plugin | None
    """Pages and checkouts with and without the plugin."""
    realtime: Realtime | None
    """Live streams."""
    deliveries: Deliveries | None
    """Webhooks to six systems, of which three are well."""
    analytics: Mapping[str, Analytics] | None
    """Dashboard, reports and projection, by database."""


def write(figures: Figures, machine: Mapping[str, Any], *, quick: bool, folder: Path = RESULTS) -> Path:
    """Writes a run's figures and the facts of its machine; returns the path of the file."""
    now = datetime.now(UTC)
    short, changed = commit()
    document = {
        "measured_at": now.isoformat(timespec="seconds"),
        "commit": short,
        "uncommitted_changes": changed,
        "quick": quick,
        "machine": machine,
        **asdict(figures),
    }
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{now:%Y-%m-%d}-{short}"
    # Parts can be measured by several runs of one commit.
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    path = next(path for path in (folder / f"{each}.json" for each in names) if not path.exists())
    path.write_text(json.dumps(document, indent=2, default=_plain) + "\n", encoding="utf-8")
    return path


def machine_facts(*, with_mariadb: bool) -> dict[str, Any]:
    """Facts about the machine, and about MariaDB if it is measured."""
    return {**facts(), **({"mariadb": mariadb_version()} if with_mariadb else {})}


def print_figures(figures: Figures, console: Console) -> None:
    """Prints one table with each figure and its target."""
    table = Table("what", "figure", "target", "beside", title="Cost of the mesh on this machine")
    for column in table.columns[1:3]:
        column.justify = "right"
    for row in _rows(figures):
        table.add_row(*row)
    console.print(table)


def _rows(figures: Figures) -> Iterator[tuple[str, str, str, str]]:
    if figures.intake:
        for compared in figures.intake.compared:
            yield from _compared(compared)
        yield "worker into SQLite", *_drained(figures.intake.into_sqlite)
    if figures.into_mariadb:
        what, target, beside = _drained(figures.into_mariadb)
        yield "worker into MariaDB", what, target or ">= 5,000/s", beside
    for database, mesh in (figures.mesh or {}).items():
        yield from _mesh(database, mesh)
    if figures.shop:
        yield from _shop(figures.shop)
    if figures.attribution:
        yield from _attribution(figures.attribution)
    if figures.wordpress:
        yield from _wordpress(figures.wordpress)
    yield from _rows_of_followers(figures)


def _rows_of_followers(figures: Figures) -> Iterator[tuple[str, str, str, str]]:
    if figures.realtime:
        yield from _realtime(figures.realtime)
    if figures.deliveries:
        yield from _deliveries(figures.deliveries)
    for database, measured in (figures.analytics or {}).items():
        yield from _analytics(database, measured)


def _wordpress(plugin: Plugin) -> Iterator[tuple[str, str, str, str]]:
    for what, added in (("a page view", plugin.page_view), ("a checkout", plugin.checkout)):
        cpu = f"CPU {added.off_cpu_ms:.1f} and {added.on_cpu_ms:.1f} ms"
        beside = f"{added.off_p50_ms:.1f} ms without, {added.on_p50_ms:.1f} with, x {added.ratio:.2f}; {cpu}; {added.pairs} pairs"
        yield f"the plugin adds to {what}", f"{added.added_p50_ms:.1f} ms", "<= 5 ms", beside


def _realtime(live: Realtime) -> Iterator[tuple[str, str, str, str]]:
    what = f"{live.clients:,} WebSockets at {live.per_second}/s: stored, then received, p99"
    yield (
        what,
        f"{live.p99_ms:.0f} ms",
        "<= 250 ms",
        f"p50 {live.p50_ms:.0f}, max {live.max_ms:.0f} ms; CPU %: {_percents(live.cpu_percent)}",
    )
    yield "  a client that does not read misses", f"{live.missed_per_unread:,.0f}", "", f"of {live.events:,}, {live.unread} such clients"
    for name in ("followers", "gateway"):
        beside = f"{live.idle_mib[name]:.0f} without clients, {live.open_mib[name]:.0f} with all of them, at rest"
        yield f"  memory of {name}, peak", f"{live.peak_mib[name]:.0f} MiB", "", beside
    yield "  streams opened", f"{live.opened_per_second:,.0f}/s", "", ""


def _deliveries(it: Deliveries) -> Iterator[tuple[str, str, str, str]]:
    times = f"p50 {it.p50_ms:,.0f}, max {it.max_ms:,.0f} ms; the last {it.catch_up_seconds:.1f} s after the end"
    yield f"six webhooks of {it.per_second} events/s, three of them well: p99", f"{it.p99_ms:,.0f} ms", "<= 5,000 ms", times
    alone = f"alone {it.bare_per_second:,.0f}/s and {it.bare_cpu_us:.0f} us"
    yield "  delivered to those that are well", f"{it.delivered_per_second:,.0f}/s", "", f"{_percents(it.cpu_percent)} % of a core"
    yield "  processor time of a delivery", f"{it.cpu_us_per_delivery:,.0f} us", "", f"the HTTP client {alone} a request"
    yield "  memory, peak", f"{it.peak_mib:.0f} MiB", "", f"{it.idle_mib:.0f} before"
    yield "  the others have all, once they are well", f"{it.healed_seconds:.0f} s", "", ""


def _analytics(database: str, figures: Analytics) -> Iterator[tuple[str, str, str, str]]:
    filled = figures.projection
    cpu = ", ".join(f"{name} {us:.0f}" for name, us in filled.cpu_us_per_event.items())
    ratio = f"x {filled.per_second / filled.bare_per_second:.2f} of inserting them ({filled.bare_per_second:,.0f}/s)"
    beside = f"{filled.events:,} events, {filled.sessions:,} sessions, {filled.orders:,} orders; {ratio}; CPU us/event: {cpu}"
    yield f"analytics into {database}", f"{filled.per_second:,.0f}/s", ">= 5,000/s", beside
    yield "  on disk for a million events", f"{filled.bytes_per_event:,.0f} MB", "", "with all indices"
    for what, target, several in (("dashboard of ", "<= 50 ms", figures.dashboards), ("", "<= 200 ms", figures.reports)):
        for name, answers in several.items():
            beside = f"p50 {answers.p50_ms:.1f} ms, x {answers.ratio:,.1f} of counting sessions; CPU {answers.cpu_ms:.1f} ms"
            yield f"  {what}{name}: p95", f"{answers.p95_ms:.1f} ms", target, beside


def _mesh(database: str, mesh: WholeMesh) -> Iterator[tuple[str, str, str, str]]:
    yield f"ready, second start on {database}", f"{mesh.ready_again_seconds:.1f} s", "<= 4 s", f"first {mesh.ready_seconds:.1f} s"
    memory = ", ".join(f"{name} {mib:.0f}" for name, mib in mesh.pss_mib.items())
    yield "  memory at rest", f"{sum(mesh.pss_mib.values()):.0f} MiB", "<= 400 MiB", f"PSS: {memory}"
    yield "  processor at rest", f"{sum(mesh.rest_cpu_percent.values()):.1f} %", "<= 2 %", _percents(mesh.rest_cpu_percent)
    soon = mesh.followed
    yield "  answered, then stored", f"{soon.stored_p50_ms:.0f} ms", "<= 100 ms", f"slowest of {soon.events} {soon.stored_max_ms:.0f} ms"
    yield "  answered, then in the journey", f"{soon.in_journey_p50_ms:.0f} ms", "<= 400 ms", f"slowest {soon.in_journey_max_ms:.0f} ms"
    for offered in mesh.offered:
        yield from _offered(offered)
    for sustained in mesh.sustained:
        yield from _sustained(sustained, _MESH_TARGETS[database, sustained.events_per_request])


def _offered(offered: Offered) -> Iterator[tuple[str, str, str, str]]:
    it = offered.answers
    rate = f", {offered.per_second}/s" if offered.per_second else ""
    times = f"p50 {it.p50_ms:.1f}, p99 {it.p99_ms:.1f}, max {it.max_ms:.0f} ms"
    counts = f"{it.requests:,} answered ({it.requests / it.seconds:,.0f}/s), {it.failed:,} failed, {it.not_sent:,} not sent"
    thresholds = "thresholds hold" if it.passes else "thresholds violated"
    yield (
        f"  {offered.name}{rate}: p95",
        f"{it.p95_ms:.1f} ms",
        "<= 100 ms" if offered.name == "api_load" else "",
        f"{times}; {counts}; {thresholds}; {offered.backlog:,} not applied at the end, for {offered.catch_up_seconds:.1f} s",
    )
    yield (
        f"  {offered.name}: written to disk for an event",
        f"{offered.cost.written_bytes_per_event / 1000:.1f} kB",
        "<= 8 kB",
        _cost(offered.cost),
    )


def _sustained(sustained: Sustained, target: float) -> Iterator[tuple[str, str, str, str]]:
    rates = f"{sustained.per_second:,.0f}/s of {sustained.empty_per_second:,.0f}/s"
    answered = f"answered {sustained.answered_per_second:,.0f}/s, p50 {sustained.p50_ms:.0f}, p99 {sustained.p99_ms:.0f} ms"
    what = "single events" if sustained.events_per_request == 1 else f"batches of {sustained.events_per_request}"
    yield (
        f"  {what}, sustained: mesh / empty service",
        f"{sustained.ratio:.3f}",
        f">= {target}",
        f"{rates}; {answered}; applied {sustained.catch_up_seconds:.1f} s after the end",
    )
    yield (
        "  processor time of an event / empty service's",
        f"{sustained.cpu_ratio:.1f}",
        "<= 2" if sustained.events_per_request == 1 else "",
        _cost(sustained.cost),
    )


def _cost(cost: Cost) -> str:
    return "CPU us/event: " + ", ".join(f"{name} {us:.0f}" for name, us in cost.cpu_us_per_event.items())


def _shop(shop: Shop) -> Iterator[tuple[str, str, str, str]]:
    yield "a bare insert into MariaDB", f"{shop.bare_insert.per_second:,.0f}/s", "", _times(shop.bare_insert)
    for what, timed in (("TrackPurchase", shop.track_purchase), ("RegisterUser", shop.register_user)):
        ratio = timed.per_second / shop.bare_insert.per_second
        yield f"{what}: calls / bare inserts", f"{ratio:.2f}", "", f"{timed.per_second:,.0f}/s; {_times(timed)}"
    for what, timed, target in (("TrackPurchases", shop.track_purchases, ">= 2,000/s"), ("RegisterUsers", shop.register_users, "")):
        beside = f"p50 {timed.p50_ms:.0f}, p95 {timed.p95_ms:.0f} ms for a batch, one after the other"
        yield f"{what}: records in batches of {BATCH}", f"{timed.per_second * BATCH:,.0f}/s", target, beside
    cpu = ", ".join(f"{name} {us:.0f}" for name, us in shop.cpu_us_per_call.items())
    yield "  processor time of either", "", "", f"CPU us/call: {cpu}"
    beside = f"{shop.touchpoints:,} touchpoints; {shop.get_user_journey.per_second:,.0f}/s; {_times(shop.get_user_journey)}"
    yield "GetUserJourney: p95", f"{shop.get_user_journey.p95_ms:.1f} ms", "", beside
    yield "GetFunnel", f"{shop.funnel_seconds:.1f} s", "", f"four steps over {shop.touchpoints:,} rows"


def _attribution(figures: Attribution) -> Iterator[tuple[str, str, str, str]]:
    for database, models in figures.reports.items():
        for model, report in models.items():
            beside = f"p50 {report.p50_ms:,.0f} ms, x {report.ratio:,.0f} of counting them; CPU {report.cpu_ms:,.0f} ms"
            yield f"{model} over {figures.orders:,} orders in {database}: p95", f"{report.p95_ms:,.0f} ms", "<= 200 ms", beside
        beside = f"journeys {figures.paths_cpu_us[database]:.0f} us of processor time for a session or order"
        yield f"all paths computed anew in {database}", f"{figures.paths_seconds[database]:,.1f} s", "", beside


def _times(timed: Timed) -> str:
    return f"p50 {timed.p50_ms:.1f}, p95 {timed.p95_ms:.1f}, p99 {timed.p99_ms:.1f} ms, 16 at once"


def _compared(compared: Compared) -> Iterator[tuple[str, str, str, str]]:
    each = compared.events_per_request
    what = "single events" if each == 1 else f"batches of {each}"
    rounds = ", ".join(f"{ratio:.2f}" for ratio in compared.ratios)
    target = _RATIO_TARGETS.get(each)
    yield (
        f"{what}: mesh / empty service",
        f"{compared.ratio:.2f}",
        f">= {target}" if target else "",
        f"by processor time {compared.cpu_ratio:.2f}; round by round {rounds}",
    )
    yield "  the mesh", f"{compared.real.per_second * each:,.0f}/s", ">= 30,000/s" if each == 100 else "", _side(compared.real)  # noqa: PLR2004
    yield "  the empty service", f"{compared.empty.per_second * each:,.0f}/s", "", _side(compared.empty)


def _side(side: Side) -> str:
    cpu = ", ".join(f"{name} {us:.0f}" for name, us in side.cpu_us_per_request.items())
    return f"p50 {side.p50_ms:.1f}, p99 {side.p99_ms:.1f} ms at full load; CPU us/request: {cpu}"


def _drained(drained: Drained) -> tuple[str, str, str]:
    cpu = ", ".join(f"{name} {us:.0f}" for name, us in drained.cpu_us_per_event.items())
    return f"{drained.per_second:,.0f}/s", "", f"{drained.events:,} events stored and published; CPU us/event: {cpu}"


def _percents(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.1f}" for name, share in shares.items())


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    raise TypeError(type(value).__name__)
