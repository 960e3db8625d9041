"""WooCommerce's own webhooks, for a shop without the plugin: orders, with their refunds.

Their delivery ids are not unique, and they are never sent again: a webhook is known by the order, its time of modification and the body.
https://developer.woocommerce.com/docs/best-practices/data-management/webhooks/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final

from pmp.purchases.v1 import purchases_pb2 as pb
from pydantic import BaseModel, Field
from typing_extensions import override

from services.destinations.received.sender import Sender, parsed
from services.destinations.received.shop_orders import Order, personal_of, purchase_of
from services.destinations.received.signatures import check_base64, header
from services.destinations.received.statement import Effect, Nothing, Statement

_SIGNATURE: Final = "x-wc-webhook-signature"
_TOPIC: Final = "x-wc-webhook-topic"
_DELIVERY: Final = "x-wc-webhook-delivery-id"
_TEST: Final = re.compile(rb"webhook_id=\d{1,18}")
_RESTORED: Final = "order.restored"
_ORDERS: Final = frozenset({"order.created", "order.updated", _RESTORED})


class _Deleted(BaseModel):
    id: int = Field(gt=0)


class WooCommerce(Sender):
    """Webhooks of WooCommerce."""

    @property
    @override
    def is_configured(self) -> bool:
        return bool(self.settings.secrets_of("woocommerce"))

    @override
    async def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        check_base64(self.settings.secrets_of("woocommerce"), body, headers, _SIGNATURE)

    @override
    def is_test_call(self, headers: Mapping[str, str], body: bytes) -> bool:
        return _SIGNATURE not in headers and _TEST.fullmatch(body) is not None

    @override
    def read(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Statement | Nothing:
        topic = header(headers, _TOPIC)[:100]
        if topic == "order.deleted":
            return _deleted(topic, parsed(_Deleted, body), headers.get(_DELIVERY, ""), now)
        if topic not in _ORDERS:
            return Nothing(topic)
        order = parsed(Order, body)
        # An order may have been restored before its deletion arrived, which counts from its arrival.
        read_at = max(now, order.date_modified_gmt) if topic == _RESTORED else order.date_modified_gmt
        return _stated(topic, order, body, read_at) if order.is_placed else Nothing(topic)


def _stated(topic: str, order: Order, body: bytes, read_at: datetime) -> Statement:
    fact = f"order:{order.id}:{order.date_modified_gmt:%Y%m%dT%H%M%S}:{sha256(body).hexdigest()[:32]}"
    if topic == _RESTORED:  # it comes with an update of the same body, which counts from another time
        fact = f"{fact}:restored"
    return Statement(
        fact,
        topic,
        fact,
        read_at,
        Effect.ORDER,
        pb.TrackPurchaseRequest(purchase=purchase_of(order, read_at)),
        str(order.id),
        personal=pb.TrackPurchaseRequest(purchase=personal_of(order)),
        user_id=order.user_id,
        email=order.email,
    )


def _deleted(topic: str, order: _Deleted, delivery: str, now: datetime) -> Statement:
    """The webhook has nothing but the order's id, not even when it was deleted."""
    fact = f"order:{order.id}:deleted:{delivery[:100]}"
    return Statement(fact, topic, fact, now, Effect.ORDER_DELETED, pb.GetPurchaseRequest(id=str(order.id)), str(order.id))


SENDER: Final = WooCommerce
