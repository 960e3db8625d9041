"""Today's orders, from the service purchases: its topic does not reach back to midnight."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any, Final

import grpc.aio
from pmp.purchases.v1 import purchases_pb2 as pb
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub

from kit.credentials.channels import open_channel
from kit.errors import Unavailable
from kit.settings import Settings
from services.realtime.sales import Sale

_CALL_SECONDS: Final = 10.0
_PAGE: Final = 500
_SALE: Final = "sale"


class TodaysOrders:
    """Asks purchases for orders.

    Args:
        settings: the address of purchases, and the mesh's credential.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def since(self, midnight: float) -> AsyncGenerator[Sale]:
        """Yields the orders with a ledger entry at a time or later, in seconds since 1970; no excluded ones.

        Raises:
            Unavailable: purchases does not answer.
        """
        request = pb.ListPurchasesRequest(date="entry", page_size=_PAGE)
        getattr(request, "from").FromMilliseconds(int(midnight * 1000))
        try:
            async with open_channel(self._settings, "purchases") as channel:
                stub: Any = PurchasesServiceStub(channel)
                while True:
                    metadata = self._settings.mesh_metadata
                    page: pb.ListPurchasesResponse = await stub.ListPurchases(request, metadata=metadata, timeout=_CALL_SECONDS)
                    for purchase in page.purchases:
                        yield _sale(purchase)
                    if not page.next_page_token:
                        return
                    request.page_token = page.next_page_token
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"purchases answers {error.code().name}: today's revenue is not known") from None


def _sale(purchase: pb.RecordedPurchase) -> Sale:
    sold_at = float(purchase.sold_at.seconds)
    entries = (
        (sold_at if entry.kind == _SALE else float(entry.timestamp.seconds), Decimal(repr(entry.amount))) for entry in purchase.entries
    )
    return Sale(purchase.purchase_id, purchase.currency, sold_at, tuple(entries))
