"""The role of identity: serves its rpcs, and follows events, purchases and consent."""

from __future__ import annotations

from typing import Final

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1.identity_pb2_grpc import add_IdentityServiceServicer_to_server
from pmp.ingestion.v1 import ingestion_pb2
from pmp.purchases.v1 import purchases_pb2

from kit.log.outbox import Relay, StateTopic
from kit.people.privacy import project_consent
from kit.people.subjects.data import SubjectData
from kit.people.subjects.retention import Retention, expiries
from kit.people.subjects.servicer import SubjectDataServicer
from kit.service.parts import Publication, Subscription
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.identity.consumers import FollowEvents, FollowPurchases
from services.identity.personal import HOLDINGS
from services.identity.servicer import IdentityServicer

_NAME: Final = "identity"
_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_EVENTS = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["ListEvents"]
_PURCHASES = purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["ListPurchaseChanges"]


def compose(settings: Settings, resources: Resources) -> ServiceRuntime:
    """Composes identity."""
    database, log, keys = resources.database(_NAME, one_writer=True), resources.log, resources.keys
    topic = StateTopic(_NAME, settings.log_partitions)
    servicer = IdentityServicer(settings, database.sessions, topic, keys)
    data = SubjectData(database, keys, topic, HOLDINGS)
    return ServiceRuntime(
        settings,
        resources,
        _NAME,
        checks={"database": database.check},
        database=database,
        rpcs=[(add_IdentityServiceServicer_to_server, servicer)],
        subject_data=SubjectDataServicer(data, database, log, topic),
        retention=Retention(settings, _NAME, database.sessions, expiries(HOLDINGS), topic),
        publication=Publication(topic, Relay(database.sessions, log, _NAME, keep=settings.topic_keep)),
        subscriptions=[
            Subscription("events", _EVENTS, FollowEvents(topic, keys.vault)),
            Subscription("gdpr", _GDPR, project_consent),
            Subscription("purchases", _PURCHASES, FollowPurchases(topic, keys.vault)),
        ],
    )


ROLE: Final = Role(_NAME, Settings, compose)
