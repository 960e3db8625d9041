"""What a local mesh does once a day, if its settings say so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from cli.closed_days import next_closing
from cli.daily import DailyCommand, every_day_at


def _when_a_day_is_closed(now: datetime, environment: Mapping[str, str]) -> datetime:
    return next_closing(now, ZoneInfo(environment.get("PMP_SITE_TIMEZONE") or "UTC"))


RATES: Final = DailyCommand(
    arguments=("rates", "import"),
    setting="PMP_SITE_RATES_URL",
    # By then the European Central Bank has published the day's rates, in summer and in winter.
    due=every_day_at(timedelta(hours=15, minutes=30)),
    done="exchange rates",
    failed="exchange rates were not imported, the next try is in an hour",
)
COMPARISON: Final = DailyCommand(
    arguments=("reconcile", "woocommerce"),
    setting="PMP_SITE_ORDERS_URL",
    due=every_day_at(timedelta(hours=2, minutes=30)),
    done="comparison with the shop",
    failed="the ledger was not compared with the shop, the next try is in an hour",
    statuses=frozenset({0, 3}),
    wait=timedelta(minutes=30),  # until the shop has reported what happened while the mesh was down
)
EXPORTS: Final = DailyCommand(
    arguments=("export-days",),
    setting="PMP_SITE_EXPORTS_URL",
    due=_when_a_day_is_closed,
    done="exports",
    failed="days were not exported, the next try is in an hour",
)
BACKUP: Final = DailyCommand(
    arguments=("backup",),
    setting="PMP_BACKUPS",
    due=every_day_at(timedelta(hours=3)),
    done="backup",
    failed="no backup was made, the next try is in an hour",
    at_start=False,  # a mesh that is restarted often would replace the backups of other nights
)
CHORES: Final = {"backup": BACKUP, "exports": EXPORTS, "rates": RATES, "reconcile": COMPARISON}
"""By the name of their log."""
