"""Renders notices for the owner, as text and as HTML: pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from html import escape
from typing import Final, NamedTuple

from pmp.analytics.v1.analytics_pb2 import Figure, GetDashboardResponse, Ranked
from pmp.destinations.v1.notice_pb2 import AlarmChanged, PeriodEnded

from kit.rules import minor_unit
from kit.times import moment
from services.destinations.owner.texts import CATALOGUE, Language, Texts

_MOST: Final = 3
_COUNTED_BY_SESSIONS: Final = frozenset({"page"})
_CELL: Final = 'style="padding:4px 12px 4px 0;text-align:left"'
_NUMBER: Final = 'style="padding:4px 12px 4px 0;text-align:right"'


class Rendered(NamedTuple):
    """What the owner reads."""

    subject: str
    text: str
    html: str


class _Row(NamedTuple):
    name: str
    now: str
    before: str
    change: str


class _Summary(NamedTuple):
    period: str
    rows: Sequence[_Row]
    changes: Sequence[str]
    rankings: Sequence[tuple[str, Sequence[tuple[str, str]]]]


def summary(notice: PeriodEnded, shop: str, language: Language) -> Rendered:
    """Returns the summary of a week or month: its figures beside those of the period before, and what changed most."""
    texts, dashboard = CATALOGUE[language], notice.dashboard
    subject = (texts.week if notice.period == "week" else texts.month).format(shop=shop, name=notice.name)
    period = texts.period.format(
        first=_day(dashboard.period, "from", texts),
        last=_day(dashboard.period, "to", texts),
        zone=dashboard.timezone,
        first_before=_day(dashboard.compared, "from", texts),
        last_before=_day(dashboard.compared, "to", texts),
    )
    found = {figure.key: figure for figure in dashboard.figures}
    rows = [_row(found[key], name, texts) for key, name in texts.figures.items() if key in found]
    changes = list(_changes([found[key] for key in texts.figures if key in found], texts)) or [texts.same]
    parts = _Summary(period, rows, changes, list(_rankings(dashboard, texts)))
    return Rendered(subject, _as_text(parts, texts), _as_html(subject, parts, texts))


def alarm(notice: AlarmChanged, shop: str, language: Language) -> Rendered:
    """Returns that an alarm has begun or ended."""
    texts = CATALOGUE[language]
    name, advice = texts.alarms[AlarmChanged.Alarm.Name(notice.alarm).removeprefix("ALARM_").lower()]
    subject = (texts.ended if notice.ended else texts.began).format(shop=shop, alarm=name.format(destination=notice.destination))
    since = texts.since.format(since=moment(notice.since).strftime(texts.moment))
    text = since if notice.ended else f"{since} {advice}"
    return Rendered(subject, f"{text}\n", f"<p>{escape(text)}</p>\n")


def shown(value: float | None, unit: str, texts: Texts) -> str:
    """Returns a figure in the notation of a language: an amount with its currency, a ratio in percent."""
    if value is None:
        return texts.none
    if unit == "ratio":
        return f"{_number(Decimal(str(value)) * 100, Decimal('0.1'), texts)} %"
    if len(unit) == 3 and unit.isupper():  # noqa: PLR2004 (ISO 4217)
        return f"{_number(Decimal(str(value)), minor_unit(unit), texts)} {unit}"
    return _number(Decimal(str(value)), Decimal(1), texts)


def _number(value: Decimal, step: Decimal, texts: Texts) -> str:
    plain = f"{value.quantize(step, ROUND_HALF_UP):,f}"
    return plain.translate(str.maketrans({",": texts.thousands, ".": texts.decimal}))


def _row(figure: Figure, name: str, texts: Texts) -> _Row:
    now, before = _values(figure)
    return _Row(name, shown(now, figure.unit, texts), shown(before, figure.unit, texts), _change(now, before, texts))


def _values(figure: Figure) -> tuple[float | None, float | None]:
    return figure.value if figure.HasField("value") else None, figure.compared if figure.HasField("compared") else None


def _change(now: float | None, before: float | None, texts: Texts) -> str:
    if now is None or not before:
        return ""
    change = Decimal(str(now)) / Decimal(str(before)) * 100 - 100
    return f"{'+' if change > 0 else ''}{_number(change, Decimal(1), texts)} %"


def _changes(figures: Sequence[Figure], texts: Texts) -> Iterator[str]:
    """Yields the largest changes, in relation to the period before."""
    changed = [(now, before, figure) for figure in figures for now, before in [_values(figure)] if now is not None and before]
    ordered = sorted(changed, key=lambda each: -abs(each[0] / each[1] - 1))
    for now, before, figure in ordered[:_MOST]:
        if now != before:
            yield (texts.rose if now > before else texts.fell).format(
                name=texts.figures[figure.key],
                now=shown(now, figure.unit, texts),
                before=shown(before, figure.unit, texts),
                change=_change(now, before, texts),
            )


def _rankings(dashboard: GetDashboardResponse, texts: Texts) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    found = {ranking.dimension: ranking.rows for ranking in dashboard.rankings}
    for dimension, heading in texts.rankings.items():
        if found.get(dimension):
            yield heading, [(row.title or row.value, _of(row, dimension, dashboard.currency, texts)) for row in found[dimension]]


def _of(row: Ranked, dimension: str, currency: str, texts: Texts) -> str:
    if dimension in _COUNTED_BY_SESSIONS:
        return texts.sessions.format(count=shown(row.sessions, "", texts))
    return texts.orders.format(count=shown(row.orders, "", texts), revenue=shown(row.revenue, currency, texts))


def _as_text(parts: _Summary, texts: Texts) -> str:
    table = [_Row("", texts.now, texts.before, texts.change), *parts.rows]
    widths = [max(len(row[place]) for row in table) for place in range(4)]
    lines = [parts.period, ""]
    lines += [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}".rstrip() for row in table]
    for heading, entries in _lists(parts, texts):
        lines += ["", heading, *(f"- {entry}" for entry in entries)]
    return "\n".join(lines) + "\n"


def _as_html(subject: str, parts: _Summary, texts: Texts) -> str:
    head = "".join(f"<th {_NUMBER if name else _CELL}>{escape(name)}</th>" for name in ("", texts.now, texts.before, texts.change))
    body = "".join(
        f'<tr><th scope="row" {_CELL}>{escape(row.name)}</th>'
        + "".join(f"<td {_NUMBER}>{escape(each)}</td>" for each in row[1:])
        + "</tr>\n"
        for row in parts.rows
    )
    lists = "".join(
        f"<h2>{escape(heading)}</h2>\n<ul>{''.join(f'<li>{escape(entry)}</li>' for entry in entries)}</ul>\n"
        for heading, entries in _lists(parts, texts)
    )
    return (
        '<!doctype html>\n<html><body style="font-family:sans-serif;max-width:640px">\n'
        f"<h1>{escape(subject)}</h1>\n<p>{escape(parts.period)}</p>\n"
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n{lists}</body></html>\n"
    )


def _lists(parts: _Summary, texts: Texts) -> Sequence[tuple[str, Sequence[str]]]:
    ranked = [(heading, [f"{name}: {figures}" for name, figures in rows]) for heading, rows in parts.rankings]
    return [(texts.most, parts.changes), *ranked]


def _day(period: object, end: str, texts: Texts) -> str:
    text: str = getattr(period, end)
    return date.fromisoformat(text).strftime(texts.day)
