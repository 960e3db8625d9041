"""Live messages of what the topics publish, and what of them may be shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.options.v1 import options_pb2
from pmp.purchases.v1.change_pb2 import PaymentStatus, PurchaseChanged
from pmp.realtime.v1 import realtime_pb2 as pb

ORDER: Final = "order"
"""The type of messages about orders."""


class Live:
    """A message as it is streamed, in full and without personal data."""

    __slots__ = ("_shown", "courses", "full", "source")

    def __init__(self, source: EventStored | PurchaseChanged, full: pb.LiveMessage, courses: frozenset[str]) -> None:
        self.source = source
        """The message of the topic."""
        self.full = full
        self.courses = courses
        """The courses it is about, by which it is selected."""
        self._shown: pb.LiveMessage | None = None

    @property
    def shown(self) -> pb.LiveMessage:
        """Without personal data."""
        if self._shown is None:
            self._shown = pb.LiveMessage()
            self._shown.CopyFrom(self.full)
            leave_out_personal(self._shown)
        return self._shown


def _of_event(payload: bytes) -> Live:
    stored = EventStored.FromString(payload)
    event, enrichment = stored.event, stored.enrichment
    live = pb.LiveEvent(
        id=event.id,
        page_url=event.page_url,
        page_title=event.page_title,
        course=enrichment.course,
        source=enrichment.traffic_source,
        medium=enrichment.traffic_medium,
        campaign=enrichment.campaign,
        device=enrichment.device,
        browser=enrichment.browser,
        os=enrichment.os,
        platform=event.platform,
        is_bot=enrichment.is_bot,
        is_update=stored.is_update,
        user_id=event.user_id,
        session_id=event.session_id,
        visitor=enrichment.visitor,
    )
    courses = frozenset({enrichment.course} - {""})
    return Live(stored, pb.LiveMessage(type=event.event_type, timestamp=event.timestamp, event=live), courses)


def _of_order(payload: bytes) -> Live:
    changed = PurchaseChanged.FromString(payload)
    live = pb.LiveOrder(
        purchase_id=changed.purchase_id,
        order_id=changed.order_id,
        payment_status=PaymentStatus.Name(changed.payment_status).removeprefix("PAYMENT_STATUS_").lower(),
        currency=changed.currency,
        amount=changed.amount,
        paid_amount=changed.paid_amount,
        refunded_amount=changed.refunded_amount,
        lines=[
            pb.LiveLine(product_id=line.product_id, product_name=line.product_name, quantity=line.quantity, amount=line.amount)
            for line in changed.lines
        ],
        excluded=changed.excluded,
        source=changed.utm_attribution.source,
        medium=changed.utm_attribution.medium,
        campaign=changed.utm_attribution.campaign,
        user_id=changed.user_id,
        session_id=changed.session_id,
    )
    if changed.HasField("paid_at"):
        live.paid_at.CopyFrom(changed.paid_at)
    products = frozenset(line.product_id for line in changed.lines)
    return Live(changed, pb.LiveMessage(type=ORDER, timestamp=changed.timestamp, order=live), products)


LIVE: Final[Mapping[str, Callable[[bytes], Live]]] = {
    EventStored.DESCRIPTOR.full_name: _of_event,
    PurchaseChanged.DESCRIPTOR.full_name: _of_order,
}
"""Makes a live message of the payload of a topic's message, by its type."""


def leave_out_personal(message: Message) -> None:
    """Clears the fields of a message, and of those in it, that its proto declares personal: identifiers and personal texts."""
    for name in _personal(message.DESCRIPTOR):
        message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            values: Any = value if field.is_repeated else [value]
            for each in values:
                leave_out_personal(each)


@cache
def _personal(kind: Descriptor) -> tuple[str, ...]:
    fields = [(field.name, field.GetOptions().Extensions) for field in kind.fields]
    return tuple(
        name for name, options in fields if options[options_pb2.identifier] or options[options_pb2.text] == options_pb2.TEXT_PERSONAL
    )
