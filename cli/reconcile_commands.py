"""`pmp reconcile`: commands that compare the ledger with a shop."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from cli.arguments import DATA, Data

DIFFERENT: Final = 3
"""Exit status when orders still differ."""
reconciliations = typer.Typer(no_args_is_help=True, help="Compare the ledger with the shop.")


@reconciliations.callback()
def reconcile() -> None:
    """Compare the ledger with the shop."""


@reconciliations.command("woocommerce")
def reconcile_woocommerce(
    url: Annotated[
        str,
        typer.Option(
            envvar="PMP_SITE_ORDERS_URL",
            help="The plugin's route, such as https://shop.example/wp-json/pmp/v1/orders; the shop's address where it has no plugin.",
        ),
    ],
    *,
    since: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day of the orders. Default: 90 days ago.")
    ] = None,
    until: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day of the orders. Default: today.")] = None,
    timezone: Annotated[str, typer.Option(envvar="PMP_SITE_TIMEZONE", help="Time zone of the days.")] = "UTC",
    currency: Annotated[str, typer.Option(envvar="PMP_SITE_CURRENCY", help="Currency of orders that name none.")] = "USD",
    csv: Annotated[Path | None, typer.Option(help="Write what differed to this file.")] = None,
    data: Data = DATA,
    heal: Annotated[bool, typer.Option(help="Correct the ledger by the shop's reports of the orders that differ.")] = True,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Correct orders that the shop does not have any more, even if they are many.")
    ] = False,
) -> None:
    """Compare a shop's orders and refunds with the ledger and correct it; exit 0 when they agree, 3 when orders still differ.

    PMP_SITE_ERASURE_SECRET signs the calls of the shop; its plugin has the same. A shop without the plugin is asked by its REST API:
    PMP_WOOCOMMERCE_KEY and PMP_WOOCOMMERCE_SECRET are its consumer key and secret, with the permission to read.
    """
    from rich.console import Console

    from cli.comparison import compare, period_of_days
    from cli.credentials import credentials as make
    from cli.folder import DataFolder
    from cli.reconcile_report import print_outcome, write_csv

    console = Console()
    period = period_of_days(since and since.date(), until and until.date(), timezone, datetime.now(UTC))
    credentials = partial(make, DataFolder(data))
    outcome = asyncio.run(compare(url, credentials, period, currency=currency, heals=heal, deletes=deleted, console=console))
    print_outcome(console, outcome, period.days)
    if csv is not None:
        write_csv(csv, outcome)
    raise typer.Exit(DIFFERENT if outcome.left else 0)
