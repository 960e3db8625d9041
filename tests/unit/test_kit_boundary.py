"""The boundary, through a real channel: who is admitted, what is refused and how, and what is recorded of it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto, MethodOptions, ServiceDescriptorProto
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceServicer, IngestionServiceStub
from pmp.ingestion.v1.ingestion_pb2_grpc import add_IngestionServiceServicer_to_server as add_ingestion
from pmp.options.v1 import options_pb2
from pydantic import SecretStr
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from kit.boundary.boundary import Boundary
from kit.boundary.caller import Caller, bind_log_fields, caller
from kit.boundary.validation import validate
from kit.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    LogFull,
    MeshError,
    NotFound,
    Overloaded,
    Unauthenticated,
    Unavailable,
    Violation,
)
from kit.overload import CALLS
from kit.settings import Settings
from kit.telemetry.names import Attribute, MetricName
from kit.telemetry.setup import telemetry
from kit.telemetry.tracing import traceparent
from tests.servers import until

if TYPE_CHECKING:
    from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceAsyncStub

TOKEN = "the mesh's own"
INTERNAL = (("x-pmp-mesh-token", TOKEN),)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PERSONAL = "ada@example.com"
SERVICE = "pmp.ingestion.v1.IngestionService"

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = tuple[tuple[str, str], ...]


class Script(IngestionServiceServicer):
    """Does in each rpc what the test says."""

    def __init__(self, act: Callable[[Context], Awaitable[object]] | None = None) -> None:
        self.act = act
        self.seen: list[Caller] = []

    async def _play(self, context: Context) -> None:
        self.seen.append(caller())
        if self.act is not None:
            await self.act(context)

    async def TrackEvent(self, request: pb.TrackEventRequest, context: Context) -> pb.TrackEventResponse:
        await self._play(context)
        return pb.TrackEventResponse(success=True, event_id=request.event.id)

    async def TrackEvents(self, request: pb.TrackEventsRequest, context: Context) -> pb.TrackEventsResponse:
        await self._play(context)
        return pb.TrackEventsResponse(success=True, accepted=len(request.events))

    async def GetAccounting(self, request: pb.GetAccountingRequest, context: Context) -> pb.GetAccountingResponse:  # noqa: ARG002
        await self._play(context)
        return pb.GetAccountingResponse(balanced=True)

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> AsyncIterator[pb.ListEventsResponse]:
        for position in range(1, 4):
            yield pb.ListEventsResponse(position=request.after_position + position)
        await self._play(context)


def raising(error: BaseException) -> Script:
    async def act(_context: Context) -> None:
        raise error

    return Script(act)


def scoped(scope: str, *more: tuple[str, str]) -> Metadata:
    return (*INTERNAL, ("x-pmp-client", "shop"), ("x-pmp-scope", scope), *more)


@contextmanager
def reporting(**receivers: Any) -> Generator[None]:
    settings = Settings(
        mesh_token=SecretStr(TOKEN),
        vault_key=SecretStr(""),
        key_encryption_keys=SecretStr(""),
        database_url="sqlite+aiosqlite://",
        redis_url="redis://127.0.0.1",
    )
    with telemetry(settings, "boundary-test", **receivers):
        yield


@asynccontextmanager
async def channel_to(
    add: Callable[[grpc.aio.Server], object], *, most_calls: int = 1024, **receivers: Any
) -> AsyncGenerator[grpc.aio.Channel]:
    with reporting(**receivers):
        boundary = Boundary(lambda: (TOKEN,), most_calls=most_calls)
        server = grpc.aio.server(interceptors=[boundary], options=[("grpc.max_receive_message_length", 8_000_000)])
        add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            await server.stop(0)


@asynccontextmanager
async def served(servicer: Script, **receivers: Any) -> AsyncGenerator[IngestionServiceAsyncStub]:
    async with channel_to(lambda server: add_ingestion(servicer, server), **receivers) as channel:
        yield IngestionServiceStub(channel)


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


def invoke(channel: grpc.aio.Channel, path: str, raw: bytes, metadata: Metadata) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
    """Calls a method with bytes that no stub would send."""
    return cast("grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]", channel.unary_unary(path))(raw, metadata=metadata)


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return {key: value for key, value in error.trailing_metadata() or ()}  # noqa: C416  (pairs of another tuple type)


def violations(error: grpc.aio.AioRpcError) -> Sequence[BadRequest.FieldViolation]:
    status = Status.FromString(trailers(error)["grpc-status-details-bin"])
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert status.message == error.details()
    found = BadRequest()
    assert status.details[0].Unpack(found)
    return found.field_violations


async def calls(output: pytest.CaptureFixture[str], least: int = 1) -> list[dict[str, Any]]:
    """The lines of calls, once there are so many: a caller has its answer before the line is written."""
    lines: list[dict[str, Any]] = []
    deadline = time.monotonic() + 5
    while len(lines) < least and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        lines += [line for line in map(json.loads, output.readouterr().out.splitlines()) if line["event"] == "call"]
    return lines


def event(**fields: Any) -> event_pb2.Event:
    return event_pb2.Event(id="e1", event_type="page_view", **fields)


@pytest.mark.parametrize("token", [None, "", TOKEN[:-1], TOKEN + " x", TOKEN.upper()])
@pytest.mark.parametrize("scope", [None, "admin"])
async def test_a_caller_without_the_meshs_credential_is_refused(token: str | None, scope: str | None) -> None:
    servicer = Script()
    metadata = tuple((key, value) for key, value in (("x-pmp-mesh-token", token), ("x-pmp-scope", scope)) if value is not None)
    async with served(servicer) as stub:
        error = await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=metadata))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "this port takes calls from inside the mesh only")
    assert servicer.seen == []


RULES = {
    options_pb2.ACCESS_TRACK: {"track", "site", "admin", None},
    options_pb2.ACCESS_SITE: {"site", "admin", None},
    options_pb2.ACCESS_READ: {"read", "admin", None},
    options_pb2.ACCESS_ADMIN: {"admin", None},
    options_pb2.ACCESS_INTERNAL: {None},
}


@pytest.fixture(scope="module")
def gates() -> str:
    """A service with one rpc for each kind of access, one without any, and one whose request has rules."""
    service = ServiceDescriptorProto(name="Gates")
    for access in RULES:
        options = MethodOptions()
        options.Extensions[options_pb2.access] = access
        method = MethodDescriptorProto(name=f"Gate{access}", input_type=".google.protobuf.Empty", output_type=".google.protobuf.Empty")
        method.options.CopyFrom(options)
        service.method.append(method)
    service.method.append(MethodDescriptorProto(name="Unmarked", input_type=".google.protobuf.Empty", output_type=".google.protobuf.Empty"))
    service.method.append(
        MethodDescriptorProto(name="Ruled", input_type=".pmp.ingestion.v1.TrackEventsRequest", output_type=".google.protobuf.Empty")
    )
    file = FileDescriptorProto(
        name="gates.proto",
        package="pmp.gates.v1",
        syntax="proto3",
        dependency=["google/protobuf/empty.proto", "pmp/ingestion/v1/ingestion.proto", "pmp/options/v1/options.proto"],
        service=[service],
    )
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return "pmp.gates.v1.Gates"


def add_gates(name: str) -> Callable[[grpc.aio.Server], None]:
    async def open_gate(_request: Empty, _context: Context) -> Empty:
        return Empty()

    handler = grpc.unary_unary_rpc_method_handler(open_gate, Empty.FromString, Empty.SerializeToString)
    methods = dict.fromkeys([*(f"Gate{access}" for access in RULES), "Unmarked"], handler)
    return lambda server: server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))


@pytest.mark.parametrize("scope", ["track", "site", "read", "admin", "", "ADMIN", None])
@pytest.mark.parametrize("access", RULES)
async def test_an_rpc_opens_to_its_scopes_and_to_the_mesh(gates: str, access: int, scope: str | None) -> None:
    metadata = INTERNAL if scope is None else scoped(scope)
    async with channel_to(add_gates(gates)) as channel:
        call = invoke(channel, f"/{gates}/Gate{access}", b"", metadata)
        if scope in RULES[options_pb2.Access.ValueType(access)]:
            assert await call == b""
        else:
            error = await refusal(call)
            assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "the token's scope does not open this method")


async def test_an_rpc_without_an_access_option_opens_to_no_token(gates: str) -> None:
    async with channel_to(add_gates(gates)) as channel:
        error = await refusal(invoke(channel, f"/{gates}/Unmarked", b"", scoped("admin")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("header", ["x-pmp-client", "x-pmp-user", "x-pmp-address"])
async def test_whoever_came_through_the_gateway_without_a_scope_is_not_internal(header: str) -> None:
    async with served(Script()) as stub:
        error = await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=(*INTERNAL, (header, "x"))))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_servicer_knows_its_caller() -> None:
    servicer = Script()
    async with served(servicer) as stub:
        await stub.TrackEvent(pb.TrackEventRequest(), metadata=scoped("track", ("x-pmp-user", "42"), ("x-pmp-address", "192.0.2.7")))
        await stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL)
    assert servicer.seen == [Caller("shop", "track", "42", "192.0.2.7", internal=False), Caller("", "", "", "", internal=True)]


def test_outside_of_an_rpc_there_is_no_caller() -> None:
    bind_log_fields(harmless=1)
    with pytest.raises(LookupError):
        caller()


ERRORS = [
    (Unauthenticated("who?"), grpc.StatusCode.UNAUTHENTICATED, None),
    (Forbidden("not yours"), grpc.StatusCode.PERMISSION_DENIED, None),
    (NotFound("no such event"), grpc.StatusCode.NOT_FOUND, None),
    (Conflict("another one"), grpc.StatusCode.ALREADY_EXISTS, None),
    (LogFull("the log is full"), grpc.StatusCode.RESOURCE_EXHAUSTED, "5"),
    (Overloaded("too much"), grpc.StatusCode.RESOURCE_EXHAUSTED, "5"),
    (Unavailable("the log is down"), grpc.StatusCode.UNAVAILABLE, "1"),
]


class NarrowNotFound(NotFound):
    """A service's own kind of a shared error."""


