"""What events and orders state about who a person is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from pmp.ingestion.v1 import event_pb2
from pmp.purchases.v1 import change_pb2

from kit.idempotency import is_browsers
from kit.people.identifiers import identifier_of
from kit.people.suppression import Suppressed, screen
from services.identity.lifecycle import Campaign
from services.identity.links import Evidence, Links, may_create_user
from services.identity.profiles import Address, Subscription

_LEADS: Final = frozenset({"lead_capture", "form_submit", "newsletter_signup", "email_subscribe"})
"""Types of events by which a person leaves an e-mail address."""
_LISTS: Final = {"email_subscribe": True, "email_unsubscribe": False}
_LOGINS: Final = frozenset({"login", "user_login"})
_LIST_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_DEFAULT_LIST: Final = "newsletter"


class SeenCampaign(NamedTuple):
    """A campaign, and the identifier it was seen with."""

    identifier: str
    campaign: Campaign


@dataclass(frozen=True, slots=True)
class IdentityObservation:
    """A person seen under some identifiers, and the facts stated with them."""

    at: datetime
    evidence: Evidence
    user: str = ""
    """`wordpress:` or `user:` identifier."""
    address: Address | None = None
    """The address that stands for the person where no user that may exist is stated."""
    session: str = ""
    """`session:` identifier."""
    lead: bool = False
    login: bool = False
    subscription: Subscription | None = None
    campaign: SeenCampaign | None = None
    """The campaign of the session."""
    historical: bool = False
    """An import or a backfill reported it."""

    @property
    def identifiers(self) -> Sequence[str]:
        """The identifiers of the person, the strongest first."""
        return [each for each in (self.user, self.address.identifier if self.address else "") if each]

    @property
    def linked_identifiers(self) -> Sequence[str]:
        """The identifiers whose links decide what the observation changes."""
        return [*self.identifiers, *filter(None, [self.session])]

    @property
    def all_identifiers(self) -> Sequence[str]:
        """All identifiers in it, the strongest first."""
        return [*self.linked_identifiers, *filter(None, [self.campaign.identifier if self.campaign else ""])]

    @property
    def has_facts(self) -> bool:
        """True when it states more than identifiers and a campaign."""
        return self.lead or self.login or self.subscription is not None

    def unsuppressed(self, suppressed: Suppressed) -> IdentityObservation | None:
        """Returns what may be kept of it: nothing of an erased person, and otherwise all but an erased person's identifiers."""
        screened = screen(self.all_identifiers, self.at, suppressed)
        if screened.is_dropped:
            return None
        gone = screened.stripped
        return replace(
            self,
            address=None if self.address and self.address.identifier in gone else self.address,
            session="" if self.session in gone else self.session,
            campaign=None if self.campaign and self.campaign.identifier in gone else self.campaign,
        )

    def resolving_identifier(self, links: Links) -> str:
        """Returns the strongest identifier that leads to a user or creates one; empty for none."""
        return next((each for each in self.identifiers if links.owner(each) or may_create_user(each)), "")

    def changes_graph(self, links: Links, campaigns: Mapping[str, datetime]) -> bool:
        """Returns True when it may change the graph; most observations only repeat what is known.

        Args:
            links: those of its identifiers.
            campaigns: the times of the campaigns known so far, by identifier.
        """
        return self.has_facts or self._changes_links(links) or self._is_earlier_campaign(campaigns)

    def _changes_links(self, links: Links) -> bool:
        identifier = self.resolving_identifier(links)
        if not identifier:
            return False
        owner = links.owner(identifier)
        return not owner or (bool(self.session) and links.adds(self.session, owner, self.at))

    def _is_earlier_campaign(self, campaigns: Mapping[str, datetime]) -> bool:
        if self.campaign is None:
            return False
        known = campaigns.get(self.campaign.identifier)
        return known is None or self.at < known


