"""The API of ingestion: takes events into the raw log.

It needs the log alone. The database has the books and the history, and is read when the log is another than before.
"""

from __future__ import annotations

from typing import Final

from pmp.ingestion.v1.ingestion_pb2_grpc import add_IngestionServiceServicer_to_server

from kit.log.intake.account import Account
from kit.log.intake.appender import Appender
from kit.log.intake.disk import LogDisk
from kit.log.publish.outbox import Outbox
from kit.people.subjects.data import SubjectData
from kit.people.subjects.servicer import SubjectDataServicer
from kit.service.parts import Intake
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from services.ingestion.messages import RAW_TOPIC, TOPIC
from services.ingestion.personal import PERSONAL_TABLES
from services.ingestion.repository import keep_receipts
from services.ingestion.servicer import IngestionServicer
from services.ingestion.settings import SERVICE, IngestionSettings


def compose(settings: IngestionSettings, resources: Resources) -> ServiceRuntime:
    """Composes the API. What it accepts, and what erasures report, the worker publishes."""
    database, log, keys = resources.database(SERVICE), resources.log, resources.keys
    account = Account(database.sessions, RAW_TOPIC, keep_receipts)
    appender = Appender(
        log,
        RAW_TOPIC,
        settings.log_partitions,
        account,
        max_bytes=settings.log_max_bytes,
        used_bytes=log.used_bytes,
        disk=LogDisk(settings.log_disk, settings.log_disk_min_bytes) if settings.log_disk else None,
    )
    servicer = IngestionServicer(settings, database.sessions, log, appender, keys)
    data = SubjectData(database, keys, None, PERSONAL_TABLES)
    return ServiceRuntime(
        settings,
        resources,
        SERVICE,
        checks={"log": log.check},
        database=database,
        rpcs=[(add_IngestionServiceServicer_to_server, servicer)],
        subject_data=SubjectDataServicer(data, database, log, Outbox(TOPIC)),
        intake=Intake(RAW_TOPIC, appender, account),
    )


ROLE: Final = Role(SERVICE, IngestionSettings, compose)
