"""The commands of `pmp import`."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import DATA, Data
from cli.errors import CommandFailed

imports = typer.Typer(
    no_args_is_help=True,
    help="Import the history of a shop. It counts in every figure, and never reaches advertisers or mail automations. "
    "An import that was stopped goes on where it was; what is known already counts once.",
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Send nothing; show what would change, and write what can't be imported.")]
Again = Annotated[bool, typer.Option("--again", help="Begin anew, also where an earlier import has finished.")]
MappingFile = Annotated[Path | None, typer.Option("--mapping", help="TOML file that names the columns; see docs/import.md.")]


@imports.command("woocommerce")
def import_woocommerce(
    url: Annotated[str, typer.Option(help="Address of the shop: customers, orders and refunds by its REST API.")] = "",
    csv: Annotated[Path | None, typer.Option(help="File of an order export plugin, or of WooCommerce's analytics.")] = None,
    mapping: MappingFile = None,
    data: Data = DATA,
    *,
    dry_run: DryRun = False,
    again: Again = False,
) -> None:
    """Import orders, refunds and customers from a shop, or orders from a file.

    PMP_WOOCOMMERCE_KEY and PMP_WOOCOMMERCE_SECRET are the consumer key and secret of the REST API, with the permission to read;
    without them, they are asked for.
    """
    from cli.importing.command import import_from_shop, import_source, orders_of

    if bool(url) == bool(csv):
        raise CommandFailed("name either the shop with --url, or a file with --csv")
    if csv is not None:
        asyncio.run(import_source(orders_of(csv, mapping), data, dry_run=dry_run, again=again))
        return
    key = os.environ.get("PMP_WOOCOMMERCE_KEY") or typer.prompt("Consumer key")
    secret = os.environ.get("PMP_WOOCOMMERCE_SECRET") or typer.prompt("Consumer secret", hide_input=True)
    asyncio.run(import_from_shop(url, key, secret, data, dry_run=dry_run, again=again))


@imports.command("stripe")
def import_stripe(
    file: Annotated[Path, typer.Argument(help="Payments as Stripe exports them: CSV with all columns.")],
    data: Data = DATA,
    *,
    dry_run: DryRun = False,
    again: Again = False,
) -> None:
    """Import payments: as those of the shop's orders where their metadata has the order, else as orders of their own."""
    from cli.importing.command import import_source, payments_of

    asyncio.run(import_source(payments_of(file), data, dry_run=dry_run, again=again))


@imports.command("events")
def import_events(
    file: Annotated[Path, typer.Argument(help="Events: NDJSON as the API takes them, or CSV with a mapping.")],
    mapping: MappingFile = None,
    data: Data = DATA,
    *,
    dry_run: DryRun = False,
    again: Again = False,
) -> None:
    """Import events of another analytics tool."""
    from cli.importing.command import events_of, import_source

    asyncio.run(import_source(events_of(file, mapping), data, dry_run=dry_run, again=again))


@imports.command("ga4")
def import_ga4(
    file: Annotated[Path, typer.Argument(help="A day of GA4's export to BigQuery, extracted as NDJSON (may be gzipped) or Parquet.")],
    data: Data = DATA,
    *,
    wordpress_users: Annotated[bool, typer.Option(help="The user id in GA4 is the WordPress user's.")] = False,
    dry_run: DryRun = False,
    again: Again = False,
) -> None:
    """Import events of Google Analytics 4."""
    from cli.importing.command import ga4_events_of, import_source

    asyncio.run(import_source(ga4_events_of(file, wordpress_users=wordpress_users), data, dry_run=dry_run, again=again))
