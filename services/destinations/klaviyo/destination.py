"""The kind `klaviyo`: keeps profiles and their subscription up to date, and records what persons did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import httpx
from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from typing_extensions import override

from kit.people.privacy import Choice
from kit.times import moment
from services.destinations import email_marketing
from services.destinations.email_marketing import CONSENT
from services.destinations.email_tool import DONE, EmailTool, RefusedError
from services.destinations.kind import Erasure, Message, Outcome, Outgoing, Result, Wanted
from services.destinations.klaviyo import mapping
from services.destinations.klaviyo.answers import Subscription, is_unsubscribed, left_at, subscription_wanted
from services.destinations.klaviyo.client import KlaviyoClient
from services.destinations.klaviyo.options import KlaviyoOptions
from services.destinations.refunds import Refund, refunds


class Klaviyo(EmailTool[KlaviyoOptions]):
    """An account at Klaviyo."""

    options_type = KlaviyoOptions

    def __init__(self, name: str, options: KlaviyoOptions, http: httpx.AsyncClient) -> None:
        super().__init__(name, options, http)
        self._client = KlaviyoClient(options, http)

    @override
    def wanted_of_order(self, purchase: PurchaseChanged) -> Sequence[Wanted]:
        order_by, number = email_marketing.order_of_deliveries(purchase), purchase.purchase_id
        deliveries = [Wanted(mapping.PLACED, f"{mapping.PLACED}:{number}", moment(purchase.sold_at), order_by)]
        for refund in refunds(purchase):
            at, is_old = moment(refund.entry.timestamp), refund.is_historical
            deliveries.append(Wanted(mapping.name_of_refund(refund), _refund_key(purchase, refund), at, order_by, is_historical=is_old))
        return deliveries

    @override
    async def deliver(self, outgoing: Outgoing, profile: User, choice: Choice, *, late: bool) -> Result:
        wanted, message = outgoing.wanted, outgoing.message
        if isinstance(message, EventStored):
            happened = mapping.shopping(wanted.name, message, email_marketing.event_key(message))
            await self._client.post("/api/events", mapping.event(profile.email, happened, is_late=late))
            return DONE
        subscription = await self._keep_profile(message, profile, choice)
        if wanted.name == mapping.PLACED:
            await self._client.post("/api/event-bulk-create-jobs", mapping.events(profile.email, _sale(message), is_late=late))
        elif happened := _happened(wanted, message):
            await self._client.post("/api/events", mapping.event(profile.email, happened, is_late=late))
        if subscription is Subscription.WITHDRAWN and wanted.name == CONSENT:
            return Result(Outcome.WITHHELD, subscription.value)
        return DONE

    @override
    async def follow(self, former: str, email: str) -> datetime | None:
        profiles = await self._client.profiles(former)
        if left := [at for each in profiles if (at := left_at(each.marketing)) is not None]:
            return max(left)
        for each in profiles:
            try:
                await self._client.change(each, mapping.readdressed(each.id, email))
            except RefusedError as refused:
                if refused.result.outcome is not Outcome.REJECTED:
                    raise
                # Another profile has the address.
                await self._client.post("/api/profile-subscription-bulk-delete-jobs", mapping.unsubscription(former))
        return None

    @override
    async def unsubscribe(self, email: str) -> Result:
        if any(not is_unsubscribed(each.marketing) for each in await self._client.profiles(email)):
            await self._client.post("/api/profile-subscription-bulk-delete-jobs", mapping.unsubscription(email))
        return DONE

    async def _keep_profile(self, message: Message, person: User, choice: Choice) -> Subscription:
        """Creates or updates the profile of a person who consents, and subscribes it unless it unsubscribed since."""
        stage, courses = email_marketing.stage_and_courses(message, person)
        imported = await self._client.import_profile(mapping.profile(person, stage, courses))
        subscription = subscription_wanted(imported.marketing, choice)
        if subscription is Subscription.SUBSCRIBE:
            await self._client.post("/api/profile-subscription-bulk-create-jobs", mapping.subscription(person.email, self.options.list_id))
        return subscription

    @override
    async def test(self) -> Result:
        try:
            await self._client.check()
        except RefusedError as refused:
            return refused.result
        return DONE

    @override
    async def erase(self, person: Erasure) -> Result | None:
        try:
            for email in person.emails:
                await self._client.post("/api/data-privacy-deletion-jobs", mapping.deletion(email))
        except RefusedError as refused:
            return refused.result
        return Result(Outcome.DELIVERED, "by a job of Klaviyo") if person.emails else Result(Outcome.WITHHELD)

    @override
    def is_repeatable(self, wanted: Wanted) -> bool:
        return True


def _refund_key(purchase: PurchaseChanged, refund: Refund) -> str:
    return f"{mapping.name_of_refund(refund)}:{purchase.purchase_id}:{refund.number}"


def _sale(message: Message) -> Sequence[mapping.Happening]:
    return mapping.placed(message) if isinstance(message, PurchaseChanged) else []


def _happened(wanted: Wanted, message: Message) -> mapping.Happening | None:
    if isinstance(message, PurchaseChanged):
        return next((mapping.refunded(message, each) for each in refunds(message) if _refund_key(message, each) == wanted.key), None)
    return mapping.conversion(wanted.name, message.conversion) if isinstance(message, JourneyChanged) else None


KIND = Klaviyo
