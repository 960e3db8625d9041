"""`pmp rates`: exchange rates for the figures in the shop's base currency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy.ext.asyncio import AsyncSession

from cli.databases import service_sessions
from cli.errors import CommandFailed
from kit.database.transactions import Sessions, transact
from kit.log.publish.state_topic import StateTopic
from services.purchases.exchange import MalformedRates, Quote, read_rates
from services.purchases.messages import TOPIC, changed_message
from services.purchases.models import PurchaseRow
from services.purchases.repository import Purchases, Rates

SOURCE = "file"
"""Where the rates come from, as the table says it."""
SHOWN = 20
"""Orders without a rate that are named."""
CHUNK = 5_000
"""Rates that are written in one transaction: the service goes on between two."""
FETCH_SECONDS = 60.0
"""Longest wait for a part of an answer."""
LARGEST_BYTES = 64 * 2**20
"""What is larger is no file of exchange rates."""
BATCH = 200
"""Orders that are priced in one transaction."""


@dataclass
class Priced:
    """What became of paid orders that had no rate."""

    priced: int = 0
    without: list[PurchaseRow] = field(default_factory=list[PurchaseRow])
    """There is still no rate for the day of these."""


def read_source(source: str | Path) -> list[Quote]:
    """The rates in a file, as CSV or zipped, on this machine or behind a URL.

    Raises:
        CommandFailed: the file can't be read, or something is wrong with it.
    """
    try:
        return read_rates(_fetch(str(source)) if str(source).startswith(("https://", "http://")) else Path(source).read_bytes())
    except (OSError, httpx.HTTPError) as error:
        raise CommandFailed(f"{source} can't be read: {error}") from error
    except MalformedRates as error:
        raise CommandFailed(f"{source} is no file of exchange rates, nothing was loaded: {error}") from error


def _fetch(url: str) -> bytes:
    """What a URL answers, of which the history of all rates is a tenth.

    Raises:
        httpx.HTTPError: nothing, an error, or more than that.
    """
    content = bytearray()
    with httpx.stream("GET", url, timeout=FETCH_SECONDS, follow_redirects=True) as answer:
        answer.raise_for_status()
        for part in answer.iter_bytes():
            content += part
            if len(content) > LARGEST_BYTES:
                raise httpx.DecodingError(f"it is larger than {LARGEST_BYTES // 2**20} MiB")
    return bytes(content)


async def import_rates(source: str | Path, url: str, console: Console) -> None:
    """Loads a file of rates, or what a URL answers, and prices the paid orders that had none.

    Raises:
        CommandFailed: the file is malformed, in which case nothing is loaded, or the database refuses.
    """
    quotes = read_source(source)
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with service_sessions(TOPIC, url) as sessions:
        with Progress(*columns, console=console) as progress:
            await _store(sessions, quotes, progress)
            outcome = await _price(sessions, progress)
    first, last = min(quote.day for quote in quotes), max(quote.day for quote in quotes)
    console.print(f"{len(quotes):,} rates from {first} to {last}; {outcome.priced:,} orders that had none are priced.")
    if outcome.without:
        console.print(f"{len(outcome.without):,} paid orders still have no rate: their day or their currency is not in the file.")
        for row in outcome.without[:SHOWN]:
            console.print(f"  order {row.order_id} of {_day(row)} in {row.currency}", highlight=False, markup=False)
        if len(outcome.without) > SHOWN:
            console.print(f"  and {len(outcome.without) - SHOWN:,} more, in {', '.join(sorted({row.currency for row in outcome.without}))}")


def _day(row: PurchaseRow) -> date:
    """The day whose rate an order has."""
    return row.ordered_on or row.timestamp.date()


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
    async with sessions.reading() as session:
        count, partitions = await Purchases(session).count_unpriced(), await Purchases(session).partitions()
    task = progress.add_task("orders", total=count)
    outcome, topic, after = Priced(), StateTopic(TOPIC, partitions or 1), ""
    while True:

        async def work(session: AsyncSession, after: str = after) -> tuple[int, list[PurchaseRow], str]:
            orders = await Purchases(session).unpriced(after, BATCH)
            rates = await Rates(session).rates([(_day(row), row.currency, row.base_currency) for row in (order.row for order in orders)])
            priced: list[tuple[str, Message]] = []
            without: list[PurchaseRow] = []
            for order, rate in zip(orders, rates, strict=True):
                row = order.row
                if rate is None:
                    without.append(row)
                else:
                    order.price(rate)
                    row.updated_at = datetime.now(UTC)
                    priced.append((row.id, changed_message(row, order.lines, order.entries)))
            await session.flush()
            await topic.publish(session, priced)
            return len(priced), without, orders[-1].row.id if orders else ""

        priced, without, after = await transact(sessions, work)
        if not after:
            return outcome
        outcome.priced += priced
        outcome.without += without
        progress.advance(task, priced + len(without))
