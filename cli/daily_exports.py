"""Writes closed days to the store of exports every day while a local mesh runs, if a store is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from cli.closed_days import next_closing
from cli.daily import Daily, DailyCommand


class DailyExports(Daily):
    """Runs `pmp export-days` with the store in PMP_SITE_EXPORTS_URL, soon after a day is closed in PMP_SITE_TIMEZONE."""

    def __init__(self, environment: Mapping[str, str], log: Path, report: Callable[[str], None]) -> None:
        zone = ZoneInfo(environment.get("PMP_SITE_TIMEZONE") or "UTC")
        command = DailyCommand(
            ("export-days",), "PMP_SITE_EXPORTS_URL", "exports", "days were not exported", partial(next_closing, zone=zone)
        )
        super().__init__(command, environment, log, report)
