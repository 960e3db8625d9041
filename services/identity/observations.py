"""What events and purchases tell of who somebody is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from pmp.ingestion.v1 import event_pb2
from pmp.purchases.v1 import change_pb2

from kit.idempotency import is_browsers
from kit.people.persons import subject_of
from kit.people.suppression import Suppressed
from services.identity.profiles import Address, Subscription
from services.identity.rules import Campaign, wordpress_id

EVENT: Final = "event"
"""Evidence of what an event says."""

PURCHASE: Final = "purchase"
"""Evidence of what an order says."""

_LEADS: Final = frozenset({"lead_capture", "form_submit", "newsletter_signup", "email_subscribe"})
"""Events by which somebody leaves an e-mail address."""
_LISTS: Final = {"email_subscribe": True, "email_unsubscribe": False}
_LOGINS: Final = frozenset({"login", "user_login"})
_LIST_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_DEFAULT_LIST: Final = "newsletter"


@dataclass(frozen=True, slots=True)
class IdentityObservation:
    """Somebody was seen: under which names, and what it says of the person."""

    at: datetime
    evidence: str
    user: str = ""
    """`wordpress:` or `user:` name."""
    address: Address | None = None
    """The address that stands for the person where no user is named that can be."""
    session: str = ""
    """`session:` name."""
    lead: bool = False
    login: bool = False
    subscription: Subscription | None = None
    campaign: tuple[str, Campaign] | None = None
    """The campaign of the visit, and the name it joins the person by."""

    @property
    def names(self) -> Sequence[str]:
        """The names that say who it was, the strongest first."""
        return [name for name in (self.user, self.address.subject if self.address else "") if name]

    @property
    def all_names(self) -> Sequence[str]:
        """All names in it, the strongest first."""
        return [*self.names, *filter(None, (self.session, self.campaign[0] if self.campaign else ""))]

    def unsuppressed(self, suppressed: Suppressed) -> IdentityObservation | None:
        """What may be known of it: nothing where it was an erased person, and otherwise all but an erased person's names."""
        gone = {name for name in self.all_names if suppressed.holds(name, self.at)}
        if not gone:
            return self
        if self.all_names[0] in gone:
            return None
        return replace(
            self,
            address=None if self.address and self.address.subject in gone else self.address,
            session="" if self.session in gone else self.session,
            campaign=None if self.campaign and self.campaign[0] in gone else self.campaign,
        )

    @property
    def is_news(self) -> bool:
        """True when it tells more than a name."""
        return self.lead or self.login or self.subscription is not None


@dataclass(frozen=True, slots=True)
class PurchaseObservation:
    """An order, and who was seen with it."""

    observation: IdentityObservation
    order: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The row of the order."""

    def unsuppressed(self, suppressed: Suppressed) -> PurchaseObservation | None:
        """What may be known of it. An erased person's order is told once more, under its pseudonym."""
        if suppressed.holds(self.order["subject"], self.observation.at):
            return None
        return replace(self, observation=self.observation.unsuppressed(suppressed) or IdentityObservation(self.observation.at, PURCHASE))


def observation_of(stored: event_pb2.EventStored) -> IdentityObservation | None:
    """What an event tells; None for nothing. What a crawler does, and what a browser alone says of a person, is no evidence."""
    if stored.enrichment.is_bot:
        return None
    event, at = stored.event, stored.event.timestamp.ToDatetime(UTC)
    session = subject_of(session_id=event.session_id)
    if stored.scope == "track":
        observation = IdentityObservation(at, EVENT, session=session, campaign=_campaign(stored, session))
        return observation if observation.campaign else None
    user, address, kind = subject_of(user_id=event.user_id), _address(stored), event.event_type
    observation = IdentityObservation(
        at,
        EVENT,
        user=user,
        address=address,
        session=session,
        lead=kind in _LEADS and address is not None,
        login=kind in _LOGINS,
        subscription=Subscription(_list(event), _LISTS[kind], at) if kind in _LISTS else None,
        campaign=_campaign(stored, session or user),
    )
    return observation if observation.names or observation.campaign else None


def bought(purchase: change_pb2.PurchaseChanged) -> PurchaseObservation:
    """What an order tells. Of an excluded one, nothing of who it was: staff order for others."""
    address = Address(purchase.email_hash, purchase.sealed_email or None) if purchase.email_hash else None
    at = purchase.timestamp.ToDatetime(UTC)
    observation = IdentityObservation(at, PURCHASE)
    if not purchase.excluded:
        user, session = subject_of(user_id=purchase.user_id), subject_of(session_id=purchase.session_id)
        observation = IdentityObservation(at, PURCHASE, user=user, address=address, session=session)
    order = {
        "purchase_id": purchase.purchase_id,
        "subject": purchase.subject,
        "base_net_amount": Decimal(purchase.base_net_amount or 0),
        "paid": purchase.HasField("paid_at"),
        "membership": any(line.product_type == "membership" for line in purchase.lines),
        "excluded": purchase.excluded,
    }
    return PurchaseObservation(observation, order)


def may_be_made(name: str) -> bool:
    """True when a name that nobody is known by makes a new user: an address, or a WordPress user."""
    return name.startswith("email:") or wordpress_id(name) is not None


def _address(stored: event_pb2.EventStored) -> Address | None:
    # Somebody typed it in a browser, whoever passed it on.
    if is_browsers(stored.key) or not stored.email_hash or stored.event.event_type not in _LEADS | _LISTS.keys():
        return None
    return Address(stored.email_hash, stored.sealed_email or None)


def _campaign(stored: event_pb2.EventStored, subject: str) -> tuple[str, Campaign] | None:
    """The campaign of a visit under the name it joins a person by."""
    event, found = stored.event, stored.enrichment
    if not subject:
        return None
    utm = {field.name: value for field, value in event.utm_parameters.ListFields()}
    if not utm and found.channel == event_pb2.CHANNEL_CAMPAIGN:
        utm = {"source": found.traffic_source, "medium": found.traffic_medium, "campaign": found.campaign}
    utm = {name: value for name, value in utm.items() if value}
    return (subject, Campaign(event.timestamp.ToDatetime(UTC), utm)) if utm else None


def _list(event: event_pb2.Event) -> str:
    named = event.metadata.fields["list"].string_value if "list" in event.metadata.fields else ""
    return named if _LIST_NAME.fullmatch(named) else _DEFAULT_LIST
