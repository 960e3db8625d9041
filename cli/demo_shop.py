"""The shop's part of `pmp demo`: registers users, tracks orders, and shows funnel and attribution."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.calls import call
from cli.clickstream import PRICE, Event, Row, funnel, purchases, registrations, timestamp
from cli.credentials import Credentials
from cli.errors import CommandFailed
from cli.sending import PATIENCE_SECONDS, send_all

STEPS: Final = ("page_view", "product_view", "add_to_cart", "purchase")
"""The funnel that is shown."""
MODELS: Final = ("first_touch", "last_non_direct", "linear", "time_decay", "markov")
"""The attribution models that are shown, side by side."""
_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Figures:
    """The mesh's reports on the clickstream's period."""

    funnel: list[int]
    attribution: dict[str, dict[str, Decimal]]
    """Revenue by model and source."""
    orders: int
    revenue: Decimal


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop that reports its users and orders to the mesh, and requests reports on them.

    Args:
        client: connections to the gateway.
        sender: credentials of the shop's server.
        reader: credentials for reports.
        console: console to print to.
    """

    client: httpx.AsyncClient
    sender: Credentials
    reader: Credentials
    console: Console

    async def register(self, rows: Sequence[Row]) -> None:
        """Registers the users of the rows.

        Raises:
            CommandFailed: a call was refused.
        """
        people = registrations(rows)
        created = await self._send("users/register", people, fact="created", what="users")
        self.console.print(f"{len(people):,} users, {created:,} of them new.")

    async def sell(self, rows: Sequence[Row], *, whole: bool) -> None:
        """Tracks the orders of the rows, and prints the funnel and the attribution of their period.

        Args:
            rows: the clickstream.
            whole: all rows were sent, so that the mesh's figures must match them.

        Raises:
            CommandFailed: a call was refused, or the figures do not match the rows.
        """
        orders = purchases(rows)
        repeated = await self._send("purchases/track", orders, fact="duplicate", what="orders")
        expected = funnel(rows, STEPS)
        sold = len({order["order_id"] for order in orders})
        figures = await self._complete_figures(rows, expected, sold)
        self.console.print(f"{sold:,} orders, {repeated:,} of the reports were duplicates.")
        _print_funnel(self.console, figures.funnel, expected)
        _print_attribution(self.console, figures)
        if whole and (figures.funnel, figures.orders, figures.revenue) != (expected, sold, sold * Decimal(PRICE)):
            raise CommandFailed(f"the mesh counts {figures} where the clickstream has {expected} people in the funnel and {sold:,} orders")
        if whole:
            self.console.print("[green]Funnel and revenue are those of the clickstream.[/]")

    async def _send(self, path: str, bodies: Sequence[Event], *, fact: str, what: str) -> int:
        """Sends calls; returns the number of answers in which `fact` is true."""
        held = 0

        async def send(body: Event) -> None:
            nonlocal held
            answer = await self._call(self.sender, path, body)
            held += bool(answer.get(fact, False))

        await send_all(bodies, send, what, self.console)
        return held

    async def _complete_figures(self, rows: Sequence[Row], expected: Sequence[int], sold: int) -> _Figures:
        """The figures once they include everything that was sent, or have not changed for a minute."""
        since, known = time.monotonic(), None
        with self.console.status("waiting for the journeys"):
            while True:
                figures = await self._figures(rows)
                if all(have >= want for have, want in zip([*figures.funnel, figures.orders], [*expected, sold], strict=True)):
                    return figures
                if figures != known:
                    known, since = figures, time.monotonic()
                if time.monotonic() - since > PATIENCE_SECONDS:
                    return figures
                await asyncio.sleep(_POLL_SECONDS)

    async def _figures(self, rows: Sequence[Row]) -> _Figures:
        times = sorted(timestamp(row) for row in rows)
        # The period includes the last second.
        period = {"from": times[0], "to": times[-1].replace("Z", ".999Z")}
        steps = (await self._ask("funnels", {**period, "steps": ",".join(STEPS)}))["steps"]
        answers = {model: await self._ask("attribution", {**period, "model": model}) for model in MODELS}
        one = answers[MODELS[0]]
        return _Figures(
            funnel=[int(step["people"]) for step in steps],
            attribution={
                model: {share["name"]: Decimal(str(share["amount"])) for share in answer["shares"]} for model, answer in answers.items()
            },
            orders=int(one["orders"]),
            revenue=Decimal(str(one["total"])),
        )

    async def _ask(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        return await self._call(self.reader, f"{path}?{urlencode(query)}")

    async def _call(self, credentials: Credentials, path: str, body: Event | None = None) -> dict[str, Any]:
        answer = (await call(self.client, credentials, f"/api/v1/{path}", body=body, patience=PATIENCE_SECONDS)).response
        if not answer.is_success:
            raise CommandFailed(f"{path} was refused: {answer.status_code} {answer.text.strip()[:300]}")
        return answer.json()


def _print_funnel(console: Console, counted: Sequence[int], expected: Sequence[int]) -> None:
    table = Table("step", "people", "of the step before", "in the clickstream", title="Funnel", box=SIMPLE, show_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for index, step in enumerate(STEPS):
        before = counted[index - 1] if index else counted[0]
        table.add_row(step, f"{counted[index]:,}", f"{counted[index] / before:.1%}" if before else "", f"{expected[index]:,}")
    console.print(table)


def _print_attribution(console: Console, figures: _Figures) -> None:
    title = f"What brought {figures.revenue:,.2f} USD of {figures.orders:,} orders"
    table = Table("source", *(model.replace("_", " ") for model in MODELS), title=title, box=SIMPLE, show_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    sources = sorted({source for shares in figures.attribution.values() for source in shares})
    for source in sources:
        table.add_row(source, *(f"{figures.attribution[model].get(source, Decimal(0)):,.2f}" for model in MODELS))
    console.print(table)
