"""Klaviyo: who unsubscribes, complains or can't be reached. One webhook states up to a thousand events.

https://developers.klaviyo.com/en/docs/working_with_system_webhooks
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, Field
from typing_extensions import override

from kit.errors import Unauthenticated
from services.destinations.received.sender import Sender, parsed
from services.destinations.received.signatures import check_appended, check_time, header
from services.destinations.received.statement import Nothing, Statement, Unreadable
from services.destinations.received.subscriptions import subscription

_SIGNATURE: Final = "klaviyo-signature"
_TIMESTAMP: Final = "klaviyo-timestamp"
_WEBHOOK: Final = "klaviyo-webhook-id"
_OLDEST: Final = timedelta(days=3)
"""Klaviyo repeats a webhook for two days. One that is sent once more by somebody else changes nothing."""
_ACCOUNT: Final = r"^[A-Za-z0-9]{1,20}$"
_BOUNCED: Final = "event:klaviyo.bounced_email"
_SUBSCRIBED: Final = {
    "event:klaviyo.subscribed_to_email_marketing": True,
    "event:klaviyo.unsubscribed_from_email_marketing": False,
    "event:klaviyo.manually_suppressed_from_email_marketing": False,
    "event:klaviyo.marked_email_as_spam": False,
    _BOUNCED: False,
}
"""Topics about one person's subscription, and whether the person is subscribed after it."""
_ADDRESSES: Final = ("email_address", "Recipient Email Address", "email", "$email")
"""Properties of events in which the address may be."""
_HARD: Final = re.compile("hard", re.IGNORECASE)

_Time = Annotated[datetime, AfterValidator(lambda at: at if at.tzinfo else at.replace(tzinfo=UTC))]


class _Meta(BaseModel):
    klaviyo_account_id: Annotated[str, Field(pattern=_ACCOUNT)]
    klaviyo_webhook_id: str = ""
    timestamp: _Time


class _Attributes(BaseModel):
    datetime: _Time | None = None
    timestamp: int | None = Field(default=None, ge=0, lt=10**10)
    event_properties: dict[str, Any] | None = None


class _Data(BaseModel):
    attributes: _Attributes


class _Included(BaseModel):
    type: str = ""
    attributes: dict[str, Any] = {}


class _Payload(BaseModel):
    data: _Data
    included: Sequence[_Included] = ()


class _Event(BaseModel):
    topic: str
    external_id: str = Field(min_length=1, max_length=200)
    payload: _Payload


class _Delivery(BaseModel):
    meta: _Meta
    data: Sequence[dict[str, Any]]


class Klaviyo(Sender):
    """Webhooks of Klaviyo."""

    @property
    @override
    def is_configured(self) -> bool:
        return bool(self.settings.secrets_of("klaviyo"))

    @override
    async def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        check_appended(self.settings.secrets_of("klaviyo"), body, headers, _SIGNATURE, header(headers, _TIMESTAMP))
        try:
            meta = parsed(_Delivery, body).meta
        except Unreadable:
            return  # it is said when it is read
        if headers.get(_WEBHOOK, meta.klaviyo_webhook_id) != meta.klaviyo_webhook_id:
            raise Unauthenticated(f"{_WEBHOOK} is another webhook's than the body")
        # The header is signed, too, but has been seen in other zones than the one that it names.
        check_time(meta.timestamp, now, "meta.timestamp", oldest=_OLDEST)

    @override
    def read(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Sequence[Statement] | Nothing:
        delivery = parsed(_Delivery, body)
        topics = [str(each.get("topic", "")) for each in delivery.data]
        known = [each for topic, each in zip(topics, delivery.data, strict=True) if topic in _SUBSCRIBED]
        return list(_stated(known, delivery.meta)) or Nothing(next(iter(topics), ""))


def _stated(events: Sequence[Mapping[str, Any]], meta: _Meta) -> Iterator[Statement]:
    """What events state. One without a time of its own is dated by the webhook.

    One that can't be read is left out: refused for its sake, the others would not arrive either.

    Raises:
        Unreadable: none of them can be read.
    """
    refusals: list[Unreadable] = []
    for each in events:
        try:
            event = parsed(_Event, each)
        except Unreadable as error:
            refusals.append(error)
            continue
        attributes, email = event.payload.data.attributes, _address(event.payload)
        properties = attributes.event_properties or {}
        if not email or (event.topic == _BOUNCED and not _HARD.search(str(properties.get("Bounce Type", "")))):
            continue
        at = attributes.datetime or (datetime.fromtimestamp(attributes.timestamp, UTC) if attributes.timestamp else meta.timestamp)
        account = f"klaviyo:{meta.klaviyo_account_id}"
        yield subscription(event.external_id, event.topic, at, account, email, subscribed=_SUBSCRIBED[event.topic])
    if refusals and len(refusals) == len(events):
        raise refusals[0]


def _address(payload: _Payload) -> str:
    """The address of the person; empty where the event does not have it."""
    properties = payload.data.attributes.event_properties or {}
    found = [each.attributes.get("email") for each in payload.included if each.type == "profile"]
    found += [properties.get(name) for name in _ADDRESSES]
    return next((each.strip() for each in found if isinstance(each, str) and "@" in each), "")


SENDER: Final = Klaviyo
