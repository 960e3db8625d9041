"""What `pmp import` does: opens a source, and imports or previews it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pmp_mesh_client.tokens import Scope
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.calls import connect
from cli.credentials import Credentials, credentials
from cli.folder import DataFolder
from cli.importing import events_file, orders_file
from cli.importing.files import FileSource, Row, read_header, read_table
from cli.importing.ga4_file import read_ga4
from cli.importing.items import Source
from cli.importing.journal import Journal
from cli.importing.mapping import EVENT_FIELDS, ORDER_FIELDS, FileMapping, read_mapping
from cli.importing.preview import Preview
from cli.importing.run import Receiver, print_counts, run
from cli.importing.sending import Mesh
from cli.importing.stripe_file import read_payments
from cli.importing.woocommerce_api import ShopApi
from cli.importing.woocommerce_client import WooCommerce

_CONNECTIONS: Final = 32
"""Connections to the gateway: a refund is a call of its own, and those of several pages share transactions if they are sent together."""
_SHOWN: Final = 3
"""Rows of a file that are shown with its mapping."""


async def import_from_shop(url: str, key: str, secret: str, data: Path, *, dry_run: bool, again: bool) -> None:
    """Imports a shop by its REST API.

    Raises:
        CommandFailed: the shop or the mesh can't be used.
    """
    shop = WooCommerce(url, key, secret)
    try:
        await import_source(ShopApi(shop), data, dry_run=dry_run, again=again)
    finally:
        await shop.close()


def orders_of(file: Path, mapping: Path | None) -> Source:
    """The orders of a CSV file.

    Raises:
        CommandFailed: the file or its mapping can't be used.
    """
    whole = _mapping(file, mapping, ORDER_FIELDS, orders_file.REQUIRED)
    return FileSource("orders", file, lambda: orders_file.read_orders(file, whole), whole.model_dump_json().encode())


def payments_of(file: Path) -> Source:
    """The payments of a file of Stripe.

    Raises:
        CommandFailed: the file can't be used.
    """
    return FileSource("stripe", file, lambda: read_payments(file))


def events_of(file: Path, mapping: Path | None) -> Source:
    """The events of a file: CSV if it is named so, or has a mapping, and NDJSON otherwise.

    Raises:
        CommandFailed: the file or its mapping can't be used.
    """
    if mapping is None and file.suffix.lower() != ".csv":
        return FileSource("events", file, lambda: events_file.read_ndjson(file))
    whole = _mapping(file, mapping, EVENT_FIELDS, events_file.REQUIRED)
    return FileSource("events", file, lambda: events_file.read_events(file, whole), whole.model_dump_json().encode())


def ga4_events_of(file: Path, *, wordpress_users: bool) -> Source:
    """The events of a file of Google Analytics 4.

    Raises:
        CommandFailed: the file can't be used.
    """
    return FileSource("ga4", file, lambda: read_ga4(file, wordpress_users=wordpress_users), str(wordpress_users).encode())


async def import_source(source: Source, data: Path, *, dry_run: bool, again: bool) -> None:
    """Imports a source, or shows what an import would change.

    Raises:
        CommandFailed: the source or the mesh can't be used.
    """
    console, folder = Console(), DataFolder(data)
    site: Callable[[], Credentials] = lambda: credentials(folder, Scope.SITE)  # noqa: E731 (its name is its meaning)
    site()  # before anything is read: whether there is a mesh
    name = f"{source.name}-dry-run" if dry_run else source.name
    journal = Journal(folder.path / "imports", name, source.title, again=again or dry_run)
    if journal.is_complete:
        console.print("It was imported before: only what is new since is sent. --again sends all of it again.")
    async with connect(_CONNECTIONS) as client:
        receiver: Receiver = Preview(client, site) if dry_run else Mesh(client, site)
        await run(source, receiver, journal, console)
    print_counts(console, journal.counts, f"{source.title}: what an import would do" if dry_run else source.title)
    if journal.has_rejects:
        console.print(f"What can't be imported is in {journal.rejects}, with the reasons.", soft_wrap=True)


def _mapping(file: Path, mapping: Path | None, fields: Mapping[str, Sequence[str]], required: Sequence[str]) -> FileMapping:
    """The mapping of a file, which is shown with its first rows."""
    header = read_header(file)
    whole = read_mapping(mapping, header, fields, required, os.environ.get("PMP_SITE_TIMEZONE", "UTC"))
    table = Table("field", "column", "first rows", title=f"How {file.name} is read", box=SIMPLE, show_edge=False, title_justify="left")
    rows = [*_first(read_table(file))]
    for field, column in whole.columns.items():
        table.add_row(field, column, " | ".join(row.cells.get(column, "") for row in rows))
    console = Console(stderr=True)
    console.print(table)
    used = {*whole.columns.values(), *whole.metadata}
    if unused := [name for name in header if name not in used and not orders_file.LINE_ITEM.fullmatch(name)]:
        console.print(f"Columns that are not used: {', '.join(unused)}", soft_wrap=True)
    return whole


def _first(rows: Iterator[Row]) -> Iterator[Row]:
    for _, row in zip(range(_SHOWN), rows, strict=False):
        yield row
