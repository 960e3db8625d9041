"""The life of a process: it says what it lacks, reports its health, and drains without losing a call."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import (
    IngestionServiceServicer,
    IngestionServiceStub,
    add_IngestionServiceServicer_to_server,
)
from pydantic import SecretStr

from kit.registry import Background, Check, Part, Registration
from kit.server import serve
from kit.settings import Settings
from kit.telemetry.setup import telemetry
from tests.servers import free_port

if TYPE_CHECKING:
    from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceAsyncStub

INTERNAL = (("x-pmp-mesh-token", "token"),)
SERVICE = "pmp.ingestion.v1.IngestionService"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
ENVIRONMENT = {
    "PMP_MESH_TOKEN": "hunter-mesh",
    "PMP_VAULT_KEY": "hunter-hash",
    "PMP_KEY_ENCRYPTION_KEYS": "hunter-keys",
    "PMP_DATABASE_URL": "sqlite+aiosqlite:///hunter-database",
    "PMP_REDIS_URL": "redis://hunter-redis",
}

Context = grpc.aio.ServicerContext[Any, Any]


class Slow(IngestionServiceServicer):
    """Answers when it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def TrackEvent(self, request: pb.TrackEventRequest, context: Context) -> pb.TrackEventResponse:  # noqa: ARG002
        self.begun.set()
        await self.go.wait()
        return pb.TrackEventResponse(success=True)

    async def TrackEvents(self, request: pb.TrackEventsRequest, context: Context) -> pb.TrackEventsResponse:
        raise NotImplementedError

    async def GetAccounting(self, request: pb.GetAccountingRequest, context: Context) -> pb.GetAccountingResponse:  # noqa: ARG002
        return pb.GetAccountingResponse()

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> AsyncIterator[pb.ListEventsResponse]:  # noqa: ARG002
        yield pb.ListEventsResponse()


class Switch:
    """Something a process depends on: up, down, or silent."""

    def __init__(self) -> None:
        self.check: Check = self.up

    async def up(self) -> None:
        """Answers."""

    async def down(self) -> None:
        raise ConnectionRefusedError("connection refused")

    async def silent(self) -> None:
        await asyncio.sleep(3600)

    async def __call__(self) -> None:
        await self.check()


def settings_for(port: int, **more: Any) -> Settings:
    return Settings(
        listen=f"127.0.0.1:{port}",
        mesh_token=SecretStr("token"),
        vault_key=SecretStr(""),
        key_encryption_keys=SecretStr(""),
        database_url="sqlite+aiosqlite://",
        redis_url="redis://127.0.0.1",
        **more,
    )


class Running:
    """A process's `serve` in this one, and a channel to it."""

    def __init__(self, task: asyncio.Task[None], port: int, channel: grpc.aio.Channel) -> None:
        self.task = task
        self.address = f"127.0.0.1:{port}"
        self.channel = channel
        self.stub: IngestionServiceAsyncStub = IngestionServiceStub(channel)

    async def health(self, service: str = "") -> HealthCheckResponse.ServingStatus:
        call: Callable[..., Awaitable[Any]] = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
        )
        return (await call(HealthCheckRequest(service=service), wait_for_ready=True)).status

    async def until(self, status: HealthCheckResponse.ServingStatus) -> None:
        async with asyncio.timeout(10):
            while await self.health() != status:  # noqa: ASYNC110  (what is awaited is the health that others see)
                await asyncio.sleep(0.02)

    async def terminate(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(self.task, 10)


@asynccontextmanager
async def running(
    *,
    services: Sequence[Registration] = (),
    checks: Mapping[str, Check] | None = None,
    background: Sequence[Background] = (),
    **settings: Any,
) -> AsyncGenerator[Running]:
    port = free_port()
    chosen = settings_for(port, **settings)
    with telemetry(chosen, "server-test"):
        task = asyncio.create_task(serve(chosen, [Part("server-test", services, checks or {}, background)]))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                yield Running(task, port, channel)
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError, ExceptionGroup):
                    await task


def with_slow() -> tuple[Slow, list[Registration]]:
    servicer = Slow()
    return servicer, [(add_IngestionServiceServicer_to_server, servicer)]


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


