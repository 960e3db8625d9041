"""What a report shows when what it is made of is down: the log's memory without the database, and no old figures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import DBAPIError

from kit.database.engine import open_database
from kit.log.publish.outbox import prepare_heads
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.log.report import Report
from kit.migrate import migrate
from kit.settings import Settings
from kit.telemetry.setup import telemetry
from services.ingestion.messages import RAW_TOPIC, TOPIC
from tests.servers import PrivateMariaDb, PrivateRedis

ALWAYS = {"pmp.log.bytes", "pmp.log.limit", "pmp.report.age log", "pmp.report.age database"}
FROM_THE_DATABASE = {
    *(
        f"pmp.books {account}"
        for account in ("received", "stored", "duplicate", "rejected", "dead_lettered", "suppressed", "recovered", "pending")
    ),
    *("pmp.books missing", "pmp.dead_letters", f"pmp.log.lag {RAW_TOPIC}", "pmp.log.lag identity", f"pmp.outbox.pending {TOPIC}"),
    *(f"pmp.log.lag.age {RAW_TOPIC}", "pmp.log.lag.age identity", f"pmp.outbox.age {TOPIC}"),
}

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def database_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateMariaDb]:
    """One that may hang and be killed."""
    server = PrivateMariaDb(tmp_path_factory.mktemp("mariadb"))
    server.install()
    yield server
    server.kill()


def figures(reader: InMemoryMetricReader) -> dict[str, float]:
    """What is shown, by name and label."""
    shown: dict[str, float] = {}
    data = reader.get_metrics_data()
    for metric in (
        (metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics) if data else ()
    ):
        for point in metric.data.data_points:
            shown[" ".join([metric.name, *map(str, (point.attributes or {}).values())])] = getattr(point, "value", 0)
    return {name: value for name, value in shown.items() if name.startswith("pmp.")}


async def test_no_figure_outlives_the_database_it_was_read_from(
    settings: Settings, log: RedisLog, database_of_its_own: PrivateMariaDb
) -> None:
    url, reader, now = database_of_its_own.url.replace("{service}", "ingestion"), InMemoryMetricReader(), 1000.0
    await migrate("ingestion", url)
    with telemetry(settings, "report-test", readers=[reader]):
        async with open_database(url) as database:
            await prepare_heads(database.sessions, TOPIC, 1)
            report = Report(
                database.sessions, log, 1, max_bytes=1_000_000, topic=TOPIC, raw=RAW_TOPIC, follows=["identity"], clock=lambda: now
            )
            await report.look_at_log()
            await report.look_at_database()
            shown = figures(reader)
            assert shown.keys() == ALWAYS | FROM_THE_DATABASE
            assert (shown["pmp.log.limit"], shown["pmp.books missing"], shown["pmp.report.age database"]) == (1_000_000, 0, 0)
            assert shown["pmp.log.bytes"] > 100_000

            database_of_its_own.hang()
            looking = asyncio.create_task(report.look_at_database())
            now += 30
            await report.look_at_log()
            assert figures(reader).keys() == ALWAYS | FROM_THE_DATABASE
            now += 31
            shown = figures(reader)
            assert shown.keys() == ALWAYS
            assert (shown["pmp.report.age log"], shown["pmp.report.age database"]) == (31, 61)
            looking.cancel()

            database_of_its_own.kill()
            with pytest.raises(DBAPIError):
                await report.look_at_database()
            assert figures(reader).keys() == ALWAYS
            with suppress(asyncio.CancelledError):
                await looking


async def test_no_figure_of_a_log_that_is_down_is_shown(settings: Settings, redis_of_mesh: PrivateRedis, tmp_path: Path) -> None:
    url, reader, now = f"sqlite+aiosqlite:///{tmp_path}/ingestion.db", InMemoryMetricReader(), 1000.0
    await migrate("ingestion", url)
    with telemetry(settings, "report-test", readers=[reader]):
        async with open_database(url) as database, open_log(redis_of_mesh.url) as log:
            await prepare_heads(database.sessions, TOPIC, 1)
            report = Report(database.sessions, log, 1, max_bytes=1_000_000, topic=TOPIC, raw=RAW_TOPIC, clock=lambda: now)
            await report.look_at_log()
            await report.look_at_database()
            redis_of_mesh.kill()
            now += 61
            for look in (report.look_at_log, report.look_at_database):
                with pytest.raises(RedisConnectionError):
                    await look()
            shown = figures(reader)
    assert shown.keys() == {"pmp.dead_letters", "pmp.report.age log", "pmp.report.age database"}
    assert (shown["pmp.report.age log"], shown["pmp.report.age database"]) == (61, 0)
