"""What a kind of destination is, and what the delivery of a message to one consists of.

A kind is a folder of this package with a module `destination`, whose `KIND` is a subclass of `Destination`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar

import httpx
from pmp.analytics.v1.analytics_pb2 import GetFirstSourceResponse
from pmp.destinations.v1.notice_pb2 import AlarmChanged, ContentPerformanceUpdated, PeriodEnded
from pmp.gdpr.v1.change_pb2 import GdprChanged
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from pydantic import BaseModel, ConfigDict

from kit.people.privacy import Consent, Purpose

Notice: TypeAlias = ContentPerformanceUpdated | PeriodEnded | AlarmChanged
"""What the mesh itself has to say. It is made only while a destination wants some of its type, filled or empty."""

Message: TypeAlias = EventStored | PurchaseChanged | IdentityChanged | JourneyChanged | GdprChanged | Notice
"""A message of a topic, or a notice. A kind maps those that concern it, and passes over the others."""


class Options(BaseModel):
    """How a destination is configured: its table in the file of destinations. A kind adds what it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: str
    """The name of the kind."""


_Options = TypeVar("_Options", bound=Options)


class Wanted(NamedTuple):
    """A delivery that a destination wants of a message."""

    name: str
    """What is delivered, in the destination's words: `purchase`, `refund`. At most 120 characters."""
    key: str
    """What it is about: of all deliveries of a destination with one key, only the first is made. Empty where every message counts, as for
    a state that is sent again whenever it changes. A longer key than 255 characters is replaced by its hash."""
    at: datetime
    """When it happened: its age is what a destination's window is about."""
    order_by: str = ""
    """Deliveries with the same value are sent one after the other, in the order of the topics; empty for those in no order."""
    not_before: datetime | None = None
    """When the first attempt is made at the earliest; None for at once. In an order, it would hold up those after it."""
    needs_consent: bool = True
    """Whether it is withheld for want of `Destination.consent`. False where the kind decides by `Outgoing.consent` when it sends, as for
    an unsubscription, which follows from a denial."""
    is_state: bool = False
    """Whether it is about how something is, not about what happened: it is delivered however old it is, so that a destination that is new
    can be brought up to date by `pmp replay destinations`."""
    is_historical: bool | None = None
    """Whether it is history, and so left out unless `Destination.takes_history`. None for what the message's mark says: that of an order
    is about the order and its sale, while each of its refunds is marked by its own entry."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A delivery that is about to be sent."""

    id: str
    """Identifies the delivery to the receiver: the same at each attempt. Letters, digits and `_-`."""
    wanted: Wanted
    message: Message
    consent: Consent
    """The choices of the person that are in force at this moment."""
    profile: User | None
    """The person, for kinds that need it; None if identity knows none."""
    sealed: Mapping[str, str] = field(default_factory=dict[str, str])
    """The fields `sealed_*` of the message in plain text, without the prefix; empty texts for those of an erased person."""
    former: Sequence[str] = ()
    """Addresses under which the destination keeps the person still, though the person has another one now (`Destination.contact`)."""
    first_source: GetFirstSourceResponse | None = None
    """Where the person first came from, for kinds that need it."""


class Outcome(Enum):
    """What became of an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    """Not this time: the destination is down, busy, or could not be reached."""
    REJECTED = "rejected"
    """Never: the destination refuses this delivery as it is."""
    EXPIRED = "expired"
    """Never: it is older than the destination accepts."""
    WITHHELD = "withheld"
    """Never: the destination may not have it, as when the person was deleted there for good."""
    UNAUTHORIZED = "unauthorized"
    """The destination refuses the credentials, or is gone for good: nothing is sent until an operator resumes it."""


class Result(NamedTuple):
    """The result of an attempt."""

    outcome: Outcome
    detail: str = ""
    """For the operator, such as `HTTP 503`; holds nothing personal."""
    retry_after: timedelta | None = None
    """How long the destination asks to wait."""
    is_ambiguous: bool = False
    """The request was sent and no answer came: it may have had its effect."""


class Erasure(NamedTuple):
    """A person to delete at a destination."""

    identifiers: Sequence[str]
    """All identifiers of the person, with their kinds."""
    emails: Sequence[str]
    """The e-mail addresses of the person."""


class Destination(ABC, Generic[_Options]):
    """One configured destination.

    Args:
        name: its name in the configuration.
        options: how it is configured.
        http: the client for all of its requests, with time-outs. It follows no redirects.
    """

    options_type: ClassVar[type[Any]]
    """The subclass of `Options` that its configuration is read as."""
    consent: Purpose | None
    """What a person has to agree to before anything about it is sent; None if no person's consent is needed. A kind whose destinations
    differ sets it when it is constructed.

    Unknown counts as no, except for `analytics_tracking`, which is asked for at the intake already."""
    window: ClassVar[timedelta | None] = None
    """How old a delivery may be at most; older ones expire."""
    takes_history: ClassVar[bool] = False
    """Whether it takes what was reported as historical."""
    needs_profile: ClassVar[bool] = False
    """Whether identity is asked for `Outgoing.profile`. A delivery then waits a minute where its person, or a choice, is not known yet."""
    needs_first_source: ClassVar[bool] = False
    """Whether analytics is asked for `Outgoing.first_source`."""
    settles: ClassVar[timedelta] = timedelta(0)
    """How long a delivery waits for what other services derive of the same message."""
    most_at_once: ClassVar[int] = 1
    """Most deliveries of one request."""
    most_requests: ClassVar[int] = 4
    """Most requests in progress at once."""

    def __init__(self, name: str, options: _Options, http: httpx.AsyncClient) -> None:
        self.name = name
        self.options = options
        self.http = http

    @abstractmethod
    def wanted(self, message: Message) -> Iterable[Wanted]:
        """Decides what to deliver of a message: a function of the message and the options, without any input or output."""

    @abstractmethod
    async def send(self, deliveries: Sequence[Outgoing]) -> Sequence[Result]:
        """Makes one attempt, in one request if the destination takes several at once.

        Returns:
            The result of each delivery, in order. Errors of `httpx` may be raised: then none of them had a result. The engine makes the
            outcome of them, ambiguous if the request may have been sent, and ends an attempt that lasts longer than 30 s.
        """

    @abstractmethod
    async def test(self) -> Result:
        """Finds out whether the destination can be reached and accepts the credentials. Leaves nothing there."""

    @abstractmethod
    async def erase(self, person: Erasure) -> Result | None:
        """Deletes a person at the destination.

        Returns:
            What became of it; None if the destination offers no way to delete a person.
        """

    def uses_profile(self, message: Message) -> bool:  # noqa: ARG002 (a kind may decide by it)
        """Whether `send` reads `Outgoing.profile` of deliveries of this message; identity is not asked for the others."""
        return self.needs_profile

    def contact(self, outgoing: Outgoing) -> str:  # noqa: ARG002 (for kinds that keep persons)
        """Returns the e-mail address under which the destination keeps the person once this is delivered; empty for none.

        It is remembered until the person is erased: when the person has another one, it is in `Outgoing.former` until something is
        delivered, and an erasure deletes the person under all of them.
        """
        return ""

    def unsubscribes(self, outgoing: Outgoing) -> bool:  # noqa: ARG002 (for kinds that keep persons)
        """Whether this delivery unsubscribes the person, under each address that the destination keeps: `Outgoing.former`, too."""
        return False

    @abstractmethod
    def is_repeatable(self, wanted: Wanted) -> bool:
        """Whether the destination recognises a repetition of this delivery, so that an attempt with an unknown outcome can be repeated."""
