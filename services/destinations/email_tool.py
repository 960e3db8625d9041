"""What the kinds of tools for e-mail marketing have in common: what they want, and who may be sent to them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import httpx
from pmp.gdpr.v1.change_pb2 import GdprChanged
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from typing_extensions import override

from kit.people.privacy import Choice, Purpose
from services.destinations import email_marketing
from services.destinations.email_marketing import CONSENT, LINK, is_late
from services.destinations.kind import Destination, Message, Options, Outcome, Outgoing, Result, Wanted

DONE: Final = Result(Outcome.DELIVERED)
_LEFT: Final = "the person unsubscribed there under a former address"

_Options = TypeVar("_Options", bound=Options)


class RefusedError(Exception):
    """The tool refused a request.

    Args:
        result: what that makes of the delivery.
    """

    def __init__(self, result: Result) -> None:
        super().__init__(result.detail)
        self.result = result


class EmailTool(Destination[_Options]):
    """A tool for e-mail marketing.

    Its methods may raise `RefusedError` where they make requests; `send` turns it into a result.
    """

    consent: Purpose | None = "marketing_emails"
    needs_profile = True

    @abstractmethod
    def wanted_of_order(self, purchase: PurchaseChanged) -> Sequence[Wanted]:
        """Decides what to deliver of an order that counts."""

    def wanted_of_event(self, stored: EventStored, step: str) -> Sequence[Wanted]:
        """Decides what to deliver of a step of shopping: of a `view`, a `cart` or a `checkout`. By default an event of that name."""
        return email_marketing.wanted_step(stored, step)

    @abstractmethod
    async def deliver(self, outgoing: Outgoing, profile: User, choice: Choice, *, late: bool) -> Result:
        """Delivers something about a person who consents.

        Args:
            outgoing: the delivery.
            profile: the person, who has an address.
            choice: the consent in force.
            late: no automation may start.
        """

    @abstractmethod
    async def follow(self, former: str, email: str) -> datetime | None:
        """Moves a contact to the address that its person has now. Where that one is a contact already, the former is mailed no more.

        Returns:
            When it unsubscribed or complained: then it stays as it is. `UNKNOWN_TIME` if the tool does not say when; None if it did not.
        """

    @abstractmethod
    async def unsubscribe(self, email: str) -> Result:
        """Unsubscribes an address; one that the tool does not know stays unknown to it."""

    @override
    def wanted(self, message: Message) -> Iterable[Wanted]:
        match message:
            case IdentityChanged():
                return email_marketing.wanted_profile(message)
            case GdprChanged():
                return email_marketing.wanted_consent(message)
            case JourneyChanged():
                return email_marketing.wanted_conversion(message.conversion)
            case PurchaseChanged():
                return self.wanted_of_order(message) if email_marketing.counts(message) else []
            case EventStored():
                step = email_marketing.shopping_step(message)
                return self.wanted_of_event(message, step) if step else []
            case _:
                return []

    @override
    async def send(self, deliveries: Sequence[Outgoing]) -> Sequence[Result]:
        return [await self._send(each) for each in deliveries]

    async def _send(self, outgoing: Outgoing) -> Result:
        profile, choice = outgoing.profile, outgoing.consent.marketing_emails
        current = [profile.email] if profile is not None and profile.email else []
        try:
            if self.unsubscribes(outgoing) and (emails := [*current, *outgoing.former]):
                results = [await self.unsubscribe(each) for each in emails]
                return next((each for each in results if each.outcome is not Outcome.DELIVERED), DONE)
            if profile is None or not current:
                return Result(Outcome.WITHHELD, "no address is known")
            if choice is not None and choice.granted:
                left = await self._left(outgoing, profile.email, choice)
                if left is not None:
                    return left
                due = outgoing.wanted.not_before or outgoing.wanted.at
                return await self.deliver(outgoing, profile, choice, late=is_late(due, datetime.now(UTC)))
        except RefusedError as refused:
            return refused.result
        return Result(Outcome.WITHHELD, "no consent")

    async def _left(self, outgoing: Outgoing, email: str, choice: Choice) -> Result | None:
        """Moves the contacts of a person who has another address now; returns the result if nothing may be sent to that."""
        try:
            left = [at for former in outgoing.former if (at := await self.follow(former, email)) is not None]
        except httpx.HTTPError as error:
            # It can be repeated, other than an event after it.
            return Result(Outcome.RETRY, type(error).__name__)
        # Who unsubscribed under the former address is subscribed under another one by its own newer choice only.
        is_newer = outgoing.wanted.name == CONSENT and all(at < choice.decided_at for at in left)
        return None if not left or is_newer else Result(Outcome.WITHHELD, _LEFT)

    @override
    def unsubscribes(self, outgoing: Outgoing) -> bool:
        choice = outgoing.consent.marketing_emails
        return choice is not None and not choice.granted and outgoing.wanted.name in {CONSENT, LINK}

    @override
    def contact(self, outgoing: Outgoing) -> str:
        choice = outgoing.consent.marketing_emails
        return outgoing.profile.email if outgoing.profile is not None and choice is not None and choice.granted else ""
