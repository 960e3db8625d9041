"""A comparison of the ledger with the shop, from its period to its outcome, which the mesh keeps."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from pmp.purchases.v1.comparison_pb2 import Comparison
from pmp_mesh_client.tokens import Scope
from rich.console import Console

from cli.calls import connect
from cli.credentials import Credentials
from cli.errors import CommandFailed
from cli.export import period_of
from cli.importing.woocommerce_client import WooCommerce
from cli.ledger import Ledger
from cli.reconcile import Outcome, Reconciler
from cli.shop_api_orders import ApiOrders
from cli.shop_orders import ShopOrders
from cli.shop_reports import Shop
from kit.credentials.signing import SITE_SECRET
from kit.times import timestamp

DAYS: Final = timedelta(days=90)
"""The period by default: most of an order's changes happen within it. The mesh keeps the outcome for no shorter one."""
SHOP: Final = "woocommerce"
KEYS: Final = ("PMP_WOOCOMMERCE_KEY", "PMP_WOOCOMMERCE_SECRET")
_ROUTE: Final = "/pmp/v1/orders"
"""How the address of the plugin's route ends, whatever the shop's permalinks are."""


@dataclass(frozen=True, slots=True)
class Period:
    """When the compared orders were placed."""

    since: datetime
    until: datetime
    """Exclusive."""
    days: str
    """The same in words."""
    is_kept: bool
    """Whether its outcome says of the ledger as a whole that it agrees with the shop."""


def period_of_days(first: date | None, last: date | None, timezone: str, now: datetime) -> Period:
    """The period of whole days, both included, but no longer than until now; without a day, the last 90 days.

    Raises:
        CommandFailed: the time zone is unknown, or the period ends before it begins.
    """
    since, until = period_of(first, last, timezone)
    since = since if first else now - DAYS
    until = min(until, now)
    if since >= until:
        raise CommandFailed("the period ends before it begins")
    days = f"{since.astimezone(until.tzinfo):%Y-%m-%d} to {until - timedelta(microseconds=1):%Y-%m-%d}"
    return Period(since, until, days, is_kept=since <= now - DAYS and until >= now)


async def compare(
    url: str,
    credentials: Callable[[Scope], Credentials],
    period: Period,
    *,
    currency: str,
    heals: bool,
    deletes: bool,
    console: Console,
    environ: Mapping[str, str] = os.environ,
) -> Outcome:
    """Compares a shop with the ledger, and has the mesh keep the outcome, unless the period is too short for that.

    Args:
        url: of the plugin's route, or of a shop without the plugin.
        credentials: makes credentials of a scope.
        period: when the orders were placed.
        currency: of orders without one.
        heals: whether orders that differ are reported again.
        deletes: whether many orders may be recorded as deleted.
        console: shows the progress.
        environ: has the secret that signs the calls of the plugin, or the key of the REST API.

    Raises:
        CommandFailed: there is neither, or one of the two does not answer.
    """
    shop = shop_at(url, environ)
    try:
        async with connect() as client:
            ledger = Ledger(client, credentials)
            with console.status("comparing orders") as status:
                reconciler = Reconciler(shop, ledger, currency, lambda count: status.update(f"comparing orders: {count:,}"))
                outcome = await reconciler.run(period.since, period.until, heals=heals, deletes=deletes)
            if period.is_kept:
                await ledger.keep(_comparison(period, outcome))
    finally:
        await shop.close()
    return outcome


def shop_at(url: str, environ: Mapping[str, str]) -> Shop:
    """The shop at an address: by its plugin if that is the address of the plugin's route, by its REST API if there is a key of it.

    Raises:
        CommandFailed: the address or what is needed to ask the shop is wrong or missing.
    """
    key, secret = (environ.get(name, "") for name in KEYS)
    is_route = url.rstrip("/").endswith(_ROUTE)
    if key and secret and not is_route:
        return ApiOrders(WooCommerce(url, key, secret))
    if not (signs := environ.get(SITE_SECRET)):
        other = "" if is_route else f"; {' and '.join(KEYS)} are not set either, by which a shop without the plugin is asked"
        raise CommandFailed(f"{SITE_SECRET} is not set: it signs the calls of the shop, whose plugin has the same{other}")
    return ShopOrders(url, signs)


def _comparison(period: Period, outcome: Outcome) -> Comparison:
    message = Comparison(
        shop=SHOP,
        checked_at=timestamp(datetime.now(UTC)),
        to=timestamp(period.until),
        orders=outcome.orders,
        found=len(outcome.found),
        different=outcome.left,
    )
    getattr(message, "from").CopyFrom(timestamp(period.since))
    return message
