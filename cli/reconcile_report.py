"""The outcome of `pmp reconcile`, as a table and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.errors import CommandFailed
from cli.reconcile import Found, Outcome

COLUMNS: Final = ("order", "difference", "field", "shop", "ledger", "outcome", "reason")
"""Columns of the file, with a line for each field of an order; the table has a line for each order."""
_SHOWN: Final = 50
"""Orders in the table; the file has all of them."""


def print_outcome(console: Console, outcome: Outcome, period: str) -> None:
    """Prints what differed, and whether the ledger agrees with the shop."""
    if outcome.found:
        table = Table("order", "difference", "shop", "ledger", "outcome", box=SIMPLE)
        for each in outcome.found[:_SHOWN]:
            of = each.difference
            shop, ledger = (_text(dict(zip(of.values, side, strict=True))) for side in zip(*of.values.values(), strict=True))
            table.add_row(of.order_id, of.kind, shop, ledger, f"{_outcome(each)} {each.reason}".rstrip())
        console.print(table)
        if len(outcome.found) > _SHOWN:
            console.print(f"and {len(outcome.found) - _SHOWN:,} more orders, which --csv FILE would contain")
    healed = len(outcome.found) - outcome.left
    compared = f"{outcome.orders:,} orders of {period} compared: "
    if outcome.left:
        console.print(f"{compared}{outcome.left:,} differ from the shop's, {healed:,} were corrected.", highlight=False, soft_wrap=True)
    else:
        corrected = f" {healed:,} orders were corrected." if healed else ""
        console.print(f"{compared}the ledger agrees with the shop.{corrected}", highlight=False, soft_wrap=True)


def write_csv(file: Path, outcome: Outcome) -> None:
    """Writes what differed: a line for each field of an order.

    Raises:
        CommandFailed: the file can't be written.
    """
    try:
        with file.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            writer.writerow(COLUMNS)
            writer.writerows(row for each in outcome.found for row in _rows(each))
    except OSError as error:
        raise CommandFailed(f"{file} can't be written: {error.strerror or error}") from error


def _rows(found: Found) -> Iterator[tuple[str, ...]]:
    for name, (shop, ledger) in found.difference.values.items():
        yield found.difference.order_id, found.difference.kind, name, shop, ledger, _outcome(found), found.reason


def _outcome(found: Found) -> str:
    return "left" if found.left else "corrected"


def _text(values: Mapping[str, str]) -> str:
    """What one side has of an order, in a line."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value) or "none"
