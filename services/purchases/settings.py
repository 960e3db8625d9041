"""The settings of purchases alone."""

from __future__ import annotations

from typing import Literal

from pydantic import HttpUrl

from kit.settings import Settings


class PurchasesSettings(Settings):
    """The settings that purchases reads beside those of all services."""

    site_rates_url: HttpUrl | None = None
    """Where exchange rates are fetched every day, in the European Central Bank's layout; without it, none are fetched."""

    site_erased_purchases: Literal["keep", "delete"] = "keep"
    """What becomes of an erased person's purchases: kept under a pseudonym, as tax law asks, or deleted."""

    site_orders_url: HttpUrl | None = None
    """The plugin's route to the shop's orders, with which the ledger is compared every night; without it, it is not."""
