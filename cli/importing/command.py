"""What `pmp import` does: opens a source, and imports or previews it."""

from __future__ import annotations

from pathlib import Path

from pmp_mesh_client.tokens import Scope
from rich.console import Console

from cli.calls import connect
from cli.credentials import credentials
from cli.folder import DataFolder
from cli.importing.items import Source
from cli.importing.journal import Journal
from cli.importing.run import print_counts, run
from cli.importing.sending import Mesh
from cli.importing.woocommerce_api import ShopApi
from cli.importing.woocommerce_client import WooCommerce
from cli.sending import CONNECTIONS


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


async def import_source(source: Source, data: Path, *, dry_run: bool, again: bool) -> None:
    """Imports a source, or shows what an import would change.

    Raises:
        CommandFailed: the source or the mesh can't be used.
    """
    console, folder = Console(), DataFolder(data)
    name = f"{source.name}-dry-run" if dry_run else source.name
    mesh_credentials = lambda: credentials(folder, Scope.SITE)  # noqa: E731
    mesh_credentials()  # before anything is read: whether there is a mesh
    journal = Journal(folder.path / "imports", name, source.title, again=again or dry_run)
    async with connect(CONNECTIONS) as client:
        await run(source, Mesh(client, mesh_credentials), journal, console)
    print_counts(console, journal.counts, source.title)
    if journal.rejects.exists():
        console.print(f"What was not imported is in {journal.rejects}, with the reasons.", soft_wrap=True)


async def import_from_file(
    form: str, file: Path, data: Path, *, mapping: Path | None = None, wordpress_users: bool = False, dry_run: bool, again: bool
) -> None:
    """Imports a file."""
