"""The kind `mailchimp`: keeps the members of an audience up to date, and the orders of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import ClassVar, Final

import httpx
from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import ConversionRecorded, JourneyChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from typing_extensions import override

from kit.people.identifiers import identifier_of
from kit.people.privacy import Choice
from kit.times import moment
from services.destinations import email_marketing
from services.destinations.email_marketing import CONSENT, VIEW, is_reversed
from services.destinations.email_tool import DONE, EmailTool, RefusedError
from services.destinations.kind import Erasure, Message, Outcome, Outgoing, Result, Wanted
from services.destinations.mailchimp import mapping
from services.destinations.mailchimp.client import MailchimpClient
from services.destinations.mailchimp.options import MailchimpOptions

ORDER: Final = "order"
_MOST_ORDERS: Final = "1000"


class Mailchimp(EmailTool[MailchimpOptions]):
    """An audience at Mailchimp.

    Whatever is delivered about a person, the person's member is brought up to date first.
    """

    options_type = MailchimpOptions
    most_requests: ClassVar[int] = 8
    """Mailchimp allows ten connections of an account, over all that use it."""

    def __init__(self, name: str, options: MailchimpOptions, http: httpx.AsyncClient) -> None:
        super().__init__(name, options, http)
        self._client = MailchimpClient(options, http)
        self._list = f"/lists/{options.list_id}"
        self._store = f"/ecommerce/stores/{options.store_id}"
        self._known_products: set[str] = set()
        """Those that are known to be in the store."""

    @override
    def wanted_of_order(self, purchase: PurchaseChanged) -> Sequence[Wanted]:
        order_by, is_old = email_marketing.order_of_deliveries(purchase), email_marketing.is_history(purchase)
        return [Wanted(ORDER, "", email_marketing.changed_at(purchase), order_by, is_historical=is_old)]

    @override
    def wanted_of_event(self, stored: EventStored, step: str) -> Sequence[Wanted]:
        at, user = moment(stored.event.timestamp), identifier_of(user_id=stored.event.user_id)
        key, minutes = email_marketing.event_key(stored), self.options.abandoned_cart_minutes
        if step == VIEW:
            return [Wanted(VIEW, f"{VIEW}:{key}", at, user)] if user else []
        if not self.options.store_id or not minutes:
            return []
        # One for each session: who fills a cart in three steps abandons it once.
        cart = sha256((stored.enrichment.session or key).encode()).hexdigest()
        return [Wanted(mapping.ABANDONED_CART, f"{mapping.ABANDONED_CART}:{cart}", at, not_before=at + timedelta(minutes=minutes))]

    @override
    async def deliver(self, outgoing: Outgoing, profile: User, choice: Choice, *, late: bool) -> Result:
        wanted, message = outgoing.wanted, outgoing.message
        happened = _happened(wanted, message)
        try:
            if wanted.name == mapping.ABANDONED_CART and await self._has_ordered(profile.email, wanted.at):
                return Result(Outcome.WITHHELD, "an order followed")
            await self._keep_state(wanted, message, profile, late=late)
        except httpx.HTTPError as error:
            # All of this can be repeated, other than the event after it.
            return Result(Outcome.RETRY, type(error).__name__)
        if happened is not None:
            event = mapping.custom_event(wanted.name, happened, is_late=late)
            await self._client.call("POST", f"{self._member(profile.email)}/events", event)
        return DONE

    @override
    async def follow(self, former: str, email: str) -> datetime | None:
        path = self._member(former)
        member = await self._client.find("GET", path, fields="status,last_changed") or {}
        status = str(member.get("status", ""))
        if status == "unsubscribed":
            return mapping.last_changed(member)
        if status not in {"", "archived", "cleaned"} and await self._moves(path, email):
            return None
        if status not in {"", "archived"}:
            await self._client.find("DELETE", path)  # archives it
        return None

    async def _moves(self, path: str, email: str) -> bool:
        """Changes the address of a member; returns whether Mailchimp lets it, which it does not if that is a member already."""
        try:
            await self._client.call("PATCH", path, {"email_address": email}, skip_merge_validation="true")
        except RefusedError as refused:
            if refused.result.outcome not in {Outcome.REJECTED, Outcome.WITHHELD}:
                raise
            return False
        return True

    @override
    async def unsubscribe(self, email: str) -> Result:
        member = await self._client.find("GET", self._member(email), fields="status")
        if member is not None and member.get("status") not in {"unsubscribed", "cleaned", "archived"}:
            await self._client.call("PATCH", self._member(email), {"status": "unsubscribed"}, skip_merge_validation="true")
        return DONE

    async def _keep_state(self, wanted: Wanted, message: Message, profile: User, *, late: bool) -> None:
        stage, courses = email_marketing.stage_and_courses(message, profile)
        await self._keep_member(profile, is_choice=wanted.name == CONSENT)
        await self._client.call("POST", f"{self._member(profile.email)}/tags", mapping.tags(stage, courses, is_late=late))
        if isinstance(message, PurchaseChanged) and self.options.store_id and email_marketing.product_lines(message):
            await self._keep_order(message, profile)

    async def _keep_member(self, profile: User, *, is_choice: bool) -> None:
        path, body = self._member(profile.email), mapping.member(profile, self.options)
        member = await self._client.find("PUT", path, body, skip_merge_validation="true")
        if member is None:
            raise RefusedError(Result(Outcome.UNAUTHORIZED, "the list is unknown"))
        status = mapping.status_after(str(member.get("status", "")), self.options, is_choice=is_choice)
        if status:
            await self._client.call("PATCH", path, {"status": status}, skip_merge_validation="true")

    async def _keep_order(self, purchase: PurchaseChanged, profile: User) -> None:
        path = f"{self._store}/orders/{mapping.order_id(purchase)}"
        known = await self._client.find("GET", path, fields="updated_at_foreign")
        if known is not None:
            if not mapping.is_outdated(purchase, known):
                await self._client.call("PATCH", path, mapping.order_changes(purchase))
        elif not is_reversed(purchase) and not purchase.historical:
            await self._keep_store(purchase.base_currency or purchase.currency)
            for line in email_marketing.product_lines(purchase):
                await self._keep_product(mapping.product(line))
            await self._client.call("POST", f"{self._store}/orders", mapping.order(purchase, profile))

    async def _keep_store(self, currency: str) -> None:
        if await self._client.find("GET", self._store, fields="id") is None:
            await self._client.call("POST", "/ecommerce/stores", mapping.store(self.options, currency))
            self._known_products.clear()

    async def _keep_product(self, product: Mapping[str, object]) -> None:
        found = str(product["id"])
        if found in self._known_products:
            return
        if await self._client.find("GET", f"{self._store}/products/{mapping.in_path(found)}", fields="id") is None:
            await self._client.call("POST", f"{self._store}/products", product)
        self._known_products.add(found)

    async def _has_ordered(self, email: str, since: datetime) -> bool:
        customer, fields = mapping.member_id(email), "orders.processed_at_foreign"
        found = await self._client.find("GET", f"{self._store}/orders", customer_id=customer, count=_MOST_ORDERS, fields=fields)
        return mapping.has_order_since((found or {}).get("orders", []), since)

    @override
    async def test(self) -> Result:
        try:
            return DONE if await self._client.find("GET", self._list, fields="id") else Result(Outcome.REJECTED, "the list is unknown")
        except RefusedError as refused:
            return refused.result

    @override
    async def erase(self, person: Erasure) -> Result | None:
        try:
            found = [await self._erase(email) for email in person.emails]
        except RefusedError as refused:
            return refused.result
        return DONE if any(found) else Result(Outcome.WITHHELD)

    async def _erase(self, email: str) -> bool:
        """Deletes the member and the customer with an address for good; returns whether there was a member."""
        if self.options.store_id:
            await self._client.find("DELETE", f"{self._store}/customers/{mapping.member_id(email)}")
        return await self._client.find("POST", f"{self._member(email)}/actions/delete-permanent") is not None

    @override
    def is_repeatable(self, wanted: Wanted) -> bool:
        # Custom events have no key; all else is put into a state.
        return wanted.name not in mapping.EVENTS

    def _member(self, email: str) -> str:
        return f"{self._list}/members/{mapping.member_id(email)}"


def _happened(wanted: Wanted, message: Message) -> EventStored | ConversionRecorded | None:
    """Returns what a custom event is made of; None for other deliveries."""
    if wanted.name not in mapping.EVENTS:
        return None
    if isinstance(message, JourneyChanged):
        return message.conversion
    return message if isinstance(message, EventStored) else None


KIND = Mailchimp