@pytest.mark.parametrize(("error", "code", "retry_after"), [*ERRORS, (NarrowNotFound("no such page"), grpc.StatusCode.NOT_FOUND, None)])
async def test_an_error_of_the_domain_becomes_its_status(error: MeshError, code: grpc.StatusCode, retry_after: str | None) -> None:
    async with served(raising(error)) as stub:
        refused = await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
    assert (refused.code(), refused.details()) == (code, str(error))
    assert trailers(refused).get("retry-after") == retry_after


async def test_a_refused_request_names_its_broken_rules() -> None:
    broken = InvalidRequest([Violation("event.email", "must be a valid email address"), Violation("", "too much")])
    async with served(raising(broken)) as stub:
        error = await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "event.email: must be a valid email address; too much")
    assert [(each.field, each.description) for each in violations(error)] == [
        ("event.email", "must be a valid email address"),
        ("", "too much"),
    ]


async def test_more_broken_rules_than_an_answer_holds_are_counted() -> None:
    broken = InvalidRequest([Violation(f"events[{number}].{'x' * 500}", "ö" * 500) for number in range(500)])
    async with served(raising(broken)) as stub:
        error = await refusal(stub.TrackEvents(pb.TrackEventsRequest(events=[event()]), metadata=INTERNAL))
    named = violations(error)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(named) > 2
    assert named[0].field.startswith("events[0].x")
    assert named[-1].description == f"and {500 - len(named) + 1} more"


