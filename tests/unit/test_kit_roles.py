"""Roles that share a process: each keeps its name in health, logs, spans and metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pmp.privacy.v1 import privacy_pb2 as pb
from pmp.privacy.v1.privacy_pb2_grpc import (
    SubjectDataServiceServicer,
    SubjectDataServiceStub,
    add_SubjectDataServiceServicer_to_server,
)
from pydantic import SecretStr

from kit.boundary.caller import ROLE_HEADER
from kit.registry import Part
from kit.server import serve
from kit.settings import Settings
from kit.telemetry.gauges import Gauge
from kit.telemetry.names import Attribute, MetricName, SpanName
from kit.telemetry.roles import acting_as
from kit.telemetry.setup import telemetry
from kit.telemetry.tracing import span
from services import role_modules
from services.__main__ import main, named_roles
from tests.background import running as working
from tests.servers import free_port

SERVICE = "pmp.privacy.v1.SubjectDataService"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
Context = grpc.aio.ServicerContext[Any, Any]


class Holder(SubjectDataServiceServicer):
    """Answers with its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def Export(self, request: pb.ExportRequest, context: Context) -> AsyncIterator[pb.ExportResponse]:  # noqa: ARG002
        yield pb.ExportResponse(table=self._name)

    async def Erase(self, request: pb.EraseRequest, context: Context) -> pb.EraseResponse:  # noqa: ARG002
        return pb.EraseResponse(tables=[pb.TableCount(table=self._name, rows=1)])


async def passes() -> None:
    """A check of what is up."""


async def fails() -> None:
    """A check of what is down."""
    raise ConnectionRefusedError("connection refused")


async def works() -> None:
    structlog.get_logger().info("working")
    with span(SpanName.PUBLISH):
        await asyncio.sleep(0)
    await asyncio.sleep(3600)


def part(role: str, check: Callable[[], Awaitable[None]] = passes) -> Part:
    return Part(role, [(add_SubjectDataServiceServicer_to_server, Holder(role))], {"database": check}, [works])


@asynccontextmanager
async def running(parts: Sequence[Part], exporter: InMemorySpanExporter) -> AsyncGenerator[grpc.aio.Channel]:
    settings = Settings(
        listen=f"127.0.0.1:{free_port()}",
        mesh_token=SecretStr("token"),
        vault_key=SecretStr(""),
        key_encryption_keys=SecretStr(""),
        database_url="sqlite+aiosqlite://",
        redis_url="redis://127.0.0.1",
    )
    with telemetry(settings, *(part.role for part in parts), exporters=[exporter]):
        async with grpc.aio.insecure_channel(settings.listen) as channel, working(serve(settings, parts)):
            yield channel


async def health(channel: grpc.aio.Channel, name: str) -> HealthCheckResponse.ServingStatus:
    call: Callable[..., Awaitable[Any]] = channel.unary_unary(
        "/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
    )
    return (await call(HealthCheckRequest(service=name), wait_for_ready=True)).status


async def becomes(channel: grpc.aio.Channel, name: str, status: HealthCheckResponse.ServingStatus) -> None:
    async with asyncio.timeout(10):
        while await health(channel, name) != status:  # noqa: ASYNC110  (what is awaited is the health that others see)
            await asyncio.sleep(0.02)


def called(role: str) -> dict[str, Any]:
    return {"metadata": (("x-pmp-mesh-token", "token"), *([(ROLE_HEADER, role)] if role else [])), "wait_for_ready": True}


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


async def test_each_role_has_its_health_and_the_process_has_that_of_all() -> None:
    async with running([part("identity"), Part("worker", checks={"database": fails})], InMemorySpanExporter()) as channel:
        for name in ("identity", SERVICE):
            await becomes(channel, name, SERVING)
        for name in ("worker", ""):
            assert await health(channel, name) == NOT_SERVING
    async with running([part("identity"), Part("worker", checks={"database": passes})], InMemorySpanExporter()) as channel:
        await becomes(channel, "", SERVING)


