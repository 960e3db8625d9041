"""Serves the rpcs of purchases and publishes what was sold: `python -m services purchases`."""

from __future__ import annotations

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.purchases.v1.purchases_pb2_grpc import add_PurchasesServiceServicer_to_server

from kit.people.persons import project_identity
from kit.people.privacy import project_consent
from kit.server import run
from kit.service import Subscription, open_runtime
from kit.settings import Settings
from services.purchases.deadlines import Waiting
from services.purchases.messages import TOPIC
from services.purchases.models import PurchaseRow
from services.purchases.personal import holdings
from services.purchases.servicer import PurchasesServicer, Retell

_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


async def main(settings: Settings) -> None:
    """Works until it is told to stop."""
    async with open_runtime(settings, TOPIC) as runtime:
        servicer = PurchasesServicer(settings, runtime.sessions, runtime.topic, runtime.keys)
        own = holdings(runtime.keys.vault, settings.site_erased_purchases)
        after = {PurchaseRow.__tablename__: Retell(runtime.topic)}
        await runtime.serve(
            [(add_PurchasesServiceServicer_to_server, servicer), runtime.subject_data(own, after)],
            [Subscription("gdpr", _GDPR, project_consent), Subscription("identity", _IDENTITY, project_identity)],
            [runtime.retention(own), Waiting(runtime.sessions).run],
        )


run(main)
