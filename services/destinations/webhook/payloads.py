"""What webhooks say: their types, and the messages of the topics as JSON without anything personal. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, Final

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage
from pmp.destinations.v1.notice_pb2 import ContentPerformanceUpdated
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.options.v1 import options_pb2
from pmp.purchases.v1 import change_pb2 as purchases

from kit.times import moment
from services.destinations.kind import Message, Wanted
from services.destinations.refunds import Refund, refunds

_REFUNDED: Final = "order.refunded"
ORDER_TYPES: Final = ("order.placed", "order.paid", _REFUNDED)
OTHER_TYPES: Final = ("user.created", "user.registered", "touchpoint.recorded", "conversion.recorded", "content.performance.updated")
ERASED: Final = "person.erased"
"""The type that asks a system to delete a person."""
EVENT: Final = "event."
"""What the types of events begin with: the rest is the event's own type."""

_OTHERS: Final = re.compile(r"[^A-Za-z0-9_.]")
"""Characters that the specification does not allow in a type."""


def happened(message: Message) -> Iterator[Wanted]:
    """Yields what happened according to a message, each with the type of its webhook as its name."""
    if isinstance(message, EventStored):
        type_ = EVENT + _OTHERS.sub("_", message.event.event_type)
        yield Wanted(type_, f"{type_}:{message.key or message.event.id}", moment(message.event.timestamp))
    elif isinstance(message, purchases.PurchaseChanged):
        yield from _of_order(message)
    elif isinstance(message, JourneyChanged):
        yield from _of_journey(message)
    elif isinstance(message, ContentPerformanceUpdated):
        shown = message.performance
        row = (message.day, shown.kind, shown.content, shown.course)
        own = f"content:{blake2b(repr(row).encode(), digest_size=16).hexdigest()}"
        # About no person, who would have to agree.
        yield Wanted("content.performance.updated", "", moment(message.at), own, needs_consent=False)
    elif isinstance(message, IdentityChanged) and message.HasField("user"):
        user, own = message.user, f"user:{message.user.user_id}"
        if user.HasField("created_at"):
            yield Wanted("user.created", f"user.created:{user.user_id}", moment(user.created_at), own)
        if user.HasField("registration_date"):
            yield Wanted("user.registered", f"user.registered:{user.user_id}", moment(user.registration_date), own)


def body(wanted: Wanted, message: ProtoMessage) -> bytes:
    """Returns the JSON of a webhook: its type, when it happened, the schema of the data, and the data; of a refund what went back, too."""
    found: dict[str, Any] = {
        "type": wanted.name,
        "timestamp": wanted.at.isoformat(),
        "schema": message.DESCRIPTOR.full_name,
        "data": _json(message),
    }
    if isinstance(message, purchases.PurchaseChanged) and wanted.name == _REFUNDED:
        found["refund"] = next((_json(each.entry) for each in refunds(message) if _refund_key(message, each) == wanted.key), None)
    return orjson.dumps(found)


def _of_order(order: purchases.PurchaseChanged) -> Iterator[Wanted]:
    own = f"order:{order.purchase_id}"
    yield Wanted("order.placed", f"order.placed:{order.purchase_id}", moment(order.timestamp), own)
    if order.HasField("sold_at"):
        yield Wanted("order.paid", f"order.paid:{order.purchase_id}", moment(order.sold_at), own)
    for refund in refunds(order):
        yield Wanted(_REFUNDED, _refund_key(order, refund), moment(refund.entry.timestamp), own, is_historical=refund.is_historical)


def _refund_key(order: purchases.PurchaseChanged, refund: Refund) -> str:
    return f"{_REFUNDED}:{order.purchase_id}:{refund.number}"


def _of_journey(message: JourneyChanged) -> Iterator[Wanted]:
    if message.HasField("touchpoint"):
        touchpoint = message.touchpoint
        yield Wanted("touchpoint.recorded", f"touchpoint.recorded:{touchpoint.key or touchpoint.id}", moment(touchpoint.timestamp))
    elif message.HasField("conversion"):
        yield Wanted("conversion.recorded", f"conversion.recorded:{message.conversion.id}", moment(message.conversion.timestamp))


def _json(message: ProtoMessage) -> dict[str, Any]:
    """Returns a message as JSON, without sealed values, keyed hashes, and texts about the person."""
    copy = type(message)()
    copy.CopyFrom(message)
    _clear(copy)
    return MessageToDict(copy, preserving_proto_field_name=True)


def _clear(message: Any) -> None:
    fields: Iterable[tuple[FieldDescriptor, Any]] = message.ListFields()
    for field, value in list(fields):
        is_personal = field.GetOptions().Extensions[options_pb2.text] == options_pb2.TEXT_PERSONAL
        if is_personal or field.type == FieldDescriptor.TYPE_BYTES:
            message.ClearField(field.name)
        elif field.message_type is not None and field.message_type.file.package.startswith("pmp."):
            for each in value if field.is_repeated else [value]:
                _clear(each)