async def test_an_rpc_that_several_roles_serve_is_healthy_when_all_of_them_are() -> None:
    async with running([part("identity"), part("journeys", fails)], InMemorySpanExporter()) as channel:
        await becomes(channel, "identity", SERVING)
        assert await health(channel, SERVICE) == NOT_SERVING


async def test_an_rpc_that_several_roles_serve_is_answered_by_the_one_that_is_named() -> None:
    async with running([part("identity"), part("journeys")], InMemorySpanExporter()) as channel:
        stub: Any = SubjectDataServiceStub(channel)
        for role in ("identity", "journeys"):
            assert (await stub.Erase(pb.EraseRequest(), **called(role))).tables[0].table == role
            assert [row.table async for row in stub.Export(pb.ExportRequest(names=["user:1"]), **called(role))] == [role]
        for role in ("", "purchases"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Erase(pb.EraseRequest(), **called(role))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_single_role_answers_without_being_named() -> None:
    async with running([part("identity")], InMemorySpanExporter()) as channel:
        stub: Any = SubjectDataServiceStub(channel)
        assert (await stub.Erase(pb.EraseRequest(), **called(""))).tables[0].table == "identity"


async def test_lines_and_spans_name_the_role_of_a_call_and_of_background_work(capfd: pytest.CaptureFixture[str]) -> None:
    spans = InMemorySpanExporter()
    async with running([part("identity"), part("journeys")], spans) as channel:
        stub: Any = SubjectDataServiceStub(channel)
        await stub.Erase(pb.EraseRequest(), **called("journeys"))
        await stub.Erase(pb.EraseRequest(), **called("identity"))
    logged = lines(capfd.readouterr().out)
    assert [line["role"] for line in logged if line["event"] == "call"] == ["journeys", "identity"]
    assert [line["role"] for line in logged if line["event"] == "working"] == ["identity", "journeys"]
    assert sorted(line["role"] for line in logged if line["event"] == "health") == ["identity", "journeys"]
    assert [line.get("role") for line in logged if line["event"] == "listening"] == [None]
    named = sorted((each.name, each.resource.attributes["service.name"]) for each in spans.get_finished_spans())
    erased = f"{SERVICE}/Erase"
    publish = str(SpanName.PUBLISH)
    assert named == sorted([(erased, "identity"), (erased, "journeys"), (publish, "identity"), (publish, "journeys")])


def test_gauges_of_two_roles_stand_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    for name in ("PMP_MESH_TOKEN", "PMP_VAULT_KEY", "PMP_KEY_ENCRYPTION_KEYS", "PMP_DATABASE_URL", "PMP_REDIS_URL"):
        monkeypatch.setenv(name, "given")
    settings = Settings()  # pyright: ignore[reportCallIssue]  (the environment gives what is required)
    with telemetry(settings, "identity", "journeys", readers=[reader]):
        for role, figure in (("identity", 1), ("journeys", 2)):
            with acting_as(role):
                gauge = Gauge(MetricName.DEAD_LETTERS, "Set aside.")
            gauge.set(figure, {Attribute.TOPIC: "events"})
        data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    assert resource.resource.attributes["service.name"] == "identity+journeys"
    points = [point for scope in resource.scope_metrics for metric in scope.metrics for point in metric.data.data_points]
    assert [(point.attributes, getattr(point, "value", None)) for point in points] == [
        ({Attribute.ROLE: "identity", Attribute.TOPIC: "events"}, 1),
        ({Attribute.ROLE: "journeys", Attribute.TOPIC: "events"}, 2),
    ]


def test_all_stands_for_every_role() -> None:
    assert named_roles(["all"]) == list(role_modules())
    assert named_roles(["ingestion", "worker"]) == ["ingestion-worker"]


@pytest.mark.parametrize(
    "words", [[], ["all", "identity"], ["identity", "identity"], ["nothing"], ["identity-worker"], ["ingestion", "rules"], ["ingestion-"]]
)
def test_what_names_no_role_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"^usage: python -m services ROLE"):
        main(words)
