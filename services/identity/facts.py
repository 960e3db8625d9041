"""Campaigns, orders and mailing lists reported within one transaction: which report of each counts. Decisions without a database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.identity.lifecycle import Campaign
from services.identity.profiles import Subscription


class PendingFacts:
    """Facts that have yet to be written."""

    def __init__(self) -> None:
        self._campaigns: dict[str, Campaign] = {}
        self._orders: dict[str, Mapping[str, Any]] = {}
        self._subscriptions: dict[tuple[str, str], Subscription] = {}

    @property
    def campaign_identifiers(self) -> set[str]:
        """The identifiers that campaigns were seen with."""
        return set(self._campaigns)

    @property
    def subscribers(self) -> set[str]:
        """The users whose mailing lists were reported."""
        return {user_id for user_id, _ in self._subscriptions}

    @property
    def orders(self) -> list[Mapping[str, Any]]:
        """The rows of the orders, each as last reported."""
        return list(self._orders.values())

    def add_campaign(self, identifier: str, campaign: Campaign) -> None:
        """Adds a campaign seen with an identifier; the earliest counts."""
        known = self._campaigns.get(identifier)
        if known is None or campaign.at < known.at:
            self._campaigns[identifier] = campaign

    def add_order(self, fields: Mapping[str, Any]) -> None:
        """Adds the row of an order; the one reported last counts."""
        self._orders[fields["purchase_id"]] = fields

    def add_subscription(self, user_id: str, subscription: Subscription) -> None:
        """Adds that a user chose or left a mailing list; the latest choice counts."""
        known = self._subscriptions.get((user_id, subscription.list))
        if known is None or subscription.changed_at >= known.changed_at:
            self._subscriptions[user_id, subscription.list] = subscription

    def first_campaigns(self, stored: Mapping[str, datetime]) -> dict[str, Campaign]:
        """Returns the campaigns earlier than those stored, by identifier."""
        return {
            identifier: campaign
            for identifier, campaign in self._campaigns.items()
            if identifier not in stored or campaign.at < stored[identifier]
        }

    def newer_subscriptions(self, stored: Mapping[tuple[str, str], Subscription]) -> dict[tuple[str, str], Subscription]:
        """Returns the choices later than those stored, by user and list; of two at the same time, the one reported last counts."""
        return {key: choice for key, choice in self._subscriptions.items() if _replaces(choice, stored.get(key))}

    def clear(self) -> None:
        """Removes what has been written."""
        self._campaigns.clear()
        self._orders.clear()
        self._subscriptions.clear()


def _replaces(choice: Subscription, stored: Subscription | None) -> bool:
    return stored is None or choice.changed_at > stored.changed_at or (choice.changed_at == stored.changed_at and choice != stored)