async def test_health_follows_the_checks_and_the_log_says_which_failed(capfd: pytest.CaptureFixture[str]) -> None:
    log, database = Switch(), Switch()
    _, services = with_slow()
    async with running(services=services, checks={"log": log, "database": database}) as process:
        await process.until(SERVING)
        assert await process.health(SERVICE) == SERVING
        log.check = log.down
        await process.until(NOT_SERVING)
        assert await process.health(SERVICE) == NOT_SERVING
        log.check = log.up
        await process.until(SERVING)
    reported = [(line["serving"], line["failing"]) for line in lines(capfd.readouterr().out) if line["event"] == "health"]
    assert reported == [(True, {}), (False, {"log": "ConnectionRefusedError: connection refused"}), (True, {})]


async def test_a_check_that_does_not_answer_counts_as_failed() -> None:
    log = Switch()
    log.check = log.silent
    async with running(checks={"log": log}) as process:
        await asyncio.sleep(1.2)
        assert await process.health() == NOT_SERVING
        log.check = log.up
        await process.until(SERVING)


async def test_a_check_has_to_fail_three_times_in_a_row(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("kit.server._CHECK_SECONDS", 0.01)
    monkeypatch.setattr("kit.server._PASSING_SECONDS", 0.01)
    outcomes = iter([True, False, False, True, False, False, False])
    asked_all = asyncio.Event()

    async def check() -> None:
        succeeds = next(outcomes, None)
        if succeeds is None:
            asked_all.set()
        if succeeds is False:
            raise ConnectionRefusedError("connection refused")

    async with running(checks={"log": check}) as process:
        await asyncio.wait_for(asked_all.wait(), 30)
        await process.until(SERVING)
    reported = [line["serving"] for line in lines(capfd.readouterr().out) if line["event"] == "health"]
    assert reported == [True, False, True]


async def test_a_process_does_not_serve_before_its_checks_passed() -> None:
    gate = asyncio.Event()
    async with running(checks={"log": gate.wait}) as process:
        assert await process.health() == NOT_SERVING
        gate.set()
        await process.until(SERVING)


async def test_an_unknown_service_has_no_health() -> None:
    async with running() as process:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await process.health("pmp.nothing.v1.NothingService")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_is_reported_without_a_credential_and_without_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    async with running() as process:
        await process.until(SERVING)
    assert [line for line in lines(capfd.readouterr().out) if line["event"] == "call"] == []


async def test_reflection_names_the_services() -> None:
    _, services = with_slow()
    async with running(services=services) as process:
        call: Any = process.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            ServerReflectionRequest.SerializeToString,
            ServerReflectionResponse.FromString,
        )(iter([ServerReflectionRequest(list_services="*")]), wait_for_ready=True)
        answer: ServerReflectionResponse = await anext(aiter(call))
    names = {service.name for service in answer.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_a_running_call_is_answered_after_sigterm_and_new_ones_are_not_taken() -> None:
    servicer, services = with_slow()
    async with running(services=services) as process:
        await process.until(SERVING)
        call = asyncio.ensure_future(process.stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
        await asyncio.wait_for(servicer.begun.wait(), 5)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert not process.task.done()
        async with grpc.aio.insecure_channel(process.address) as late:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await IngestionServiceStub(late).GetAccounting(pb.GetAccountingRequest(), metadata=INTERNAL)
        servicer.go.set()
        answer: Message = await call
        await asyncio.wait_for(process.task, 5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert answer == pb.TrackEventResponse(success=True)


async def test_a_call_that_outlasts_the_drain_is_cancelled() -> None:
    servicer, services = with_slow()
    async with running(services=services, drain_seconds=0.2) as process:
        await process.until(SERVING)
        call = asyncio.ensure_future(process.stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
        await asyncio.wait_for(servicer.begun.wait(), 5)
        await process.terminate()
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_new_calls_are_taken_while_load_balancers_turn_away() -> None:
    _, services = with_slow()
    async with running(services=services, drain_delay_seconds=0.5) as process:
        await process.until(SERVING)
        os.kill(os.getpid(), signal.SIGTERM)
        await process.until(NOT_SERVING)
        await process.stub.GetAccounting(pb.GetAccountingRequest(), metadata=INTERNAL)
        await asyncio.wait_for(process.task, 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_background_work_goes_on_until_the_calls_are_answered_and_then_finishes_its_step(number: signal.Signals) -> None:
    servicer, services = with_slow()
    story: list[str] = []

    async def consume() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            story.append("cancelled")
            await asyncio.sleep(0.1)
            story.append("finished its step")

    async with running(services=services, background=[consume]) as process:
        await process.until(SERVING)
        call = asyncio.ensure_future(process.stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
        await asyncio.wait_for(servicer.begun.wait(), 5)
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.2)
        story.append("answered")
        servicer.go.set()
        await call
        await asyncio.wait_for(process.task, 5)
    assert story == ["answered", "cancelled", "finished its step"]


async def test_background_work_that_fails_ends_the_process_with_its_error() -> None:
    async def fail() -> None:
        await asyncio.sleep(0.1)
        raise LookupError("lost")

    other = asyncio.Event()

    async def go_on() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            other.set()

    async with running(background=[fail, go_on]) as process:
        with pytest.raises(ExceptionGroup) as ended:
            await asyncio.wait_for(process.task, 5)
    assert [type(error) for error in ended.value.exceptions] == [LookupError]
    assert other.is_set()


async def test_background_work_that_ends_by_itself_ends_the_process() -> None:
    async def end() -> None:
        await asyncio.sleep(0)

    async with running(background=[end]) as process:
        with pytest.raises(ExceptionGroup, match=r"^background work ended"):
            await asyncio.wait_for(process.task, 5)


async def test_a_process_without_rpcs_serves_its_health_alone() -> None:
    port = free_port()
    chosen = settings_for(port)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        process = Running(
            asyncio.create_task(serve(chosen, [Part("server-test", background=[partial(asyncio.sleep, 3600)])])), port, channel
        )
        await process.until(SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await process.stub.GetAccounting(pb.GetAccountingRequest(), metadata=INTERNAL)
        await process.terminate()
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"^can't listen on 127.0.0.1:{port}: the port is taken, or the address is not of this machine$"):
            await serve(settings_for(port), [Part("server-test")])


async def process(code: str, environment: Mapping[str, str]) -> tuple[int | None, str, str]:
    """Runs `code` as a process of its own, with no PMP_* but these."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PMP_")}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={**inherited, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(child.communicate(), 90)
    return child.returncode, out.decode(), err.decode()


async def test_missing_settings_are_named_and_nothing_runs() -> None:
    code = "from kit.server import run\nfrom kit.settings import Settings\nasync def main(settings): print('ran')\nrun([Settings], main)"
    given = {key: value for key, value in ENVIRONMENT.items() if key not in {"PMP_VAULT_KEY", "PMP_REDIS_URL"}}
    returned, out, err = await process(code, given)
    assert (returned, out, err) == (2, "", "PMP_VAULT_KEY is missing\nPMP_REDIS_URL is missing\n")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PMP_LOG_PARTITIONS", "hunter2"), ("PMP_SERVICE_ADDRESSES", "hunter2"), ("PMP_SERVICE_ADDRESSES", '["hunter2"]')],
)
async def test_a_wrong_setting_is_named_and_no_value_is_shown(variable: str, value: str) -> None:
    returned, out, err = await process(
        "from kit.server import run\nfrom kit.settings import Settings\nrun([Settings], None)", {**ENVIRONMENT, variable: value}
    )
    assert (returned, out) == (2, "")
    assert variable.removeprefix("PMP_").lower() in err.lower()
    assert "hunter" not in err


DYING = """
from kit.server import run
from kit.settings import Settings
async def main(settings):
    raise {error}
run([Settings], main)
"""


async def test_a_process_that_dies_says_where_and_not_what_it_held() -> None:
    returned, out, err = await process(DYING.format(error="LookupError(settings[0].vault_key.get_secret_value())"), ENVIRONMENT)
    (line,) = lines(out)
    assert (returned, line["event"], line["level"]) == (1, "died", "critical")
    assert "in main" in line["exception"]
    assert "LookupError" in line["exception"]
    assert "hunter" not in out + err


async def test_a_process_that_lacks_something_of_its_machine_says_what() -> None:
    _, out, _ = await process(DYING.format(error="OSError('the port is taken')"), ENVIRONMENT)
    assert lines(out)[0]["exception"].endswith("OSError: the port is taken\n")


async def test_an_error_that_is_never_awaited_is_logged_without_its_text() -> None:
    code = """
import asyncio, gc
from kit.server import run
from kit.settings import Settings
async def fail(settings): raise LookupError(settings[0].vault_key.get_secret_value())
async def main(settings):
    task = asyncio.create_task(fail(settings))
    await asyncio.sleep(0)
    del task
    gc.collect()
run([Settings], main)
"""
    returned, out, err = await process(code, ENVIRONMENT)
    (line,) = lines(out)
    assert (returned, line["event"], line["what"]) == (0, "unhandled", "Task exception was never retrieved")
    assert "LookupError" in line["exception"]
    assert "hunter" not in out + err
