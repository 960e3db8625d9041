"""Serves the rpcs of ingestion: `python -m services ingestion`."""

from __future__ import annotations

from functools import partial

from pmp.ingestion.v1.ingestion_pb2_grpc import add_IngestionServiceServicer_to_server
from pmp.privacy.v1.privacy_pb2_grpc import add_SubjectDataServiceServicer_to_server

from kit.database.engine import open_database
from kit.log import offsets
from kit.log.intake.account import Account
from kit.log.intake.appender import Appender
from kit.log.intake.disk import LogDisk
from kit.log.publish.outbox import Outbox
from kit.log.redis_log import open_log
from kit.people.keys.store import open_keys
from kit.people.subjects.data import SubjectData
from kit.people.subjects.servicer import SubjectDataServicer
from kit.server import run, serve
from kit.settings import Settings
from kit.telemetry.instrumentation import instrument
from kit.telemetry.setup import telemetry
from services.ingestion.messages import RAW_TOPIC, TOPIC
from services.ingestion.personal import HOLDINGS
from services.ingestion.repository import keep_receipts
from services.ingestion.servicer import IngestionServicer


async def main(settings: Settings) -> None:
    """Takes events until it is told to stop. Needs the log; the database for the books and the history, and when the log is another."""
    with telemetry(settings, "ingestion"):
        async with (
            open_database(settings.database("ingestion"), settings.database_pool) as database,
            open_keys(settings) as keys,
        ):
            instrument(database.engine)
            async with open_log(settings.redis_url, floors=partial(offsets.floors, database.sessions, RAW_TOPIC)) as log:
                await log.fix_partitions(RAW_TOPIC, settings.log_partitions)
                account = Account(database.sessions, RAW_TOPIC, keep_receipts)
                appender = Appender(
                    log,
                    RAW_TOPIC,
                    settings.log_partitions,
                    account,
                    max_bytes=settings.log_max_bytes,
                    used_bytes=log.used_bytes,
                    disk=LogDisk.of(settings),
                )
                servicer = IngestionServicer(settings, database.sessions, log, appender, keys)
                data = SubjectData(database, keys, None, HOLDINGS)
                services = [
                    (add_IngestionServiceServicer_to_server, servicer),
                    (add_SubjectDataServiceServicer_to_server, SubjectDataServicer(data, database, log, Outbox(TOPIC))),
                ]
                await serve(settings, services=services, checks={"log": log.check}, background=[appender.run])


run(main)
