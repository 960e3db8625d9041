"""`pmp rates`: exchange rates for the figures in the shop's base currency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy.ext.asyncio import AsyncSession

from cli.databases import service_sessions
from cli.errors import CommandFailed
from kit.database import READING, Sessions, transact
from kit.outbox import StateTopic
from services.purchases.exchange import MalformedRates, Quote, read_rates
from services.purchases.messages import TOPIC, changed_message
from services.purchases.repository import Purchases, Rates

SOURCE = "ECB"
"""Where the rates come from, as the table says it."""
CHUNK = 5_000
"""Rates that are written in one transaction: the service goes on between two."""
BATCH = 200
"""Orders that are priced in one transaction."""


@dataclass
class Priced:
    """What became of paid orders that had no rate."""

    priced: int = 0
    without: int = 0
    """There is still no rate for the day of the order."""


def read_file(path: Path) -> list[Quote]:
    """The rates in a file of the European Central Bank, as CSV or zipped.

    Raises:
        CommandFailed: the file can't be read, or something is wrong with it.
    """
    try:
        return read_rates(path.read_bytes())
    except OSError as error:
        raise CommandFailed(f"{path} can't be read: {error.strerror}") from error
    except MalformedRates as error:
        raise CommandFailed(f"{path} is no file of exchange rates, nothing was loaded: {error}") from error


async def import_rates(path: Path, url: str, console: Console) -> None:
    """Loads a file of rates and prices the paid orders that had none.

    Raises:
        CommandFailed: the file is malformed, in which case nothing is loaded, or the database refuses.
    """
    quotes = read_file(path)
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with service_sessions(TOPIC, url) as sessions:
        with Progress(*columns, console=console) as progress:
            await _store(sessions, quotes, progress)
            outcome = await _price(sessions, progress)
    first, last = min(quote.day for quote in quotes), max(quote.day for quote in quotes)
    console.print(f"{len(quotes):,} rates from {first} to {last}; {outcome.priced:,} orders that had none are priced.")
    if outcome.without:
        console.print(f"{outcome.without:,} paid orders still have no rate: their day or their currency is not in the file.")


async def _store(sessions: Sessions, quotes: Sequence[Quote], progress: Progress) -> None:
    task = progress.add_task("rates", total=len(quotes))
    for start in range(0, len(quotes), CHUNK):
        chunk = quotes[start : start + CHUNK]

        async def work(session: AsyncSession, chunk: Sequence[Quote] = chunk) -> None:
            await Rates(session).store(chunk, SOURCE)

        await transact(sessions, work)
        progress.advance(task, len(chunk))


async def _price(sessions: Sessions, progress: Progress) -> Priced:
    """Gives each order without a rate the one of its day, and publishes it: the service's relay brings it to the topic."""
    async with sessions() as session:
        await session.connection(execution_options=READING)
        count, partitions = await Purchases(session).count_unpriced(), await Purchases(session).partitions()
    task = progress.add_task("orders", total=count)
    outcome, topic, after = Priced(), StateTopic(TOPIC, partitions or 1), ""
    while True:

        async def work(session: AsyncSession, after: str = after) -> tuple[int, int, str]:
            orders = await Purchases(session).unpriced(after, BATCH)
            priced: list[tuple[str, Message]] = []
            for order in orders:
                row = order.row
                rate = await Rates(session).rate(row.timestamp.date(), row.currency, row.base_currency)
                if rate is not None:
                    order.price(rate)
                    row.updated_at = datetime.now(UTC)
                    priced.append((row.id, changed_message(row, order.lines, order.entries)))
            await session.flush()
            await topic.tell(session, priced)
            return len(priced), len(orders), orders[-1].row.id if orders else ""

        priced, seen, after = await transact(sessions, work)
        if not seen:
            return outcome
        outcome.priced += priced
        outcome.without += seen - priced
        progress.advance(task, seen)