class Broken(Exception):
    """Something a library might raise."""


LEAKS: list[BaseException] = [
    ValueError(PERSONAL),
    Broken(PERSONAL, 7),
    KeyError(PERSONAL),
    ExceptionGroup(PERSONAL, [ValueError(PERSONAL)]),
    OperationalError("INSERT", {"email": PERSONAL}, sqlite3.OperationalError(PERSONAL)),
]


@pytest.mark.parametrize("error", LEAKS, ids=lambda error: type(error).__name__)
async def test_an_unknown_error_is_logged_with_its_frames_and_never_returned(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError(PERSONAL)  # noqa: TRY301
    except RuntimeError as cause:
        error.__cause__ = cause
    async with served(raising(error)) as stub:
        refused = await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
    output = capfd.readouterr()
    assert (refused.code(), refused.details(), trailers(refused)) == (grpc.StatusCode.INTERNAL, "internal error", {})
    assert PERSONAL not in output.out + output.err
    (line,) = [json.loads(line) for line in output.out.splitlines()]
    assert (line["event"], line["status"], line["level"]) == ("call", "INTERNAL", "error")
    assert type(error).__name__ in line["exception"]
    assert "RuntimeError" in line["exception"]
    assert "in TrackEvent" in line["exception"]


def sqlite_error(number: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(PERSONAL)
    error.sqlite_errorcode = number
    return error


OUTAGES: list[Exception] = [
    OperationalError("SELECT", {}, Exception(2003, PERSONAL)),
    OperationalError("SELECT", {}, sqlite_error(sqlite3.SQLITE_BUSY)),
    InterfaceError("SELECT", {}, Exception(PERSONAL)),
    PoolTimeoutError(PERSONAL),
    RedisConnectionError(PERSONAL),
    RedisTimeoutError(PERSONAL),
]


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: f"{type(error).__module__}.{type(error).__name__}")
async def test_what_is_down_is_unavailable_and_may_be_tried_again(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    async with served(raising(error)) as stub:
        refused = await refusal(stub.GetAccounting(pb.GetAccountingRequest(), metadata=INTERNAL))
    output = capfd.readouterr()
    assert (refused.code(), refused.details()) == (grpc.StatusCode.UNAVAILABLE, "something this call needs is down; try again")
    assert trailers(refused) == {"retry-after": "1"}
    (line,) = [json.loads(line) for line in output.out.splitlines()]
    assert (line["status"], line["level"]) == ("UNAVAILABLE", "warning")
    assert type(error).__name__ in line["error"]
    assert PERSONAL not in output.out + output.err


async def test_a_servicer_that_aborts_has_its_way(capfd: pytest.CaptureFixture[str]) -> None:
    async def abort(context: Context) -> None:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now", (("hint", "later"),))

    async with served(Script(abort)) as stub:
        error = await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
    assert (error.code(), error.details(), trailers(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "not now", {"hint": "later"})
    assert [line["status"] for line in await calls(capfd)] == ["FAILED_PRECONDITION"]


async def test_a_status_that_a_servicer_sets_is_the_one_that_is_returned(capfd: pytest.CaptureFixture[str]) -> None:
    async def set_code(context: Context) -> None:
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)

    async with served(Script(set_code)) as stub:
        error = await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert [line["status"] for line in await calls(capfd)] == ["OUT_OF_RANGE"]


@pytest.mark.parametrize("method", ["TrackEvent", "ListEvents"])
async def test_a_call_its_caller_gives_up_is_cancelled(method: str, capfd: pytest.CaptureFixture[str]) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(_context: Context) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with served(Script(wait)) as stub:
        if method == "TrackEvent":
            call: Any = stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL)
        else:
            call = stub.ListEvents(pb.ListEventsRequest(), metadata=INTERNAL)
        await asyncio.wait_for(begun.wait(), 5)
        call.cancel()
        await asyncio.wait_for(ended.wait(), 5)
        await asyncio.sleep(0.2)
    assert [(line["method"], line["status"]) for line in await calls(capfd)] == [(f"{SERVICE}/{method}", "CANCELLED")]


async def test_a_call_past_its_deadline_gets_that_status(capfd: pytest.CaptureFixture[str]) -> None:
    async def wait(_context: Context) -> None:
        await asyncio.sleep(60)

    async with served(Script(wait)) as stub:
        error = await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL, timeout=0.5))
        await asyncio.sleep(0.2)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [line["status"] for line in await calls(capfd)] == ["DEADLINE_EXCEEDED"]


