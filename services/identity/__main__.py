"""Serves the rpcs of identity, and follows events, purchases and people's rights: `python -m services identity`."""

from __future__ import annotations

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1.identity_pb2_grpc import add_IdentityServiceServicer_to_server
from pmp.ingestion.v1 import ingestion_pb2
from pmp.purchases.v1 import purchases_pb2

from kit.people.privacy import project_consent
from kit.server import run
from kit.service import Subscription, open_runtime
from kit.settings import Settings
from services.identity.consumers import FollowEvents, FollowPurchases
from services.identity.personal import HOLDINGS
from services.identity.servicer import IdentityServicer

_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_EVENTS = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["ListEvents"]
_PURCHASES = purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["ListPurchaseChanges"]


async def main(settings: Settings) -> None:
    """Answers, publishes and follows until it is told to stop."""
    async with open_runtime(settings, "identity", one_writer=True) as runtime:
        topic, vault = runtime.topic, runtime.keys.vault
        servicer = IdentityServicer(settings, runtime.sessions, topic, runtime.keys)
        await runtime.serve(
            [(add_IdentityServiceServicer_to_server, servicer), runtime.subject_data(HOLDINGS)],
            [
                Subscription("events", _EVENTS, FollowEvents(topic, vault)),
                Subscription("gdpr", _GDPR, project_consent),
                Subscription("purchases", _PURCHASES, FollowPurchases(topic, vault)),
            ],
            [runtime.retention(HOLDINGS)],
        )


run(main)
