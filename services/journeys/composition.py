"""The role of journeys: serves its rpcs, and follows what journeys are made of."""

from __future__ import annotations

from functools import partial
from typing import Final

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.ingestion.v1 import ingestion_pb2
from pmp.journeys.v1.journeys_pb2_grpc import add_JourneysServiceServicer_to_server
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
from services.journeys.consumers import FollowEvents, FollowPurchases, follow_identity
from services.journeys.messages import TOPIC
from services.journeys.models import SessionRow
from services.journeys.personal import holdings, visit_pseudonym
from services.journeys.projection import AttributionStore, erase_paths, mark_expired, splitter_of
from services.journeys.repository import erase_visits
from services.journeys.servicer import JourneysServicer

_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_EVENTS = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["ListEvents"]
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]
_PURCHASES = purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["ListPurchaseChanges"]


def compose(settings: Settings, resources: Resources) -> ServiceRuntime:
    """Composes journeys."""
    database, log, vault = resources.database(TOPIC), resources.log, resources.keys.vault
    topic = StateTopic(TOPIC, settings.log_partitions)
    splitter = splitter_of(settings, vault)
    store = AttributionStore(database.sessions, splitter)
    servicer = JourneysServicer(settings, database.sessions, topic, vault, store)
    tables = holdings(vault, partial(erase_visits, pseudonym_of=partial(visit_pseudonym, vault)), partial(erase_paths, splitter))
    data = SubjectData(database, resources.keys, topic, tables)
    expired = {SessionRow.__tablename__: mark_expired}
    return ServiceRuntime(
        settings,
        resources,
        TOPIC,
        checks={"database": database.check},
        database=database,
        rpcs=[(add_JourneysServiceServicer_to_server, servicer)],
        subject_data=SubjectDataServicer(data, database, log, topic),
        retention=Retention(settings, TOPIC, database.sessions, expiries(tables), topic, after=expired),
        publication=Publication(topic, Relay(database.sessions, log, TOPIC, keep=settings.topic_keep)),
        subscriptions=[
            Subscription("events", _EVENTS, FollowEvents(vault)),
            Subscription("gdpr", _GDPR, project_consent),
            Subscription("identity", _IDENTITY, follow_identity),
            Subscription("purchases", _PURCHASES, FollowPurchases(vault)),
        ],
        background=[store.run],
    )


ROLE: Final = Role(TOPIC, Settings, compose)