@dataclass(frozen=True, slots=True)
class PurchaseObservation:
    """An order, and who was seen with it."""

    observation: IdentityObservation
    order: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The row of the order."""

    @property
    def all_identifiers(self) -> Sequence[str]:
        """All identifiers in it, that of the order first."""
        return [self.order["subject"], *self.observation.all_identifiers]

    def unsuppressed(self, suppressed: Suppressed) -> PurchaseObservation | None:
        """Returns what may be kept of it: nothing of an erased person's order, which is reported once more under its pseudonym."""
        if screen([self.order["subject"]], self.observation.at, suppressed).is_dropped:
            return None
        left = self.observation.unsuppressed(suppressed)
        return replace(self, observation=left or IdentityObservation(self.observation.at, Evidence.PURCHASE))


def observe_event(stored: event_pb2.EventStored) -> IdentityObservation | None:
    """Returns what an event states; None for nothing. A crawler's event, and what only a browser states of a person, are no evidence."""
    if stored.enrichment.is_bot:
        return None
    event, at = stored.event, stored.event.timestamp.ToDatetime(UTC)
    session = identifier_of(session_id=event.session_id)
    if stored.scope == "track":
        observation = IdentityObservation(at, Evidence.EVENT, session=session, campaign=_campaign(stored, session))
        return observation if observation.campaign else None
    user, address, kind = identifier_of(user_id=event.user_id), _address(stored), event.event_type
    observation = IdentityObservation(
        at,
        Evidence.EVENT,
        user=user,
        address=address,
        session=session,
        lead=kind in _LEADS and address is not None,
        login=kind in _LOGINS,
        subscription=Subscription(_list(event), _LISTS[kind], at) if kind in _LISTS else None,
        campaign=_campaign(stored, session or user),
        historical=event.historical,
    )
    return observation if observation.identifiers or observation.campaign else None


def observe_purchase(purchase: change_pb2.PurchaseChanged) -> PurchaseObservation:
    """Returns what an order states. An excluded one is no evidence of its buyer: staff order for others."""
    address = Address(purchase.email_hash, purchase.sealed_email or None) if purchase.email_hash else None
    at = purchase.timestamp.ToDatetime(UTC)
    observation = IdentityObservation(at, Evidence.PURCHASE)
    if not purchase.excluded:
        user, session = identifier_of(user_id=purchase.user_id), identifier_of(session_id=purchase.session_id)
        observation = replace(observation, user=user, address=address, session=session, historical=purchase.historical)
    order = {
        "purchase_id": purchase.purchase_id,
        "subject": purchase.subject,
        "base_net_amount": Decimal(purchase.base_net_amount or 0),
        "currency": purchase.currency,
        "net_amount": Decimal(purchase.paid_amount or 0) - Decimal(purchase.refunded_amount or 0),
        "sold_at": purchase.sold_at.ToDatetime(UTC) if purchase.HasField("sold_at") else None,
        "paid": purchase.HasField("paid_at"),
        "membership": any(line.product_type == "membership" for line in purchase.lines),
        "excluded": purchase.excluded,
    }
    return PurchaseObservation(observation, order)


def _address(stored: event_pb2.EventStored) -> Address | None:
    # What was typed in a browser is no evidence, even where a server passes it on.
    if is_browsers(stored.key) or not stored.email_hash or stored.event.event_type not in _LEADS | _LISTS.keys():
        return None
    return Address(stored.email_hash, stored.sealed_email or None)


def _campaign(stored: event_pb2.EventStored, identifier: str) -> SeenCampaign | None:
    """Returns the campaign of an event, seen with an identifier."""
    event, enrichment = stored.event, stored.enrichment
    if not identifier:
        return None
    utm = {field.name: value for field, value in event.utm_parameters.ListFields()}
    if not utm and enrichment.channel == event_pb2.CHANNEL_CAMPAIGN:
        utm = {"source": enrichment.traffic_source, "medium": enrichment.traffic_medium, "campaign": enrichment.campaign}
    utm = {name: value for name, value in utm.items() if value}
    return SeenCampaign(identifier, Campaign(event.timestamp.ToDatetime(UTC), utm)) if utm else None


def _list(event: event_pb2.Event) -> str:
    name = event.metadata.fields["list"].string_value if "list" in event.metadata.fields else ""
    return name if _LIST_NAME.fullmatch(name) else _DEFAULT_LIST
