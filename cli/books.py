"""The books of ingestion, as the gateway tells them: what was received and what became of it."""

from __future__ import annotations

from datetime import datetime

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.calls import call, connect
from cli.credentials import Credentials
from cli.errors import CommandFailed

ACCOUNTING = "/api/v1/events/accounting"
"""The books' path at the gateway."""
PATIENCE_SECONDS = 10.0
"""How long the gateway is asked again while it is busy or down."""


class Account(BaseModel):
    """Counts of events. JSON has them as strings, as protobuf writes 64-bit numbers."""

    model_config = ConfigDict(frozen=True)

    received: int
    stored: int
    duplicate: int
    rejected: int
    dead_lettered: int
    suppressed: int
    pending: int

    def __sub__(self, before: Account) -> Account:
        """What was added since."""
        return Account(**{name: getattr(self, name) - getattr(before, name) for name in Account.model_fields})

    @property
    def accounted(self) -> int:
        """The events of which it is known what became of them, or that they wait."""
        return self.stored + self.duplicate + self.rejected + self.dead_lettered + self.suppressed + self.pending


class HourlyAccount(BaseModel):
    """The account of one hour."""

    hour: datetime
    """Beginning of the hour in which the events were received, UTC."""
    account: Account
    """Its account."""


class Books(BaseModel):
    """The books."""

    total: Account
    """Sum of the hours."""
    hours: list[HourlyAccount]
    """One account for each hour in which events were received."""
    balanced: bool
    """True when every hour accounts for all it received."""


async def fetch_books(credentials: Credentials) -> Books:
    """`read_books` over a connection of its own."""
    async with connect() as client:
        return await read_books(client, credentials)


async def read_books(client: httpx.AsyncClient, credentials: Credentials) -> Books:
    """Asks the gateway for the books; the credentials' scope is `read` or `admin`.

    Raises:
        CommandFailed: no answer, or another one than the books.
    """
    answer = await call(client, credentials, ACCOUNTING, patience=PATIENCE_SECONDS)
    if answer.response.is_error:
        message = f"the gateway refused to show the books: {answer.response.status_code} {answer.response.text.strip()}"
        raise CommandFailed(message)
    try:
        return Books.model_validate_json(answer.response.content)
    except ValidationError as error:
        message = f"{credentials.url} answered, but not with books: is it the gateway of a mesh?"
        raise CommandFailed(message) from error


def print_books(console: Console, books: Books) -> None:
    """Prints the hours, the total, and whether all is accounted for."""
    table = account_table("hour")
    for hour in books.hours:
        table.add_row(f"{hour.hour:%Y-%m-%d %H:%M}", *cells(hour.account))
    table.add_row("total", *cells(books.total), style="bold")
    console.print(table)
    console.print("[green]balanced[/]: every received event is accounted for" if books.balanced else "[red]not balanced[/]")


def account_table(*before: str, title: str | None = None) -> Table:
    """A table of accounts, a column for each count, that fits a terminal of 80 columns."""
    table = Table(title=title, box=SIMPLE, padding=0, pad_edge=False, show_edge=False)
    for name in before:
        table.add_column(name, no_wrap=True)
    for name in Account.model_fields:
        table.add_column(name.replace("_", "\n"), justify="right")
    return table


def cells(account: Account) -> list[str]:
    """The counts as cells of a table."""
    return [f"{getattr(account, name):,}" for name in Account.model_fields]
