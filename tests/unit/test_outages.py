"""An outage is treated alike everywhere: callers are asked to retry, and background work waits and sets nothing aside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pymysql.err import OperationalError as DriverError
from redis.exceptions import RedisError
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database, open_database
from kit.errors import LogFull, Unavailable
from kit.log.consume import dead_letters
from kit.log.consume.consumer import Consumer
from kit.log.intake.account import Account
from kit.log.intake.appender import Appender
from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay
from kit.log.redis_log import RedisLog
from kit.log.streams import Delivery
from kit.log.tables import log_counters
from kit.outages import is_outage
from tests.simulation.memory_log import MemoryLog, MemoryRedis
from tests.unit.mesh_log import TOPIC, append, memory_log, record, store, stored
from tests.unit.test_append import appending, payloads
from tests.unit.test_kit_boundary import INTERNAL, raising, refusal, served, trailers

REDIS = {
    "READONLY": "READONLY You can't write against a read only replica.",
    "MISCONF": "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "BUSY": "BUSY Redis is busy running a script.",
}
DATABASE = {"1205": "Lock wait timeout exceeded", "1213": "Deadlock found", "2006": "server has gone away", "2013": "Lost connection"}
CLOSED = "unable to perform operation on <TCPTransport closed=True reading=False>; the handler is closed"


@pytest.fixture(params=[*REDIS, *DATABASE, "a closed transport", "a full disk"])
async def outage(request: pytest.FixtureRequest, log: RedisLog) -> Exception:
    """What is raised where something is down, as the client of Redis makes it of an answer."""
    if request.param in REDIS:
        with pytest.raises(RedisError) as refused:
            await log.redis.eval("return redis.error_reply(ARGV[1])", 0, REDIS[request.param])
        return refused.value
    if request.param in DATABASE:
        return OperationalError("UPDATE", {}, DriverError(int(request.param), DATABASE[request.param]))
    return RuntimeError(CLOSED) if request.param == "a closed transport" else OSError(28, "No space left on device")


class Fails:
    """Raises an error when it is asked for the first time."""

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    async def __call__(self, _place: str) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


async def test_callers_are_asked_to_retry(outage: Exception) -> None:
    async with served(raising(outage)) as stub:
        refused = await refusal(stub.GetAccounting(pb.GetAccountingRequest(), metadata=INTERNAL))
    is_full = "maxmemory" in str(outage)
    assert refused.code() is (grpc.StatusCode.RESOURCE_EXHAUSTED if is_full else grpc.StatusCode.UNAVAILABLE)
    assert trailers(refused)["retry-after"] == ("5" if is_full else "1")
    assert str(outage) not in (refused.details() or "")


async def test_an_append_is_refused_and_nothing_of_it_is_kept_but_the_next_one_is(outage: Exception, tmp_path: Path) -> None:
    log = MemoryLog(MemoryRedis(lambda: 1000), pause=Fails(outage))

    async def used_bytes() -> int:
        return 0

    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/account.db") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(log_counters.metadata.create_all)
        account = Account(database.sessions, TOPIC)
        async with appending(Appender(log, TOPIC, 4, account, max_bytes=1000, used_bytes=used_bytes)) as intake:
            with pytest.raises(LogFull if "maxmemory" in str(outage) else Unavailable):
                await intake.append([("user", record("first").SerializeToString())])
            await intake.append([("user", record("second").SerializeToString())])
    assert await payloads(log) == ["second"]


async def test_a_consumer_waits_and_sets_nothing_aside(outage: Exception, ingestion_database: Database) -> None:
    fails = Fails(outage)

    async def handler(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        await fails("")
        await store(session, deliveries)

    log = memory_log()
    await append(log, "a", "b")
    consumer = Consumer(ingestion_database.sessions, log, TOPIC, handler)
    with pytest.raises(type(outage)) as raised:
        await consumer.step(0)
    assert is_outage(raised.value)
    assert await stored(ingestion_database) == []
    assert await consumer.step(0) == 2
    assert await stored(ingestion_database) == ["a", "b"]
    async with ingestion_database.sessions() as session:
        assert not await dead_letters.find(session)


async def test_a_relay_waits_and_publishes_later(outage: Exception, ingestion_database: Database) -> None:
    async with ingestion_database.sessions.begin() as session:
        await Outbox(TOPIC).add(session, 0, [record("a")])
    log = MemoryLog(MemoryRedis(lambda: 1000), pause=Fails(outage))
    relay = Relay(ingestion_database.sessions, log, TOPIC, keep=timedelta(hours=1))
    with pytest.raises(type(outage)) as raised:
        await relay.step(0)
    assert is_outage(raised.value)
    assert await relay.step(0) == 1
    assert await payloads(log) == ["a"]


@pytest.mark.parametrize("error", [ValueError("a defect"), RuntimeError("a defect"), FileNotFoundError(2, "no such file")])
def test_a_defect_is_no_outage(error: Exception) -> None:
    assert not is_outage(error)
