"""The role of purchases: serves its rpcs, publishes orders, and follows identity and consent."""

from __future__ import annotations

from typing import Final

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.purchases.v1.comparison_pb2_grpc import add_ComparisonServiceServicer_to_server
from pmp.purchases.v1.purchases_pb2_grpc import add_PurchasesServiceServicer_to_server

from kit.people.persons import project_identity
from kit.people.privacy import project_consent
from kit.service.parts import Subscription
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from kit.service.state import PublishedState
from services.purchases.comparison import ComparisonGauges, ComparisonServicer
from services.purchases.deadlines import HeldReportExpiry
from services.purchases.messages import TOPIC
from services.purchases.models import PurchaseRow
from services.purchases.personal import personal_tables
from services.purchases.publishing import RepublishErased
from services.purchases.servicer import PurchasesServicer
from services.purchases.settings import PurchasesSettings

_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


def compose(settings: PurchasesSettings, resources: Resources) -> ServiceRuntime:
    """Composes purchases."""
    state = PublishedState(settings, resources, TOPIC)
    servicer = PurchasesServicer(settings, state.sessions, state.topic, resources.keys)
    return state.runtime(
        rpcs=[
            (add_PurchasesServiceServicer_to_server, servicer),
            (add_ComparisonServiceServicer_to_server, ComparisonServicer(settings, state.sessions)),
        ],
        tables=personal_tables(resources.keys.hasher, settings.site_erased_purchases),
        after_erasure={PurchaseRow.__tablename__: RepublishErased(state.topic)},
        subscriptions=[Subscription("gdpr", _GDPR, project_consent), Subscription("identity", _IDENTITY, project_identity)],
        background=[HeldReportExpiry(state.sessions).run, ComparisonGauges(state.sessions).run],
    )


ROLE: Final = Role(TOPIC, PurchasesSettings, compose)
