"""Serves the rpcs of identity, and follows events and purchases: `python -m services identity`."""

from __future__ import annotations

from pmp.identity.v1.identity_pb2_grpc import add_IdentityServiceServicer_to_server
from pmp.ingestion.v1 import ingestion_pb2
from pmp.purchases.v1 import purchases_pb2

from kit.log.publisher import Feed, open_publisher
from kit.server import run
from kit.settings import Settings
from kit.vault import Vault
from services.identity.consumers import FollowEvents, FollowPurchases
from services.identity.servicer import IdentityServicer

_EVENTS = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["ListEvents"]
_PURCHASES = purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["ListPurchaseChanges"]


async def main(settings: Settings) -> None:
    """Answers, publishes and follows until it is told to stop."""
    async with open_publisher(settings, "identity") as publisher:
        topic = publisher.topic
        servicer = IdentityServicer(settings, publisher.sessions, topic, Vault.from_settings(settings))
        await publisher.serve(
            [(add_IdentityServiceServicer_to_server, servicer)],
            [Feed("events", _EVENTS, FollowEvents(topic)), Feed("purchases", _PURCHASES, FollowPurchases(topic))],
        )


run(main)
