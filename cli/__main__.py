"""The commands of `pmp`. Each imports its modules when it is called, so that the supervisor starts quickly and stays small."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from pmp_mesh_client.tokens import Scope

from cli.arguments import DATA, AsJson, Data, DatabaseUrl, RedisUrl, Service
from cli.backup_commands import backup, restore
from cli.commands import Commands
from cli.credentials import Format
from cli.dead_letter_commands import letters
from cli.destination_commands import destinations
from cli.figure_commands import export, export_days, reports
from cli.importing.commands import imports
from cli.key_commands import keys
from cli.layout import Processes
from cli.operation_commands import doctor, trace
from cli.reconcile_commands import reconciliations
from cli.server.commands import service, upgrade

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they hold secrets
    help="Runs the whole mesh on this machine and manages a running one.",
)
app.add_typer(letters, name="dead-letters")
rates = typer.Typer(no_args_is_help=True, help="Manage the exchange rates.")
app.add_typer(rates, name="rates")
audit = typer.Typer(no_args_is_help=True, help="Check the proof of what was done with people's data.")
app.add_typer(audit, name="audit")
app.add_typer(reports, name="report")
app.add_typer(destinations, name="destinations")
app.add_typer(reconciliations, name="reconcile")
app.command()(export)
app.command()(export_days)
app.add_typer(service, name="service")
app.command()(upgrade)
app.command()(backup)
app.command()(restore)
app.add_typer(imports, name="import")
connections = typer.Typer(no_args_is_help=True, help="Connect other systems to the mesh.")
app.add_typer(connections, name="connect")
app.add_typer(keys, name="keys")
app.command()(trace)
app.command()(doctor)


@app.command()
def up(
    port: Annotated[int, typer.Option(envvar="PMP_PORT", min=1, max=65535, help="Port of the gateway.")] = 8080,
    data: Data = DATA,
    host: Annotated[str, typer.Option(envvar="PMP_HOST", help="Address the gateway listens on; 0.0.0.0 for all.")] = "127.0.0.1",
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    *,
    processes: Annotated[
        Processes, typer.Option(help="Intake, worker and all other services in three processes, or each in its own.")
    ] = Processes.SHARED,
    traces: Annotated[
        bool, typer.Option("--traces", help="Keep the newest spans in the folder, for `pmp trace`. It costs performance.")
    ] = False,
) -> None:
    """Run the whole mesh until Ctrl-C; a second Ctrl-C stops it at once."""
    from cli.addresses import checked_database_url, checked_host, checked_redis_url
    from cli.folder import DataFolder
    from cli.plan import Options
    from cli.supervisor import run_mesh

    folder = DataFolder(data)
    url = checked_database_url(database_url) if database_url else folder.database_url()
    redis = checked_redis_url(redis_url) if redis_url else None
    asyncio.run(run_mesh(Options(checked_host(host), port, url, redis, processes, traces), folder))


@app.command()
def status(data: Data = DATA, *, json: AsJson = False) -> None:
    """Show processes, disk and paused destinations, or in a pod the services; exit 0 when all are ready and the disk has enough space."""
    from rich.console import Console

    from cli.folder import DataFolder
    from cli.pod import ask_services, pod_settings
    from cli.status import ask_all, print_status

    pod = pod_settings(folder := DataFolder(data))
    answer = asyncio.run(ask_services(pod) if pod else ask_all(folder))
    if json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        print_status(Console(), answer)
    raise typer.Exit(0 if answer.ready else 1)


@app.command()
def credentials(
    scope: Annotated[Scope, typer.Option(help="What the token allows.")] = Scope.SITE,
    user: Annotated[str | None, typer.Option(help="The user of the token.")] = None,
    form: Annotated[Format, typer.Option("--format", help="Shell exports for eval, lines for curl -H @file, or JSON.")] = Format.ENV,
    data: Data = DATA,
) -> None:
    """Print an API key and a token of one hour for the running mesh, or for the one that PMP_URL, PMP_API_KEYS and PMP_JWT_SECRETS name."""
    from cli.credentials import checked_user
    from cli.credentials import credentials as make
    from cli.folder import DataFolder

    typer.echo(make(DataFolder(data), scope, checked_user(user)).render(form))


@app.command("open")
def open_dashboard(
    data: Data = DATA,
    *,
    browser: Annotated[bool, typer.Option(help="Open the link in this machine's browser, if it has a desktop.")] = True,
) -> None:
    """Print a link to the dashboard that signs one browser in, once, within 5 minutes; a session lasts a day."""
    from cli.browser import open_in_browser
    from cli.folder import DataFolder
    from cli.sign_in import sign_in_link

    typer.echo(link := asyncio.run(sign_in_link(DataFolder(data))))
    if browser:
        open_in_browser(link)


@connections.command("wordpress")
def connect_wordpress(
    url: Annotated[
        str, typer.Option(help="Address at which WordPress reaches the gateway, such as https://mesh.example. Default: this mesh's.")
    ] = "",
    data: Data = DATA,
) -> None:
    """Print a code that connects a WordPress site with the plugin, once, within 10 minutes: paste it in Settings > PMP Analytics."""
    from cli.connection import connection_code
    from cli.folder import DataFolder

    typer.echo(asyncio.run(connection_code(DataFolder(data), url)))


@app.command()
def books(
    data: Data = DATA,
    *,
    json: AsJson = False,
    lost: Annotated[bool, typer.Option("--lost", help="Show the senders of lost events, so that they can send them again.")] = False,
) -> None:
    """Show the books of the events: what was received and its outcome; exit 1 when they do not balance."""
    from rich.console import Console

    from cli.books import fetch_books, print_books, print_lost
    from cli.credentials import credentials as make
    from cli.folder import DataFolder
    from cli.pod import ask_for_books, pod_settings

    pod = pod_settings(folder := DataFolder(data))
    answer = asyncio.run(ask_for_books(pod) if pod else fetch_books(make(folder, Scope.READ)))
    if json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        (print_lost if lost else print_books)(Console(), answer)
    raise typer.Exit(0 if answer.balanced else 1)


@app.command()
def migrate(
    service: Annotated[str | None, typer.Argument(help="One service. Default: all of them.")] = None,
    data: Data = DATA,
    database_url: DatabaseUrl = None,
) -> None:
    """Migrate the databases to their newest version."""
    from cli.databases import find_database_url
    from cli.folder import DataFolder
    from cli.migrations import migrate_databases

    folder = DataFolder(data)
    if not database_url:
        folder.create()
    for name in migrate_databases(service, find_database_url(folder, database_url)):
        typer.echo(f"{name}: newest version")


@app.command()
def demo(
    events: Annotated[int | None, typer.Option(min=1, help="Send only this many events.")] = None,
    data: Data = DATA,
) -> None:
    """Send a real shop's clickstream through the running gateway and compare the books with it."""
    from rich.console import Console

    from cli.demo import demo as send
    from cli.folder import DataFolder

    asyncio.run(send(DataFolder(data), events, Console()))


