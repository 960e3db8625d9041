"""The role of analytics: serves its rpcs, and follows what its figures are made of. It publishes nothing."""

from __future__ import annotations

from typing import Final

from pmp.analytics.v1.analytics_pb2_grpc import add_AnalyticsServiceServicer_to_server
from pmp.analytics.v1.courses_pb2_grpc import add_CoursesServiceServicer_to_server
from pmp.analytics.v1.dashboard_pb2_grpc import add_DashboardServiceServicer_to_server
from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.ingestion.v1 import ingestion_pb2
from pmp.purchases.v1 import purchases_pb2

from kit.people.privacy import project_consent
from kit.people.subjects.data import SubjectData
from kit.people.subjects.retention import Retention, expiries
from kit.people.subjects.servicer import SubjectDataServicer
from kit.service.parts import Subscription
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from services.analytics.affiliates import AffiliateProgram
from services.analytics.consumers import FollowEvents, FollowIdentity, FollowPurchases
from services.analytics.days import Calendar
from services.analytics.journeys_client import JourneysClient
from services.analytics.performance import CoursesServicer
from services.analytics.personal import personal_tables
from services.analytics.servicer import AnalyticsServicer
from services.analytics.settings import AnalyticsSettings
from services.analytics.sign_in import DashboardServicer

SERVICE: Final = "analytics"
_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_EVENTS = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["ListEvents"]
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]
_PURCHASES = purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["ListPurchaseChanges"]


def compose(settings: AnalyticsSettings, resources: Resources) -> ServiceRuntime:
    """Composes analytics."""
    database, keys, calendar = resources.database(SERVICE, one_writer=True), resources.keys, Calendar(settings.site_timezone)
    program = AffiliateProgram(settings.site_affiliates, calendar)
    tables = personal_tables(calendar)
    data = SubjectData(database, keys, None, tables)
    return ServiceRuntime(
        settings,
        resources,
        SERVICE,
        checks={"database": database.check},
        database=database,
        rpcs=[
            (add_AnalyticsServiceServicer_to_server, AnalyticsServicer(settings, database.sessions, JourneysClient(settings))),
            (add_CoursesServiceServicer_to_server, CoursesServicer(settings, database.sessions)),
            (add_DashboardServiceServicer_to_server, DashboardServicer(resources.log.redis)),
        ],
        subject_data=SubjectDataServicer(data, database, resources.log, None),
        retention=Retention(settings, SERVICE, database.sessions, expiries(tables)),
        subscriptions=[
            Subscription("events", _EVENTS, FollowEvents(keys.hasher, calendar, program)),
            Subscription("gdpr", _GDPR, project_consent),
            Subscription("identity", _IDENTITY, FollowIdentity(calendar)),
            Subscription("purchases", _PURCHASES, FollowPurchases(keys.hasher, calendar, program)),
        ],
    )


ROLE: Final = Role(SERVICE, AnalyticsSettings, compose)
