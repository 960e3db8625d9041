"""A steady load of events during which something is killed, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc
import redis
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pmp.log.v1 import log_pb2

from kit.credentials.urls import is_redis_cluster, node_url
from kit.log.redis_log import key

RATE = 500
SECONDS = 6
PARTITIONS = 4


class Gateway(Protocol):
    """Of a mesh that is sent events."""

    @property
    def url(self) -> str:
        """Its address."""
        ...

    def credentials(self, scope: str, user: str = "") -> Mapping[str, str]:
        """Headers of a caller."""
        ...


async def load(mesh: Gateway, name: str, *, during: Callable[[], object], rate: int = RATE) -> list[str]:
    """Sends events at a steady rate, retries each with the same id until it is answered, and returns the answered ids."""
    headers = tuple(mesh.credentials("site", "1").items())
    answered: list[str] = []
    async with grpc.aio.insecure_channel(mesh.url.removeprefix("http://"), options=[("grpc.max_reconnect_backoff_ms", 500)]) as channel:
        stub: Any = IngestionServiceStub(channel)

        async def send(number: int) -> None:
            event = event_pb2.Event(id=f"{name}-{number}", event_type="page_view", session_id=f"s{number % 50}", page_title="under load")
            event.timestamp.CopyFrom(Timestamp(seconds=1_795_000_000 + number))
            while True:
                try:
                    await stub.TrackEvent(pb.TrackEventRequest(event=event), metadata=headers, timeout=15)
                except grpc.aio.AioRpcError as error:
                    again = {
                        grpc.StatusCode.UNAVAILABLE,
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                        grpc.StatusCode.CANCELLED,
                    }
                    assert error.code() in again, error  # noqa: PT017 (any other status is a defect)
                    await asyncio.sleep(0.3)
                else:
                    answered.append(event.id)
                    return

        tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        start = loop.time()
        trouble: asyncio.Future[object] | None = None
        for number in range(rate * SECONDS):
            tasks.append(asyncio.create_task(send(number)))
            await asyncio.sleep(max(0.0, start + number / rate - loop.time()))
            if number == rate * SECONDS // 3:
                trouble = loop.run_in_executor(None, during)
        assert trouble is not None
        await trouble
        await asyncio.wait_for(asyncio.gather(*tasks), 90)
    return answered


def published(redis_url: str) -> Sequence[str]:
    """Ids on the topic, in its order; asserts that its positions have no gap."""
    ids: list[str] = []
    kind = redis.RedisCluster if is_redis_cluster(redis_url) else redis.Redis
    with kind.from_url(node_url(redis_url)) as client:
        for partition in range(PARTITIONS):
            entries: Any = client.xrange(key("events", partition, "log"))
            assert [int(position.split(b"-")[0]) for position, _ in entries] == list(range(1, len(entries) + 1))
            records = [record for _, fields in entries for record in log_pb2.Pack.FromString(fields[b"p"]).records]
            ids.extend(event_pb2.EventStored.FromString(record.payload).event.id for record in records)
    return ids
