"""The books of ingestion, as the gateway returns them: what was received and its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.calls import call, connect
from cli.credentials import Credentials
from cli.errors import CommandFailed

ACCOUNTING = "/api/v1/events/accounting"
"""The books' path at the gateway."""
_RARE = ("recovered", "missing")
PATIENCE_SECONDS = 10.0
"""How long the request is retried while the gateway is busy or down."""


class Account(BaseModel):
    """Counts of events. In JSON they are strings, as protobuf writes 64-bit numbers."""

    model_config = ConfigDict(frozen=True)

    received: int
    stored: int
    duplicate: int
    rejected: int
    dead_lettered: int
    suppressed: int
    recovered: int
    pending: int
    missing: int

    def __sub__(self, before: Account) -> Account:
        """The counts added since `before`."""
        return Account(**{name: getattr(self, name) - getattr(before, name) for name in Account.model_fields})

    @property
    def accounted(self) -> int:
        """Events with a known outcome, or pending."""
        return self.received - self.missing


class HourlyAccount(BaseModel):
    """The account of one hour."""

    hour: datetime
    """Start of the hour in which the events were received, UTC."""
    account: Account
    """Its account."""


class LostEvents(BaseModel):
    """Events of one sender that the log lost, received in one period."""

    client: str
    """Name of the API key's owner."""
    scope: str
    """Scope of the sender's token."""
    first: datetime = Field(alias="from")
    """When the first was received."""
    last: datetime = Field(alias="to")
    """When the last was received."""
    count: int
    """Number of events."""
    event_ids: list[str]
    """Their ids, at most a thousand."""


class Books(BaseModel):
    """The books."""

    total: Account
    """Sum of the hours."""
    hours: list[HourlyAccount]
    """One account for each hour in which events were received."""
    balanced: bool
    """True when every hour accounts for all it received."""
    lost: list[LostEvents]
    """Events to send again."""


async def fetch_books(credentials: Credentials) -> Books:
    """`read_books` over its own connection."""
    async with connect() as client:
        return await read_books(client, credentials)


async def read_books(client: httpx.AsyncClient, credentials: Credentials) -> Books:
    """Requests the books from the gateway; the credentials' scope is `read` or `admin`.

    Raises:
        CommandFailed: there is no answer, or it does not contain the books.
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
    """Prints the hours, the total, and whether every event is accounted for."""
    accounts = [*(hour.account for hour in books.hours), books.total]
    names = [f"{hour.hour:%Y-%m-%d %H:%M}" for hour in books.hours]
    console.print(account_table(accounts, "hour", [*names, "total"]))
    if books.balanced:
        console.print("[green]balanced[/]: every received event is accounted for")
        return
    console.print("[red]not balanced[/]: the log lost events that it had confirmed; `pmp books --lost` lists their senders")


def print_lost(console: Console, books: Books) -> None:
    """Prints the senders of lost events."""
    table = Table("sender", "scope", "received from", "to", "events", box=SIMPLE, padding=0, pad_edge=False, show_edge=False)
    for lost in books.lost:
        table.add_row(lost.client, lost.scope, f"{lost.first:%Y-%m-%d %H:%M:%S}", f"{lost.last:%Y-%m-%d %H:%M:%S}", f"{lost.count:,}")
    if books.lost:
        console.print(table)
    missing, named = books.total.missing, sum(lost.count for lost in books.lost)
    if missing > named:
        console.print(f"{missing - named:,} more are missing whose senders are unknown, or not known yet: see the hours in `pmp books`.")
    elif not missing:
        console.print("Nothing is missing.")


def account_table(accounts: Sequence[Account], column: str = "", rows: Sequence[str] = (), *, title: str | None = None) -> Table:
    """A table of accounts with one column per count. It fits a terminal of 80 columns unless events were lost.

    Args:
        accounts: one per row.
        title: title of the table.
        column: header of the rows' names.
        rows: names of the rows, if they have any.
    """
    table = Table(title=title, box=SIMPLE, padding=0, pad_edge=False, show_edge=False)
    if rows:
        table.add_column(column, no_wrap=True)
    names = [name for name in Account.model_fields if name not in _RARE or any(getattr(account, name) for account in accounts)]
    for name in names:
        table.add_column(name.replace("_", "\n"), justify="right")
    for number, account in enumerate(accounts):
        table.add_row(*rows[number : number + 1], *(f"{getattr(account, name):,}" for name in names))
    return table
