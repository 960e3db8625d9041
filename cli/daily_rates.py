"""Imports exchange rates every day while a local mesh runs, if a source is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.daily import Daily, DailyCommand

PUBLISHED = timedelta(hours=15, minutes=30)
"""Time of day, UTC, by which the European Central Bank has published the day's rates, in summer and in winter."""


def next_publication(now: datetime) -> datetime:
    """The first moment after `now` at which a day's rates are published."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + PUBLISHED
    return today if today > now else today + timedelta(days=1)


class DailyRates(Daily):
    """Runs `pmp rates import` with the source in PMP_SITE_RATES_URL."""

    def __init__(self, environment: Mapping[str, str], log: Path, report: Callable[[str], None]) -> None:
        command = DailyCommand(
            ("rates", "import"), "PMP_SITE_RATES_URL", "exchange rates", "exchange rates were not imported", next_publication
        )
        super().__init__(command, environment, log, report)
