"""Decides what Brevo's answers mean: refusals, and the subscription of a contact."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from kit.people.privacy import Choice
from services.destinations.answers import refused
from services.destinations.email_marketing import LONG_AGO, UNKNOWN_TIME
from services.destinations.kind import Result

_CODE: Final = re.compile(r"[a-z_]{1,60}")
_RESET: Final = "x-sib-ratelimit-reset"
"""The header with the seconds until the limit of requests is reset."""
_LONGEST_RESET: Final = 6
"""Digits."""

_Time = Annotated[datetime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]


class _Happened(BaseModel):
    event_time: Annotated[_Time | None, Field(alias="eventTime")] = None


class _Unsubscriptions(BaseModel):
    by_person: Annotated[Sequence[_Happened], Field(alias="userUnsubscription")] = ()
    by_owner: Annotated[Sequence[_Happened], Field(alias="adminUnsubscription")] = ()


class _Statistics(BaseModel):
    unsubscriptions: _Unsubscriptions = _Unsubscriptions()
    complaints: Sequence[_Happened] = ()
    hard_bounces: Annotated[Sequence[_Happened], Field(alias="hardBounces")] = ()


class Contact(BaseModel):
    """A contact, with what happened in the last 90 days."""

    id: int
    is_blocked: Annotated[bool, Field(alias="emailBlacklisted")] = False
    """No campaign is sent to it: it unsubscribed, complained or bounced, or the shop blocked it."""
    lists: Annotated[Sequence[int], Field(alias="listIds")] = ()
    lists_left: Annotated[Sequence[int] | None, Field(alias="listUnsubscribed")] = None
    """Lists that it unsubscribed from."""
    statistics: _Statistics = _Statistics()

    def has_left(self, list_id: int) -> bool:
        """Whether it is blocked, or has unsubscribed from a list."""
        return self.is_blocked or list_id in (self.lists_left or ())


class _Error(BaseModel):
    code: str = ""


class Subscription(Enum):
    """What is to be done about the subscription of a person who consents."""

    KEEP = "the person is subscribed, or becomes so"
    RENEW = "the person is to be subscribed again"
    WITHDRAWN = "the person unsubscribed there after its choice, or can't be mailed"


def subscription_wanted(contact: Contact, list_id: int, choice: Choice, *, is_choice: bool) -> Subscription:
    """Decides about the subscription of a contact to a list.

    Args:
        contact: as Brevo has it. When it left is known for 90 days, longer than a choice waits to be delivered.
        list_id: the list.
        choice: the person's newest, which is a consent.
        is_choice: it is the choice itself that is delivered: nothing else subscribes again who has left.
    """
    if not contact.has_left(list_id):
        return Subscription.KEEP
    if not is_choice:
        return Subscription.WITHDRAWN
    at, known = left_at(contact, list_id), contact.statistics
    can_be_mailed = not (known.complaints or known.hard_bounces)
    return Subscription.RENEW if can_be_mailed and at is not None and at < choice.decided_at else Subscription.WITHDRAWN


def left_at(contact: Contact, list_id: int) -> datetime | None:
    """Returns when the person complained or unsubscribed, or was unsubscribed by the shop.

    Returns:
        None for a contact that can be mailed, or can't for no other reason than that its address bounced.
    """
    if not contact.has_left(list_id):
        return None
    known = contact.statistics
    left = (*known.unsubscriptions.by_person, *known.unsubscriptions.by_owner, *known.complaints)
    if left:
        return max(each.event_time or UNKNOWN_TIME for each in left)
    has_only_bounced = known.hard_bounces and list_id not in (contact.lists_left or ())
    return None if has_only_bounced else LONG_AGO


def refusal(status: int, body: bytes, headers: Mapping[str, str]) -> Result:
    """Returns the result of a request that was refused. Its detail is made of the error's code alone: the rest may be personal.

    Args:
        status: of the answer.
        body: an error, or anything else.
        headers: of the answer, which say when the limit of requests is reset.
    """
    try:
        code = _Error.model_validate_json(body).code
    except ValidationError:
        code = ""
    seconds = headers.get(_RESET, "").strip()
    is_known = seconds.isascii() and seconds.isdecimal() and len(seconds) <= _LONGEST_RESET
    return refused(status, code if _CODE.fullmatch(code) else "", timedelta(seconds=int(seconds)) if is_known else None)
