"""Stores, enriches and publishes what lies in the raw log: `python -m services ingestion worker`."""

from __future__ import annotations

from functools import partial

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2

from kit.database.engine import open_database
from kit.log.consume.consumer import RawLogConsumer
from kit.log.consume.isolation import DeadLetterLimit
from kit.log.leases import Leases
from kit.log.publish.outbox import Outbox, prepare_heads
from kit.log.publish.relay import Relay
from kit.log.redis_log import open_log
from kit.log.report import Report
from kit.log.streams import Offset
from kit.log.trim import TopicTrimmer, Trimmer
from kit.people.keys.store import open_keys
from kit.people.persons import project_identity
from kit.people.privacy import project_consent
from kit.people.subjects.retention import Retention
from kit.server import run, work
from kit.service import Subscription, follow
from kit.settings import Settings
from kit.telemetry.instrumentation import instrument
from kit.telemetry.setup import telemetry
from services.ingestion.consent import Policy
from services.ingestion.consumers import ObeyConsent, StoreEvents, growing_old
from services.ingestion.enrichment import Enricher
from services.ingestion.losses import Losses
from services.ingestion.messages import RAW_TOPIC, TOPIC

_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]
_SUBSCRIPTIONS = (Subscription("gdpr", _GDPR, project_consent), Subscription("identity", _IDENTITY, project_identity))


async def main(settings: Settings) -> None:
    """Works until it is told to stop. Replicas share the partitions."""
    partitions = settings.log_partitions
    with telemetry(settings, "ingestion-worker"):
        async with (
            open_database(settings.database("ingestion"), settings.database_pool) as database,
            open_keys(settings) as keys,
            open_log(settings.redis_url) as log,
        ):
            instrument(database.engine)
            await log.fix_partitions(RAW_TOPIC, partitions)
            await prepare_heads(database.sessions, TOPIC, partitions)
            outbox = Outbox(TOPIC)
            relay = Relay(database.sessions, log, TOPIC, keep=settings.topic_keep)
            enricher = Enricher(settings.site_hosts, settings.site_timezone, partial(keys.vault.digest, purpose="visitor"))
            trimmer = Trimmer(log, RAW_TOPIC, keep=settings.log_keep, max_bytes=settings.log_max_bytes // (2 * partitions))

            async def after_commit(partition: int, offset: Offset) -> None:
                outbox.wake()
                await trimmer.after_commit(partition, offset)

            obey = ObeyConsent(Policy.of(settings.site_consent_denied, settings.site_consent_unknown))
            store = StoreEvents(outbox, enricher, keys, obey)
            report = Report(
                database.sessions,
                log,
                partitions,
                max_bytes=settings.log_max_bytes,
                topic=TOPIC,
                raw=RAW_TOPIC,
                follows=[subscription.topic for subscription in _SUBSCRIPTIONS],
                with_books=Losses(database.sessions, log, RAW_TOPIC, partitions).look,
            )
            limit = DeadLetterLimit(settings.dead_letter_limit, settings.dead_letter_window)
            consumer = RawLogConsumer(database.sessions, log, RAW_TOPIC, store, limit=limit, after_commit=after_commit)
            await work(
                settings,
                checks={"database": database.check, "log": log.check},
                background=[
                    lambda: consumer.run(Leases(log.redis, RAW_TOPIC, "ingestion", partitions)),
                    lambda: relay.run(Leases(log.redis, TOPIC, "relay", partitions), outbox),
                    TopicTrimmer(log, TOPIC, partitions, max_bytes=settings.topic_max_bytes).run,
                    report.run,
                    Retention(settings, "ingestion", database.sessions, growing_old(settings)).run,
                    *(partial(follow, settings, "ingestion", database, log, subscription) for subscription in _SUBSCRIPTIONS),
                ],
            )


run(main)
