"""What a webhook states. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from google.protobuf.message import Message

from kit.errors import MeshError

_ORDER_ID: Final = re.compile(r"[^\x00-\x20\x7f-\xa0]([^\x00-\x1f\x7f-\x9f]{0,98}[^\x00-\x20\x7f-\xa0])?")


def order_number(text: str) -> str:
    """A number that an order can have, as purchases takes it; empty for another text."""
    return text if _ORDER_ID.fullmatch(text) else ""


class Unreadable(MeshError):
    """A signed webhook is not what its sender documents. The message names fields, never values."""


class Effect(StrEnum):
    """What a statement leads to."""

    STATUS = "status"
    """`UpdatePaymentStatus` of purchases."""
    REFUND = "refund"
    """`RefundPurchase` of purchases."""
    ORDER = "order"
    """`TrackPurchase` of purchases."""
    ORDER_DELETED = "order_deleted"
    """`TrackPurchase` with the order as purchases knows it: deleted."""
    SUBSCRIPTION = "subscription"
    """Changes of a person's consent and subscriptions, found by e-mail address."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a webhook states about one object of its sender."""

    event_id: str
    """The sender's id of the webhook: the same when it is sent again."""
    kind: str
    """The type of the event, in the sender's words."""
    fact: str
    """The object and its state. Two webhooks with one fact state the same."""
    at: datetime
    """When it happened."""
    effect: Effect
    request: Message
    """The request that it becomes, without anything personal; its `id` is filled in later."""
    order_id: str = ""
    """The shop's number of the order; empty if the webhook doesn't have it."""
    payments: Sequence[str] = ()
    """The sender's ids of the payment: other webhooks may name the order by them only."""
    personal: Message | None = None
    """What is personal in the request, a part of the same message: sealed while it is kept."""
    user_id: str = ""
    """The person, in WordPress."""
    email: str = ""
    """The person's e-mail address, of which only a keyed hash is kept."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A webhook that states nothing the mesh acts on."""

    kind: str