async def test_a_request_above_its_methods_bound_is_refused() -> None:
    servicer = Script()
    async with served(servicer) as stub:
        largest = pb.TrackEventRequest(event=event(page_title="x" * 32_000))
        largest.event.page_title += "x" * (32_768 - largest.ByteSize())
        assert largest.ByteSize() == 32_768
        await stub.TrackEvent(largest, metadata=INTERNAL)
        largest.event.page_title += "x"
        error = await refusal(stub.TrackEvent(largest, metadata=INTERNAL))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "the request is larger than 32768 bytes")
    assert len(servicer.seen) == 1


async def test_a_request_above_the_meshs_bound_is_refused() -> None:
    async with served(Script()) as stub:
        error = await refusal(stub.TrackEvents(pb.TrackEventsRequest(events=[event(page_title="x" * 1_048_576)]), metadata=INTERNAL))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "the request is larger than 1048576 bytes")


async def test_bytes_that_are_no_message_are_refused() -> None:
    servicer = Script()
    async with channel_to(lambda server: add_ingestion(servicer, server)) as channel:
        error = await refusal(invoke(channel, f"/{SERVICE}/TrackEvent", b"\xff\xff\xff", INTERNAL))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "the request is not a valid message")
    assert servicer.seen == []


async def test_the_rules_of_the_proto_are_applied_before_the_servicer(gates: str) -> None:
    seen: list[pb.TrackEventsRequest] = []

    async def see(request: pb.TrackEventsRequest, _context: Context) -> Empty:
        seen.append(request)
        return Empty()

    handler = grpc.unary_unary_rpc_method_handler(see, pb.TrackEventsRequest.FromString, Empty.SerializeToString)
    ruled = grpc.method_handlers_generic_handler(gates, {"Ruled": handler})
    async with channel_to(lambda server: server.add_generic_rpc_handlers((ruled,))) as channel:
        error = await refusal(invoke(channel, f"/{gates}/Ruled", b"", INTERNAL))
        good = pb.TrackEventsRequest(events=[event(timestamp=Timestamp(seconds=1))])
        assert await invoke(channel, f"/{gates}/Ruled", good.SerializeToString(), INTERNAL) == b""
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "events: must contain at least 1 item(s)")
    assert [(each.field, each.description) for each in violations(error)] == [("events", "must contain at least 1 item(s)")]
    assert seen == [good]


