"""Exchange rates: units of a currency for one euro, by day, as read from files. Pure."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext
from typing import Final

from services.purchases.money import PAR, Rate

ANCHOR: Final = "EUR"
"""The currency that all rates are quoted against; it is not in the file itself."""

OLDEST: Final = timedelta(days=7)
"""The largest age of the rates that a day without rates, such as a holiday, takes from the last day before it that has some."""

SCALE: Final = 12
"""Decimal places of a stored quote; the bank gives six at most."""

_CODE: Final = re.compile(r"[A-Z]{3}")
_COLUMNS: Final = frozenset({"date", "currency", "rate"})
_DELIMITERS: Final = (",", ";", "\t")
_MISSING: Final = frozenset({"N/A", ""})
_LARGEST_FILE: Final = 64 * 1024 * 1024
_LARGEST_RATE: Final = Decimal(10) ** 11


class MalformedRatesError(Exception):
    """The file is not a file of rates; `str()` says where and why."""


@dataclass(frozen=True, slots=True)
class Quote:
    """Units of a currency for one euro on a day."""

    day: date
    currency: str
    units: Decimal


def by_day(quotes: Iterable[Quote]) -> Mapping[date, Mapping[str, Decimal]]:
    """Units of currencies for one euro, by day and code."""
    days: dict[date, dict[str, Decimal]] = {}
    for quote in quotes:
        days.setdefault(quote.day, {ANCHOR: Decimal(1)})[quote.currency] = quote.units
    return days


def rate_on(day: date, currency: str, base: str, days: Mapping[date, Mapping[str, Decimal]]) -> Rate | None:
    """The rate of a currency in the base currency: of the last day that has both, the day itself or at most a week before it."""
    if currency == base:
        return PAR
    for known in (day - timedelta(days=age) for age in range(OLDEST.days + 1)):
        units = days.get(known, {})
        if currency in units and base in units:
            return Rate(units[currency], units[base])
    return None


def read_rates(content: bytes) -> list[Quote]:
    """The rates of a file, or of the zip archive in which it comes.

    The file is ECB's history, `eurofxref-hist.csv`, with a line for each day and a column for each currency; or any CSV with a
    line for each rate, and at least the columns `date`, `currency` and `rate`. A rate is units of the currency for one euro, or
    for one unit of the currency in a column `base`; then the file also has the euro's rate of each day.

    Raises:
        MalformedRatesError: the file is neither. A file is read as a whole or not at all.
    """
    try:
        text = _unzipped(content).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MalformedRatesError("the file is not text in UTF-8") from None
    header = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    columns = {name.strip().lower(): index for index, name in reversed(list(enumerate(rows[0] if rows else [])))}
    if columns.keys() >= _COLUMNS:
        return _listed(rows[1:], columns)
    if not rows or not rows[0] or rows[0][0].strip() != "Date":
        raise MalformedRatesError("line 1: the header does not begin with Date, nor has it the columns date, currency and rate")
    currencies = _currencies(rows[0])
    seen: set[date] = set()
    quotes: list[Quote] = []
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        day = _day(line, row[0])
        if day in seen:
            raise MalformedRatesError(f"line {line}: {day} is there twice")
        seen.add(day)
        quotes.extend(_quotes(line, day, currencies, row))
    if not quotes:
        raise MalformedRatesError("the file has no rates")
    return quotes


def _listed(rows: Sequence[Sequence[str]], columns: Mapping[str, int]) -> list[Quote]:
    """The rates of a file with a line for each rate."""
    units_by_day: dict[tuple[date, str], dict[str, Decimal]] = {}
    for line, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        cells = {name: row[index].strip() if index < len(row) else "" for name, index in columns.items()}
        day, currency, base = _day(line, cells["date"][:10]), _code(line, cells["currency"]), _code(line, cells.get("base", "") or ANCHOR)
        units = units_by_day.setdefault((day, base), {base: Decimal(1)})
        if currency in units and currency != base:
            raise MalformedRatesError(f"line {line}: {currency} of {day} is there twice")
        if cells["rate"] not in _MISSING:
            units[currency] = _units(line, currency, cells["rate"])
    quotes = [quote for (day, base), units in units_by_day.items() for quote in _anchored(day, base, units)]
    if not quotes:
        raise MalformedRatesError("the file has no rates")
    return quotes


def _anchored(day: date, base: str, units: Mapping[str, Decimal]) -> Iterator[Quote]:
    """The rates of a day, converted to one euro."""
    if ANCHOR not in units:
        raise MalformedRatesError(f"{day} has no rate of {ANCHOR} for one {base}, by which all are compared")
    for currency, amount in units.items():
        if currency != ANCHOR:
            yield Quote(day, currency, amount if base == ANCHOR else _rounded(amount / units[ANCHOR]))


def _code(line: int, cell: str) -> str:
    code = cell.upper()
    if not _CODE.fullmatch(code):
        raise MalformedRatesError(f"line {line}: {cell!r} is no code of a currency")
    return code


def _unzipped(content: bytes) -> bytes:
    if not content.startswith(b"PK"):
        return content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".csv")]
            if archive.getinfo(name).file_size > _LARGEST_FILE:
                raise MalformedRatesError(f"{name} is larger than {_LARGEST_FILE >> 20} MiB")
            return archive.read(name)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError):
        raise MalformedRatesError("the archive is broken, or does not hold one CSV file") from None


def _currencies(header: Sequence[str]) -> list[str]:
    """The header's codes; ECB ends its lines with a comma."""
    codes = [code.strip() for code in header[1:]]
    if codes and not codes[-1]:
        codes.pop()
    for code in codes:
        if not _CODE.fullmatch(code):
            raise MalformedRatesError(f"line 1: {code!r} is no code of a currency")
    if not codes or len(set(codes)) < len(codes):
        raise MalformedRatesError("line 1: there are no currencies, or one is there twice")
    return codes


def _day(line: int, cell: str) -> date:
    try:
        return date.fromisoformat(cell.strip())
    except ValueError:
        raise MalformedRatesError(f"line {line}: {cell!r} is no day such as 2026-11-20") from None


def _quotes(line: int, day: date, currencies: Sequence[str], row: Sequence[str]) -> Iterator[Quote]:
    cells = [cell.strip() for cell in row[1:]]
    if cells and len(cells) == len(currencies) + 1 and not cells[-1]:
        cells.pop()
    if len(cells) != len(currencies):
        raise MalformedRatesError(f"line {line}: {len(cells)} rates for {len(currencies)} currencies")
    for currency, cell in zip(currencies, cells, strict=True):
        if cell not in _MISSING:
            yield Quote(day, currency, _units(line, currency, cell))


def _units(line: int, currency: str, cell: str) -> Decimal:
    try:
        units = Decimal(cell)
    except InvalidOperation:
        raise MalformedRatesError(f"line {line}: {cell!r} is no rate of {currency}") from None
    if not (units.is_finite() and 0 < units < _LARGEST_RATE and units == _rounded(units)):
        raise MalformedRatesError(f"line {line}: {cell!r} is no rate of {currency}")
    return units


def _rounded(rate: Decimal) -> Decimal:
    with localcontext(prec=60):
        return rate.quantize(Decimal(1).scaleb(-SCALE), ROUND_HALF_EVEN)
