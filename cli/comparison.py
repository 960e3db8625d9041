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
from cli.ledger import Ledger
from cli.reconcile import Outcome, Reconciler
from cli.shop_orders import ShopOrders
from kit.times import timestamp

DAYS: Final = timedelta(days=90)
"""The period by default: most of an order's changes happen within it. The mesh keeps the outcome for no shorter one."""
SHOP: Final = "woocommerce"
SECRET: Final = "PMP_SITE_ERASURE_SECRET"  # noqa: S105 (the name of a variable)


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
        url: of the plugin's route.
        credentials: makes credentials of a scope.
        period: when the orders were placed.
        currency: of orders without one.
        heals: whether orders that differ are reported again.
        deletes: whether many orders may be recorded as deleted.
        console: shows the progress.
        environ: has the secret that signs the calls of the shop.

    Raises:
        CommandFailed: there is no secret, or one of the two does not answer.
    """
    if not (secret := environ.get(SECRET)):
        raise CommandFailed(f"{SECRET} is not set: it signs the calls of the shop, whose plugin has the same")
    shop = ShopOrders(url, secret)
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