async def test_a_servicer_that_applies_the_rules_itself_gets_what_breaks_them() -> None:
    servicer = Script()
    async with served(servicer) as stub:
        await stub.TrackEvents(pb.TrackEventsRequest(), metadata=INTERNAL)
    assert len(servicer.seen) == 1


def test_a_violation_is_named_by_its_path() -> None:
    broken = validate(event(utm_parameters=event_pb2.UtmParameters(source="x" * 256), email="nobody"))
    assert broken == [
        Violation("timestamp", "value is required"),
        Violation("utm_parameters.source", "must be at most 255 characters"),
        Violation("email", "must be a valid email address"),
    ]


async def test_calls_above_the_limit_are_refused_at_once_and_share_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    free = asyncio.Event()

    async def act(_context: Context) -> None:
        await free.wait()

    servicer = Script(act)
    async with served(servicer, most_calls=2) as stub:
        running = [asyncio.ensure_future(stub.TrackEvent(pb.TrackEventRequest(), metadata=scoped("site"))) for _ in range(2)]
        await asyncio.to_thread(until, lambda: len(servicer.seen) == 2, 5.0)
        refused = [await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=scoped("site"))) for _ in range(5)]
        other = asyncio.ensure_future(stub.GetAccounting(pb.GetAccountingRequest(), metadata=scoped("read")))
        inner = asyncio.ensure_future(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
        await asyncio.to_thread(until, lambda: len(servicer.seen) == 4, 5.0)
        free.set()
        await asyncio.gather(*running, inner)
        await other
        assert (await stub.TrackEvent(pb.TrackEventRequest(), metadata=scoped("site"))).success
    assert {(each.code(), trailers(each)["retry-after"]) for each in refused} == {(grpc.StatusCode.RESOURCE_EXHAUSTED, "5")}
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    refused = [(line["method"], line["calls"], line["level"]) for line in lines if line["event"] == "calls refused"]
    assert {(method, level) for method, _, level in refused} == {(f"{SERVICE}/TrackEvent", "warning")}
    assert sum(calls for _, calls, _ in refused) == 5
    assert [line["status"] for line in lines if line["event"] == "call"] == ["OK"] * 5


async def test_what_nobody_waits_for_gives_way_to_calls_from_outside() -> None:
    free = asyncio.Event()

    async def act(_context: Context) -> None:
        await free.wait()

    servicer = Script(act)
    async with served(servicer) as stub:
        inner = asyncio.ensure_future(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
        await asyncio.to_thread(until, lambda: len(servicer.seen) == 1, 5.0)
        await asyncio.wait_for(CALLS.give_way(), 0.5)
        call = asyncio.ensure_future(stub.TrackEvent(pb.TrackEventRequest(), metadata=scoped("site")))
        await asyncio.to_thread(until, lambda: len(servicer.seen) == 2, 5.0)
        waiting = asyncio.create_task(CALLS.give_way())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        free.set()
        await asyncio.gather(inner, call)
        await asyncio.wait_for(waiting, 0.5)


async def test_a_call_that_has_hardly_any_time_left_is_not_begun() -> None:
    servicer = Script()
    async with served(servicer) as stub:
        late = stub.TrackEvent(pb.TrackEventRequest(), metadata=scoped("site", ("x-pmp-timeout", "3600")), timeout=30)
        refused = await refusal(late)
        assert servicer.seen == []
        in_time = stub.TrackEvent(pb.TrackEventRequest(), metadata=scoped("site", ("x-pmp-timeout", "60")), timeout=60)
        assert (await in_time).success
    assert (refused.code(), trailers(refused)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, {"retry-after": "5"})


async def test_refused_calls_are_measured() -> None:
    reader = InMemoryMetricReader()
    async with served(Script(), readers=[reader]) as stub:
        await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=scoped("site", ("x-pmp-timeout", "3600")), timeout=30))
        await asyncio.to_thread(until, lambda: counted(reader) == {"RESOURCE_EXHAUSTED": 1}, 5.0)