@app.command()
def replay(
    service: Service,
    topic: Annotated[str | None, typer.Option(help="One topic. Default: all that the service consumes.")] = None,
    data: Data = DATA,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a service read what other services have published from the beginning."""
    from cli.databases import find_database_url
    from cli.folder import DataFolder
    from cli.replay import replay as rewind

    for name in asyncio.run(rewind(service, find_database_url(DataFolder(data), database_url), topic)):
        typer.echo(f"{service} reads {name} from its beginning")


@audit.command("verify")
def verify_audit(data: Data = DATA, database_url: DatabaseUrl = None) -> None:
    """Check the audit log and the receipts of erasures against each other; exit 1 when anything was changed or is missing."""
    from cli.audit import verify
    from cli.databases import find_database_url
    from cli.folder import DataFolder
    from cli.local_secrets import vault_key

    folder = DataFolder(data)
    count, faults = asyncio.run(verify(find_database_url(folder, database_url), vault_key(folder)))
    for fault in faults:
        typer.echo(fault)
    typer.echo(f"{count} entries, {len(faults)} faults")
    raise typer.Exit(1 if faults else 0)


@rates.command("import")
def import_rates(
    source: Annotated[
        str,
        typer.Argument(
            envvar="PMP_SITE_RATES_URL",
            help="eurofxref-hist.csv of the European Central Bank, or the zip file it comes in: a file or its URL.",
        ),
    ],
    data: Data = DATA,
    database_url: DatabaseUrl = None,
) -> None:
    """Import exchange rates, and convert the paid orders that had none. A malformed file imports nothing."""
    from rich.console import Console

    from cli.databases import find_database_url
    from cli.folder import DataFolder
    from cli.rates import import_rates as load

    asyncio.run(load(source, find_database_url(DataFolder(data), database_url), Console()))


if __name__ == "__main__":
    app()
