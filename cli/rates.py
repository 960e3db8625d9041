"""`pmp rates`: exchange rates for the figures in the shop's base currency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.databases import service_sessions
from cli.errors import CommandFailed
from services.purchases.exchange import MalformedRatesError, Quote, read_rates
from services.purchases.messages import TOPIC
from services.purchases.pricing import UnpricedOrder, count_unpriced, price_orders, store_rates

SOURCE = "file"
"""The source of the rates, as the table records it."""
SHOWN = 20
"""Orders without a rate that are listed."""
FETCH_SECONDS = 60.0
"""The longest wait for a part of a response."""
LARGEST_BYTES = 64 * 2**20
"""The largest size of a file of exchange rates."""


def read_source(source: str | Path) -> list[Quote]:
    """The rates in a file, as CSV or zipped, on this machine or at a URL.

    Raises:
        CommandFailed: the file can't be read, or is malformed.
    """
    try:
        return read_rates(_fetch(str(source)) if str(source).startswith(("https://", "http://")) else Path(source).read_bytes())
    except (OSError, httpx.HTTPError) as error:
        raise CommandFailed(f"{source} can't be read: {error}") from error
    except MalformedRatesError as error:
        raise CommandFailed(f"{source} is no file of exchange rates, nothing was loaded: {error}") from error


def _fetch(url: str) -> bytes:
    """The content at a URL. The history of all rates is a tenth of the largest size.

    Raises:
        httpx.HTTPError: there is no response, an error, or a larger one.
    """
    content = bytearray()
    with httpx.stream("GET", url, timeout=FETCH_SECONDS, follow_redirects=True) as response:
        response.raise_for_status()
        for part in response.iter_bytes():
            content += part
            if len(content) > LARGEST_BYTES:
                raise httpx.DecodingError(f"it is larger than {LARGEST_BYTES // 2**20} MiB")
    return bytes(content)


async def import_rates(source: str | Path, url: str, console: Console) -> None:
    """Loads rates from a file or URL, and prices the paid orders that had none.

    Raises:
        CommandFailed: the file is malformed, in which case nothing is loaded, or the database refuses.
    """
    quotes = read_source(source)
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    priced, unpriced = 0, list[UnpricedOrder]()
    async with service_sessions(TOPIC, url) as sessions:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("rates", total=len(quotes))
            async for stored in store_rates(sessions, quotes, SOURCE):
                progress.advance(task, stored)
            task = progress.add_task("orders", total=await count_unpriced(sessions))
            async for batch in price_orders(sessions):
                priced += batch.priced
                unpriced += batch.unpriced
                progress.advance(task, batch.priced + len(batch.unpriced))
    first, last = min(quote.day for quote in quotes), max(quote.day for quote in quotes)
    console.print(f"{len(quotes):,} rates from {first} to {last}; {priced:,} orders that had none are priced.")
    if unpriced:
        _print_unpriced(unpriced, console)


def _print_unpriced(orders: Sequence[UnpricedOrder], console: Console) -> None:
    console.print(f"{len(orders):,} paid orders still have no rate: their day or their currency is not in the file.")
    for order in orders[:SHOWN]:
        console.print(f"  order {order.order_id} of {order.day} in {order.currency}", highlight=False, markup=False)
    if len(orders) > SHOWN:
        console.print(f"  and {len(orders) - SHOWN:,} more, in {', '.join(sorted({order.currency for order in orders}))}")