async def test_a_stream_is_guarded_as_a_call_is(capfd: pytest.CaptureFixture[str]) -> None:
    async with served(Script()) as stub:
        request = pb.ListEventsRequest(after_position=7)
        assert [answer.position async for answer in stub.ListEvents(request, metadata=INTERNAL)] == [8, 9, 10]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            _ = [answer async for answer in stub.ListEvents(request, metadata=scoped("admin"))]
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [line["status"] for line in await calls(capfd, 2)] == ["OK", "PERMISSION_DENIED"]


async def test_a_stream_that_fails_ends_with_the_status_after_what_it_sent(capfd: pytest.CaptureFixture[str]) -> None:
    async with served(raising(ValueError(PERSONAL))) as stub:
        answers = aiter(stub.ListEvents(pb.ListEventsRequest(), metadata=INTERNAL))
        assert [(await anext(answers)).position for _ in range(3)] == [1, 2, 3]
        error = await refusal(anext(answers))
    output = capfd.readouterr()
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert PERSONAL not in output.out + output.err


async def test_a_call_is_one_line_with_its_facts_and_nothing_personal(capfd: pytest.CaptureFixture[str]) -> None:
    async def bind(_context: Context) -> None:
        bind_log_fields(accepted=3)
        bind_log_fields(rejected=0)

    request = pb.TrackEventRequest(event=event(email=PERSONAL, user_id="user-4711", ip_address="192.0.2.7"))
    person = (("x-pmp-user", "user-4711"), ("x-pmp-address", "192.0.2.7"))
    async with served(Script(bind)) as stub:
        await stub.TrackEvent(request, metadata=scoped("site", *person, ("traceparent", TRACEPARENT), ("x-request-id", "r1")))
    output = capfd.readouterr().out
    (line,) = [json.loads(line) for line in output.splitlines()]
    duration, time = line.pop("duration_ms"), line.pop("time")
    assert line == {
        "event": "call",
        "level": "info",
        "method": f"{SERVICE}/TrackEvent",
        "status": "OK",
        "client": "shop",
        "scope": "site",
        "trace": "0af7651916cd43dd8448eb211c80319c",
        "request_id": "r1",
        "accepted": 3,
        "rejected": 0,
    }
    assert 0 < duration < 5000
    assert time.endswith("Z")
    assert not [personal for personal in (PERSONAL, "user-4711", "192.0.2.7", TOKEN) if personal in output]


async def test_a_faults_line_comes_after_those_of_the_calls_before_it(capfd: pytest.CaptureFixture[str]) -> None:
    turns = iter(range(2))

    async def act(_context: Context) -> None:
        if next(turns):
            raise ValueError

    async with served(Script(act)) as stub:
        await stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL)
        await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
        lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["OK", "INTERNAL"]
    assert lines[0]["time"] < lines[1]["time"]


async def test_facts_of_one_call_stay_out_of_its_neighbours(capfd: pytest.CaptureFixture[str]) -> None:
    both = asyncio.Barrier(2)
    numbers = iter(range(2))

    async def bind(_context: Context) -> None:
        bind_log_fields(**{f"fact{next(numbers)}": True})
        await both.wait()

    async with served(Script(bind)) as stub:
        await asyncio.gather(*(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL) for _ in range(2)))
    lines = await calls(capfd, 2)
    assert sorted(key for line in lines for key in line if key.startswith("fact")) == ["fact0", "fact1"]
    assert all(line["scope"] == "internal" for line in lines)


