"""Time that the plugin adds to a page and to a checkout: the same site alternately with and without it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import httpx
import psutil
import pymysql

from bench.servers import BenchFailed, cpu_seconds
from tests.servers import PrivateMariaDb, free_port
from tests.wordpress.sites import add_pages, build_site, served, wordpress_6_5

_WARM_UP: Final = 5
_SWITCH: Final = """<?php
if (($_SERVER['HTTP_X_PLUGIN'] ?? '') === 'off') {
    add_filter('option_active_plugins', static fn ($active) => array_diff($active, ['pmp-analytics/pmp-analytics.php']));
}
"""
"""Disables the plugin for requests that ask for it, so that both sides share the site, its database and its caches."""
_VISIT: Final = {"cookie": "pmp_session=bench"}
"""A visitor who consents: without consent less is recorded."""


@dataclass(frozen=True, slots=True)
class Added:
    """A request alternately without and with the plugin, one at a time."""

    pairs: int
    off_p50_ms: float
    on_p50_ms: float
    added_p50_ms: float
    """Median of the pairs' differences."""
    ratio: float
    """Median of the pairs' ratios."""
    off_cpu_ms: float
    """Processor time of a request, of PHP and MariaDB together."""
    on_cpu_ms: float
    """The same with the plugin."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """The figures."""

    page_view: Added
    """The pricing page."""
    checkout: Added
    """An order of a new customer, with an account."""


def measure(folder: Path, pairs: int, progress: Callable[[int], None]) -> Plugin:
    """Measures on a site with its own MariaDB. The mesh is unreachable: a page that called it would fail or hang."""
    (folder / "mariadb").mkdir()
    server = PrivateMariaDb(folder / "mariadb")
    try:
        server.install()
        home = f"http://127.0.0.1:{(port := free_port())}"
        site = build_site(
            wordpress_6_5(),
            folder,
            server,
            home=home,
            PMP_ANALYTICS_GATEWAY_URL=f"http://127.0.0.1:{free_port()}",
            PMP_ANALYTICS_API_KEY="bench",
            PMP_ANALYTICS_JWT_SECRET="bench",  # noqa: S106 (not a real secret)
        )
        add_pages(site, home)
        (site / "wp-content" / "mu-plugins").mkdir(exist_ok=True)
        (site / "wp-content" / "mu-plugins" / "switch.php").write_text(_SWITCH)
        with served(site, port, home) as visitor:
            page = _in_turns(pairs, lambda plugin: _page(visitor, plugin), progress)
            numbers = count(1)
            checkout = _in_turns(pairs, lambda plugin: _order(visitor, plugin, next(numbers)), progress)
        _check_outbox(server, pairs + _WARM_UP)
        return Plugin(page, checkout)
    finally:
        server.kill()


def _in_turns(pairs: int, request: Callable[[str], float], progress: Callable[[int], None]) -> Added:
    """Makes the request with and without the plugin; every other pair begins with the other side."""
    taken: dict[str, list[float]] = {"off": [], "on": []}
    cpu = {"off": 0.0, "on": 0.0}
    processes = psutil.Process().children(recursive=True)
    for number in range(-_WARM_UP, pairs):
        for side in ("off", "on") if number % 2 else ("on", "off"):
            before = sum(map(cpu_seconds, processes))
            seconds = request(side)
            if number >= 0:
                taken[side].append(seconds * 1000)
                cpu[side] += (sum(map(cpu_seconds, processes)) - before) * 1000 / pairs
        progress(int(number >= 0))
    off, on = taken["off"], taken["on"]
    both = list(zip(off, on, strict=True))
    return Added(
        pairs,
        statistics.median(off),
        statistics.median(on),
        statistics.median(with_it - without for without, with_it in both),
        statistics.median(with_it / without for without, with_it in both),
        cpu["off"],
        cpu["on"],
    )


def _page(visitor: httpx.Client, plugin: str) -> float:
    started = time.perf_counter()
    answer = visitor.get("/pricing/", headers={"x-plugin": plugin, **_VISIT})
    seconds = time.perf_counter() - started
    if answer.status_code != 200 or ("assets/shop.js" in answer.text) != (plugin == "on"):  # noqa: PLR2004
        raise BenchFailed(f"the page with the plugin {plugin} is not as it should be ({answer.status_code})")
    return seconds


def _order(visitor: httpx.Client, plugin: str, number: int) -> float:
    form = {
        "product_id": "101",
        "billing_first_name": "Ada",
        "billing_last_name": "Lovelace",
        "billing_email": f"buyer{number}@example.org",
    }
    started = time.perf_counter()
    answer = visitor.post("/checkout/", data=form, headers={"x-plugin": plugin, **_VISIT})
    seconds = time.perf_counter() - started
    if "order-received=" not in answer.headers.get("location", ""):
        raise BenchFailed(f"the checkout with the plugin {plugin} took no order ({answer.status_code})")
    return seconds


def _check_outbox(server: PrivateMariaDb, orders: int) -> None:
    """Checks that the plugin has recorded what it saw.

    Raises:
        BenchFailed: an order is missing, or recorded more than once.
    """
    with pymysql.connect(host="127.0.0.1", port=server.port, user="root") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_schema FROM information_schema.tables WHERE table_name = 'wp_pmp_outbox'")
        [(database,)] = cursor.fetchall()
        cursor.execute(f"SELECT COUNT(*) FROM {database}.wp_pmp_outbox WHERE kind = 'purchase'")  # noqa: S608 (our own name)
        [(recorded,)] = cursor.fetchall()
    if recorded != orders:
        raise BenchFailed(f"{recorded} of {orders} orders are in the outbox")
