"""Decides what Klaviyo's answers mean: refusals, and the subscription of a profile."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ValidationError

from kit.people.privacy import Choice
from services.destinations.answers import refused
from services.destinations.email_marketing import UNKNOWN_TIME
from services.destinations.kind import Result

_CODE: Final = re.compile(r"[a-z_]{1,60}")
_FINAL: Final = {"HARD_BOUNCE", "INVALID_EMAIL", "SPAM_COMPLAINT"}
"""Suppressions that stay whatever the person chooses in the shop."""
_UNWANTED: Final = {"UNSUBSCRIBE", "USER_SUPPRESSED", "SPAM_COMPLAINT"}

_Time = Annotated[datetime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]


class _Suppression(BaseModel):
    reason: str
    timestamp: _Time


class Marketing(BaseModel):
    """A profile's subscription to marketing e-mails."""

    consent: str = "NEVER_SUBSCRIBED"
    """SUBSCRIBED, UNSUBSCRIBED or NEVER_SUBSCRIBED."""
    consent_timestamp: _Time | None = None
    last_updated: _Time | None = None
    suppression: Sequence[_Suppression] | None = None


class _Email(BaseModel):
    marketing: Marketing | None = None


class _Subscriptions(BaseModel):
    email: _Email | None = None


class _Attributes(BaseModel):
    subscriptions: _Subscriptions


class Profile(BaseModel):
    """A profile with its subscriptions."""

    id: str = ""
    attributes: _Attributes

    @property
    def marketing(self) -> Marketing:
        """Its subscription to marketing e-mails."""
        email = self.attributes.subscriptions.email
        return (email and email.marketing) or Marketing()


class ImportedProfile(BaseModel):
    """The answer to a profile that was created or updated."""

    data: Profile


class FoundProfiles(BaseModel):
    """The answer to a search for profiles."""

    data: Sequence[Profile]


class _Error(BaseModel):
    code: str = ""


class _Errors(BaseModel):
    errors: Sequence[_Error] = ()


class Subscription(Enum):
    """What is to be done about the subscription of a person who consents."""

    NOTHING = "the person is subscribed"
    SUBSCRIBE = "the person is to be subscribed"
    WITHDRAWN = "the person unsubscribed there after its choice, or can't be mailed"


def subscription_wanted(marketing: Marketing, choice: Choice) -> Subscription:
    """Decides whether to subscribe a person, which would lift the suppressions of its profile.

    Args:
        marketing: the profile's subscription.
        choice: the person's newest, which is a consent.
    """
    suppressions = marketing.suppression or ()
    if any(each.reason in _FINAL for each in suppressions):
        return Subscription.WITHDRAWN
    if marketing.consent == "SUBSCRIBED" and not suppressions:
        return Subscription.NOTHING
    withdrawn: list[datetime | None] = [each.timestamp for each in suppressions]
    unsubscribed_at = marketing.consent_timestamp or marketing.last_updated
    if is_unsubscribed(marketing) and (unsubscribed_at or not withdrawn):
        withdrawn.append(unsubscribed_at)
    is_newer = all(at is not None and choice.decided_at > at for at in withdrawn)
    return Subscription.SUBSCRIBE if is_newer else Subscription.WITHDRAWN


def is_unsubscribed(marketing: Marketing) -> bool:
    """Whether the person has unsubscribed."""
    return marketing.consent == "UNSUBSCRIBED"


def left_at(marketing: Marketing) -> datetime | None:
    """Returns since when the person, or the owner of the account, wants no e-mails to be sent.

    Returns:
        None for who may be sent some; an address that bounced says nothing of that.
    """
    left = [each.timestamp for each in marketing.suppression or () if each.reason in _UNWANTED]
    unsubscribed_at = marketing.consent_timestamp or marketing.last_updated
    if is_unsubscribed(marketing) and (unsubscribed_at or not left):
        left.append(unsubscribed_at or UNKNOWN_TIME)
    return max(left, default=None)


def refusal(status: int, body: bytes, wait: timedelta | None) -> Result:
    """Returns the result of a request that was refused. Its detail is made of the error's code alone: the rest may be personal.

    Args:
        status: of the answer.
        body: a document with errors, or anything else.
        wait: how long the answer asks to wait.
    """
    code = _code(body)
    return refused(status, code if _CODE.fullmatch(code) else "", wait)


def _code(body: bytes) -> str:
    try:
        errors = _Errors.model_validate_json(body).errors
    except ValidationError:
        return ""
    return errors[0].code if errors else ""
