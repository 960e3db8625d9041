"""The worker of ingestion: stores, enriches and publishes the events in the raw log. Replicas share the partitions."""

from __future__ import annotations

from functools import partial
from typing import Final

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2

from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay
from kit.log.trim import Trimmer
from kit.people.persons import project_identity
from kit.people.privacy import project_consent
from kit.people.subjects.retention import Retention
from kit.service.parts import Publication, RawLog, Subscription
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from services.ingestion.consent import Policy
from services.ingestion.consumers import ApplyConsent, StoreEvents, growing_old
from services.ingestion.enrichment import Enricher
from services.ingestion.losses import Losses
from services.ingestion.messages import RAW_TOPIC, TOPIC
from services.ingestion.settings import SERVICE, IngestionSettings

_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


def compose(settings: IngestionSettings, resources: Resources) -> ServiceRuntime:
    """Composes the worker, which serves no rpcs."""
    database, log, keys = resources.database(SERVICE), resources.log, resources.keys
    partitions = settings.log_partitions
    outbox = Outbox(TOPIC)
    enricher = Enricher(settings.site_hosts, settings.site_timezone, partial(keys.hasher.digest, purpose="visitor"))
    consent = ApplyConsent(Policy.of(settings.site_consent_denied, settings.site_consent_unknown))
    return ServiceRuntime(
        settings,
        resources,
        SERVICE,
        checks={"database": database.check, "log": log.check},
        database=database,
        retention=Retention(settings, SERVICE, database.sessions, growing_old(settings)),
        publication=Publication(outbox, Relay(database.sessions, log, TOPIC, keep=settings.topic_keep)),
        subscriptions=[Subscription("gdpr", _GDPR, project_consent), Subscription("identity", _IDENTITY, project_identity)],
        raw_log=RawLog(
            RAW_TOPIC,
            StoreEvents(outbox, enricher, keys, consent),
            Trimmer(log, RAW_TOPIC, keep=settings.log_keep, max_bytes=settings.log_max_bytes // (2 * partitions)),
            Losses(database.sessions, log, RAW_TOPIC, partitions).look,
        ),
    )


ROLE: Final = Role("ingestion-worker", IngestionSettings, compose)
