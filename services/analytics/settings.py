"""The settings of analytics alone."""

from __future__ import annotations

from kit.settings import Settings
from services.analytics.affiliates import Affiliates


class AnalyticsSettings(Settings):
    """The settings that analytics reads beside those of all services."""

    site_affiliates: Affiliates = Affiliates()
    """The shop's affiliates, their rates and the rules by which orders are credited to them, as JSON. A change counts for orders that are
    reported from then on; after a replay of analytics, for all."""
