"""The role of identity: serves its rpcs, follows events, purchases and consent, and looks for inactive persons."""

from __future__ import annotations

from typing import Final

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1.identity_pb2_grpc import add_IdentityServiceServicer_to_server
from pmp.ingestion.v1 import ingestion_pb2
from pmp.purchases.v1 import purchases_pb2

from kit.log.leases import Leases
from kit.people.privacy import project_consent
from kit.service.parts import Subscription
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from kit.service.state import PublishedState
from services.identity.consumers import FollowEvents, FollowPurchases
from services.identity.inactivity import Inactivity
from services.identity.personal import PERSONAL_TABLES
from services.identity.servicer import IdentityServicer
from services.identity.settings import IdentitySettings

_NAME: Final = "identity"
_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_EVENTS = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["ListEvents"]
_PURCHASES = purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["ListPurchaseChanges"]


def compose(settings: IdentitySettings, resources: Resources) -> ServiceRuntime:
    """Composes identity."""
    state, hasher = PublishedState(settings, resources, _NAME, one_writer=True), resources.keys.hasher
    servicer = IdentityServicer(settings, state.sessions, state.topic, resources.keys)
    inactivity = Inactivity(state.sessions, state.topic, settings.site_inactive_after)
    return state.runtime(
        rpcs=[(add_IdentityServiceServicer_to_server, servicer)],
        tables=PERSONAL_TABLES,
        subscriptions=[
            Subscription("events", _EVENTS, FollowEvents(state.topic, hasher)),
            Subscription("gdpr", _GDPR, project_consent),
            Subscription("purchases", _PURCHASES, FollowPurchases(state.topic, hasher)),
        ],
        background=[lambda: inactivity.run(Leases(resources.log, _NAME, "inactivity", 1))],
    )


ROLE: Final = Role(_NAME, IdentitySettings, compose)
