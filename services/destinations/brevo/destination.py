"""The kind `brevo`: keeps contacts, their lists and subscription up to date, and records what persons did and bought."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Final

import httpx
from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from typing_extensions import override

from kit.people.privacy import Choice
from kit.times import moment
from services.destinations import email_marketing
from services.destinations.brevo import mapping
from services.destinations.brevo.answers import Subscription, left_at, subscription_wanted
from services.destinations.brevo.client import BrevoClient
from services.destinations.brevo.options import BrevoOptions
from services.destinations.email_marketing import CONSENT
from services.destinations.email_tool import DONE, EmailTool, RefusedError
from services.destinations.kind import Erasure, Message, Outcome, Outgoing, Result, Wanted

ORDER: Final = "order"


class Brevo(EmailTool[BrevoOptions]):
    """A list of an account at Brevo."""

    options_type = BrevoOptions
    most_requests: ClassVar[int] = 2
    """Brevo takes ten requests about contacts a second, and five orders."""

    def __init__(self, name: str, options: BrevoOptions, http: httpx.AsyncClient) -> None:
        super().__init__(name, options, http)
        self._client = BrevoClient(options, http)

    @override
    def wanted_of_order(self, purchase: PurchaseChanged) -> Sequence[Wanted]:
        order_by, is_old = email_marketing.order_of_deliveries(purchase), email_marketing.is_history(purchase)
        return [
            Wanted(ORDER, "", email_marketing.changed_at(purchase), order_by, is_historical=is_old),
            Wanted(mapping.PLACED, f"{mapping.PLACED}:{purchase.purchase_id}", moment(purchase.sold_at), order_by),
        ]

    @override
    async def deliver(self, outgoing: Outgoing, profile: User, choice: Choice, *, late: bool) -> Result:
        wanted, message = outgoing.wanted, outgoing.message
        happened = _happened(wanted, message)
        if happened is not None and late:
            return Result(Outcome.EXPIRED, "too late to start an automation")
        subscription = Subscription.KEEP
        if not isinstance(message, EventStored):
            try:
                subscription = await self._keep_contact(message, profile, choice, is_choice=wanted.name == CONSENT)
                if wanted.name == ORDER and isinstance(message, PurchaseChanged) and self.options.orders and mapping.is_sent(message):
                    await self._client.post("/orders/status", mapping.order(message, profile.email))
            except httpx.HTTPError as error:
                # All of this can be repeated, other than the event after it.
                return Result(Outcome.RETRY, type(error).__name__)
        if happened is not None:
            await self._client.post("/events", mapping.event(wanted.name, profile.email, happened))
        if subscription is Subscription.WITHDRAWN and wanted.name == CONSENT:
            return Result(Outcome.WITHHELD, subscription.value)
        return DONE

    @override
    async def follow(self, former: str, email: str) -> datetime | None:
        contact = await self._client.contact(former)
        if contact is None:
            return None
        if (at := left_at(contact, self.options.list_id)) is not None:
            return at
        try:
            await self._client.update(contact, {"attributes": {"EMAIL": email}})
        except RefusedError as refused:
            if refused.result.outcome is not Outcome.REJECTED:
                raise
            # Another contact has the address.
            await self._client.update(contact, {"emailBlacklisted": True})
        return None

    @override
    async def unsubscribe(self, email: str) -> Result:
        contact = await self._client.contact(email)
        if contact is not None and not contact.is_blocked:
            await self._client.update(contact, {"emailBlacklisted": True})
        return DONE

    async def _keep_contact(self, message: Message, person: User, choice: Choice, *, is_choice: bool) -> Subscription:
        """Creates or updates the contact of a person who consents, and subscribes it unless it unsubscribed since."""
        stage, has_course = email_marketing.stage_and_courses(message, person)
        values, own = mapping.attributes(person, stage, self.options), self.options.list_id
        lists = {self.options.course_lists[course]: has for course, has in has_course.items() if course in self.options.course_lists}
        joins, leaves = [each for each, has in lists.items() if has], [each for each, has in lists.items() if not has]
        contact = await self._client.contact(person.email)
        if contact is None:
            await self._client.post("/contacts", mapping.new_contact(person.email, values, [own, *joins]))
            return Subscription.KEEP
        subscription = subscription_wanted(contact, own, choice, is_choice=is_choice)
        if subscription is not Subscription.WITHDRAWN:
            joins = [own, *joins]
        await self._client.update(contact, mapping.changes(values, joins, leaves, unblocks=subscription is Subscription.RENEW))
        return subscription

    @override
    async def test(self) -> Result:
        try:
            return DONE if await self._client.has_list(self.options.list_id) else Result(Outcome.REJECTED, "the list is unknown")
        except RefusedError as refused:
            return refused.result

    @override
    async def erase(self, person: Erasure) -> Result | None:
        try:
            found = [await self._client.delete(email) for email in person.emails]
        except RefusedError as refused:
            return refused.result
        return DONE if any(found) else Result(Outcome.WITHHELD)

    @override
    def is_repeatable(self, wanted: Wanted) -> bool:
        # Events have no key; all else is put into a state.
        return wanted.name not in mapping.EVENTS


def _happened(wanted: Wanted, message: Message) -> mapping.Happening | None:
    """Returns what an event is made of; None for other deliveries."""
    if wanted.name not in mapping.EVENTS:
        return None
    if isinstance(message, JourneyChanged):
        return message.conversion
    return message if isinstance(message, PurchaseChanged | EventStored) else None


KIND = Brevo
