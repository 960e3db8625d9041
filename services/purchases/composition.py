"""The role of purchases: serves its rpcs, publishes orders, and follows identity and consent."""

from __future__ import annotations

from typing import Final

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.purchases.v1.purchases_pb2_grpc import add_PurchasesServiceServicer_to_server

from kit.log.outbox import Relay, StateTopic
from kit.people.persons import project_identity
from kit.people.privacy import project_consent
from kit.people.subjects.data import SubjectData
from kit.people.subjects.retention import Retention, expiries
from kit.people.subjects.servicer import SubjectDataServicer
from kit.service.parts import Publication, Subscription
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from services.purchases.deadlines import Waiting
from services.purchases.messages import TOPIC
from services.purchases.models import PurchaseRow
from services.purchases.personal import holdings
from services.purchases.servicer import PurchasesServicer, Retell
from services.purchases.settings import PurchasesSettings

_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


def compose(settings: PurchasesSettings, resources: Resources) -> ServiceRuntime:
    """Composes purchases."""
    database, log, keys = resources.database(TOPIC), resources.log, resources.keys
    topic = StateTopic(TOPIC, settings.log_partitions)
    tables = holdings(keys.vault, settings.site_erased_purchases)
    servicer = PurchasesServicer(settings, database.sessions, topic, keys)
    data = SubjectData(database, keys, topic, tables, {PurchaseRow.__tablename__: Retell(topic)})
    return ServiceRuntime(
        settings,
        resources,
        TOPIC,
        checks={"database": database.check},
        database=database,
        rpcs=[(add_PurchasesServiceServicer_to_server, servicer)],
        subject_data=SubjectDataServicer(data, database, log, topic),
        retention=Retention(settings, TOPIC, database.sessions, expiries(tables), topic),
        publication=Publication(topic, Relay(database.sessions, log, TOPIC, keep=settings.topic_keep)),
        subscriptions=[Subscription("gdpr", _GDPR, project_consent), Subscription("identity", _IDENTITY, project_identity)],
        background=[Waiting(database.sessions).run],
    )


ROLE: Final = Role(TOPIC, PurchasesSettings, compose)