async def test_each_call_is_measured_by_method_and_status() -> None:
    reader = InMemoryMetricReader()
    async with served(raising(NotFound("nothing")), readers=[reader]) as stub:
        for _ in range(3):
            await refusal(stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL))
        await refusal(stub.TrackEvent(pb.TrackEventRequest()))
        expected = {"NOT_FOUND": 3, "UNAUTHENTICATED": 1}
        await asyncio.to_thread(until, lambda: counted(reader) == expected, 5.0)


def counted(reader: InMemoryMetricReader) -> dict[object, int]:
    """How many calls of TrackEvent were measured, by their status."""
    data = reader.get_metrics_data()
    metrics: Sequence[Metric] = data.resource_metrics[0].scope_metrics[0].metrics if data else ()
    return {
        point.attributes[Attribute.RPC_STATUS]: point.count
        for metric in metrics
        if metric.name == str(MetricName.CALL_DURATION)
        for point in metric.data.data_points
        if isinstance(point, HistogramDataPoint) and point.attributes and point.attributes[Attribute.RPC_METHOD] == f"{SERVICE}/TrackEvent"
    }


async def spans_of(servicer: Script, *, metadata: Metadata = (("traceparent", TRACEPARENT),)) -> Sequence[ReadableSpan]:
    exporter = InMemorySpanExporter()
    async with served(servicer, exporters=[exporter]) as stub:
        with suppress(grpc.aio.AioRpcError):
            await stub.TrackEvent(pb.TrackEventRequest(), metadata=scoped("site", *metadata))
    return exporter.get_finished_spans()


async def test_a_call_is_one_span_in_its_callers_trace() -> None:
    (span,) = await spans_of(Script())
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == tuple(TRACEPARENT.split("-")[1:3])
    assert (span.name, span.kind, span.status.status_code) == (f"{SERVICE}/TrackEvent", SpanKind.SERVER, StatusCode.UNSET)
    assert span.attributes == {
        Attribute.RPC_METHOD: f"{SERVICE}/TrackEvent",
        Attribute.RPC_STATUS: "OK",
        Attribute.CLIENT: "shop",
        Attribute.SCOPE: "site",
    }
    assert span.resource.attributes["service.name"] == "boundary-test"


@pytest.mark.parametrize(
    ("error", "status", "fault"), [(NotFound("none"), "NOT_FOUND", StatusCode.UNSET), (ValueError(PERSONAL), "INTERNAL", StatusCode.ERROR)]
)
async def test_a_span_fails_with_the_service_only_and_without_the_text(error: Exception, status: str, fault: StatusCode) -> None:
    (span,) = await spans_of(raising(error))
    assert span.attributes is not None
    assert (span.attributes[Attribute.RPC_STATUS], span.status.status_code) == (status, fault)
    assert PERSONAL not in span.to_json()


async def test_a_servicers_aborted_call_is_one_span_with_its_status() -> None:
    async def abort(context: Context) -> None:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")

    (span,) = await spans_of(Script(abort))
    assert span.attributes is not None
    assert (span.attributes[Attribute.RPC_STATUS], span.status.status_code) == ("FAILED_PRECONDITION", StatusCode.UNSET)


async def test_a_message_carries_the_current_span_on() -> None:
    carried: list[str] = []

    async def carry(_context: Context) -> None:
        carried.append(traceparent())

    (span,) = await spans_of(Script(carry))
    assert span.context is not None
    assert carried == [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"]


@pytest.mark.parametrize(("sent", "carried"), [(TRACEPARENT, TRACEPARENT), ("00-nonsense", ""), ("", "")])
async def test_without_tracing_the_callers_context_rides_along(sent: str, carried: str) -> None:
    found: list[str] = []

    async def carry(_context: Context) -> None:
        found.append(traceparent())

    async with served(Script(carry)) as stub:
        await stub.TrackEvent(pb.TrackEventRequest(), metadata=(*INTERNAL, ("traceparent", sent)))
        await stub.TrackEvent(pb.TrackEventRequest(), metadata=INTERNAL)
    assert found == [carried, ""]


async def test_an_unknown_method_is_unimplemented() -> None:
    async with channel_to(lambda server: add_ingestion(Script(), server)) as channel:
        error = await refusal(invoke(channel, f"/{SERVICE}/Nothing", b"", INTERNAL))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
