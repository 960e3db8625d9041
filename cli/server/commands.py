"""`pmp service` and `pmp upgrade`."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import AsJson

service = typer.Typer(no_args_is_help=True, help="Run the mesh as a service of this machine, by systemd.")

Root = Annotated[Path, typer.Option(help="Root of the machine's file system, where that is not this one's.")]


@service.command("install")
def install_service(
    root: Root = Path("/"),
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files instead of writing them.")] = False,
    start: Annotated[bool, typer.Option(help="Start the service, or start it anew if it runs.")] = True,
) -> None:
    """Install this release as a service that starts with the machine: user, unit, settings and folders."""
    from cli.server.machine import Machine
    from cli.server.service import install, preview

    if dry_run:
        preview(typer.echo)
    else:
        install(Machine(root.absolute()), typer.echo, start=start)


@service.command("uninstall")
def uninstall_service(root: Root = Path("/")) -> None:
    """Stop the service and remove it. The data, the backups and the settings stay."""
    from cli.server.machine import Machine
    from cli.server.service import uninstall

    uninstall(Machine(root.absolute()), typer.echo)


@service.command("status")
def show_service(root: Root = Path("/"), *, json: AsJson = False) -> None:
    """Show the service, its release, its last backup and its processes; exit 0 when all are ready."""
    from rich.console import Console

    from cli.folder import DataFolder
    from cli.server.machine import DATA, Machine
    from cli.server.service import describe, service_status
    from cli.state import running_mesh
    from cli.status import ask, print_status

    machine = Machine(root.absolute())
    found = service_status(machine)
    typer.echo(found.model_dump_json(indent=2) if json else describe(found))
    if found.state != "active":
        raise typer.Exit(1)
    mesh = asyncio.run(ask(running_mesh(DataFolder(machine.path(DATA)))))
    if not json:
        print_status(Console(), mesh)
    raise typer.Exit(0 if mesh.ready else 1)


@service.command("certificate")
def renew_certificate(
    lineage: Annotated[
        Path, typer.Argument(envvar="RENEWED_LINEAGE", help="certbot's folder, such as /etc/letsencrypt/live/mesh.example.")
    ],
    root: Root = Path("/"),
) -> None:
    """Hand a certificate to the gateway, which takes it up without a restart. For `certbot --deploy-hook`."""
    from cli.server.certificate import take_up
    from cli.server.machine import CERTIFICATES, Machine

    expires = take_up(lineage, Machine(root.absolute()).path(CERTIFICATES))
    typer.echo(f"the gateway has a certificate until {expires:%Y-%m-%d}")


def upgrade(
    release: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder with a checkout of the new release.")],
    root: Root = Path("/"),
    *,
    backup: Annotated[bool, typer.Option(help="Make a backup before.")] = True,
) -> None:
    """Run a new release in place of the service's: back up, start, check the books, and return to the old one if it does not do."""
    from cli.server.machine import Machine
    from cli.server.upgrade import upgrade as replace

    replace(Machine(root.absolute()), release, typer.echo, backup=backup)
