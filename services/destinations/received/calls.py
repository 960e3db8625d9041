"""What webhooks lead to: calls of the services that they concern."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import grpc.aio
from pmp.gdpr.v1 import gdpr_pb2
from pmp.gdpr.v1.gdpr_pb2_grpc import GdprServiceStub
from pmp.identity.v1 import identity_pb2
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceStub
from pmp.purchases.v1 import purchases_pb2
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub

from kit.credentials.channels import open_channel
from kit.settings import Settings
from services.destinations.received.shop_orders import deleted

_SECONDS: Final = 10.0


class Calls:
    """Calls purchases, identity and gdpr. Each call may be repeated.

    Every method raises `grpc.aio.AioRpcError` where a service refuses or does not answer: NOT_FOUND for an order or a person that is not
    known yet. Those about an order return False while purchases holds what was reported for an order that it doesn't know.

    Args:
        settings: the addresses, and the mesh's credential.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def update_status(self, order_id: str, request: purchases_pb2.UpdatePaymentStatusRequest) -> bool:
        """Reports the status of a payment."""
        request.id = quote(order_id, safe="")
        return not (await self._purchases("UpdatePaymentStatus", request)).waiting

    async def refund(self, order_id: str, request: purchases_pb2.RefundPurchaseRequest) -> bool:
        """Reports a refund or a chargeback."""
        request.id = quote(order_id, safe="")
        return not (await self._purchases("RefundPurchase", request)).waiting

    async def track(self, request: purchases_pb2.TrackPurchaseRequest) -> bool:
        """Reports an order."""
        await self._purchases("TrackPurchase", request)
        return True

    async def delete(self, order_id: str, at: datetime) -> bool:
        """Reports that an order was deleted at a time."""
        known = await self._purchases("GetPurchase", purchases_pb2.GetPurchaseRequest(id=quote(order_id, safe="")))
        return await self.track(purchases_pb2.TrackPurchaseRequest(purchase=deleted(known.purchase, at)))

    async def change_subscriptions(self, email_hash: bytes, request: identity_pb2.UpdateUserRequest) -> None:
        """Changes the subscriptions of a person. One who unsubscribes from a list wants no more e-mail for marketing."""
        async with self._stub("identity", IdentityServiceStub) as identity:
            found = await identity.FindUser(identity_pb2.FindUserRequest(email_hash=email_hash), **self._options)
            request.id = found.user_id
            await identity.UpdateUser(request, **self._options)
        if all(change.subscribed for change in request.user.email_subscriptions):
            return
        consent = gdpr_pb2.Consent(marketing_emails=False, source="api", timestamp=request.user.updated_at)
        async with self._stub("gdpr", GdprServiceStub) as gdpr:
            await gdpr.UpdateConsent(gdpr_pb2.UpdateConsentRequest(id=found.user_id, consent=consent), **self._options)

    async def _purchases(self, method: str, request: Any) -> Any:
        async with self._stub("purchases", PurchasesServiceStub) as purchases:
            return await getattr(purchases, method)(request, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        return {"metadata": self._settings.mesh_metadata, "timeout": _SECONDS}

    @asynccontextmanager
    async def _stub(self, service: str, stub: Callable[[grpc.aio.Channel], Any]) -> AsyncGenerator[Any]:
        async with open_channel(self._settings, service) as channel:
            yield stub(channel)
