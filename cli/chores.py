"""What a local mesh does once a day, if its settings say so."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from cli.daily import DailyCommand

RATES: Final = DailyCommand(
    arguments=("rates", "import"),
    setting="PMP_SITE_RATES_URL",
    at=timedelta(hours=15, minutes=30),  # by then the European Central Bank has published the day's rates, in summer and in winter
    done="exchange rates",
    failed="exchange rates were not imported, the next try is in an hour",
)
COMPARISON: Final = DailyCommand(
    arguments=("reconcile", "woocommerce"),
    setting="PMP_SITE_ORDERS_URL",
    at=timedelta(hours=2, minutes=30),
    done="comparison with the shop",
    failed="the ledger was not compared with the shop, the next try is in an hour",
    statuses=frozenset({0, 3}),
    wait=timedelta(minutes=30),  # until the shop has reported what happened while the mesh was down
)
CHORES: Final = {"rates": RATES, "reconcile": COMPARISON}
"""By the name of their log."""
