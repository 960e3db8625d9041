"""Channels of the Python client, against a server that records what arrives and fails as asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import grpc
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry.sdk.trace import TracerProvider
from pmp.gdpr.v1 import gdpr_pb2
from pmp.gdpr.v1.gdpr_pb2_grpc import GdprServiceStub
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pmp_mesh_client.channel import connect, connect_async
from pmp_mesh_client.credentials import MeshCredentials
from pmp_mesh_client.tokens import ISSUER, MintedToken, Scope

from kit.boundary.outcome import STATUSES

SECRET = "a-secret-of-at-least-thirty-two-bytes"
YEAR = 31_536_000
"""A call without a deadline has longer than this."""
CREDENTIALS = MeshCredentials("the-key", "the-token")


class Recorder(grpc.GenericRpcHandler):
    """Answers every call; fails the first calls of each method with a status."""

    def __init__(self) -> None:
        self.url = ""
        self.failures = 0
        self.status = grpc.StatusCode.UNAVAILABLE
        self.metadata: dict[str, str] = {}
        self.remaining: float | None = None
        self.calls: Counter[str] = Counter()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        name = handler_call_details.method.rpartition("/")[2]

        def answered(_request: bytes, context: grpc.ServicerContext) -> bytes:
            self.metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            left = context.time_remaining()
            self.remaining = left if left < YEAR else None
            self.calls[name] += 1
            if self.calls[name] <= self.failures:
                context.abort(self.status, "not now")
            return b""

        def streamed(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield answered(request, context)

        if name == "DownloadArchive":
            return grpc.unary_stream_rpc_method_handler(streamed)
        return grpc.unary_unary_rpc_method_handler(answered)


@contextmanager
def serving(tls: grpc.ServerCredentials | None = None) -> Generator[Recorder]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=[recorder := Recorder()])
    port = server.add_secure_port("127.0.0.1:0", tls) if tls else server.add_insecure_port("127.0.0.1:0")
    recorder.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    server.start()
    try:
        yield recorder
    finally:
        server.stop(None).wait()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with serving() as recorder:
        yield recorder


def test_each_call_carries_key_token_trace_and_a_deadline(recorder: Recorder) -> None:
    with TracerProvider().get_tracer("tests").start_as_current_span("work") as span, connect(recorder.url, CREDENTIALS) as channel:
        IngestionServiceStub(channel).TrackEvent(pb.TrackEventRequest())
    assert (recorder.metadata["x-api-key"], recorder.metadata["authorization"]) == ("the-key", "Bearer the-token")
    assert recorder.metadata["traceparent"].split("-")[1] == f"{span.get_span_context().trace_id:032x}"
    assert recorder.remaining is not None
    assert 25 < recorder.remaining < 31


async def test_a_channel_of_asyncio_does_the_same(recorder: Recorder) -> None:
    async with connect_async(recorder.url, CREDENTIALS, seconds=7) as channel:
        with TracerProvider().get_tracer("tests").start_as_current_span("work"):
            await IngestionServiceStub(channel).TrackEvent(pb.TrackEventRequest())
        assert {"x-api-key", "authorization", "traceparent"} <= recorder.metadata.keys()
        assert recorder.remaining is not None
        assert 5 < recorder.remaining < 8
        assert [answer async for answer in GdprServiceStub(channel).DownloadArchive(gdpr_pb2.DownloadArchiveRequest())]
    assert (recorder.metadata["x-api-key"], recorder.remaining) == ("the-key", None)


def test_a_stream_lasts_as_long_as_it_does_and_a_caller_may_be_in_a_hurry(recorder: Recorder) -> None:
    with connect(recorder.url, CREDENTIALS) as channel:
        assert len(list(GdprServiceStub(channel).DownloadArchive(gdpr_pb2.DownloadArchiveRequest()))) == 1
        assert (recorder.metadata["x-api-key"], recorder.remaining) == ("the-key", None)
        IngestionServiceStub(channel).TrackEvent(pb.TrackEventRequest(), timeout=2)
    assert recorder.remaining is not None
    assert recorder.remaining < 3


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_call_that_may_be_repeated_is_repeated(recorder: Recorder, status: grpc.StatusCode) -> None:
    assert status in STATUSES.values()
    recorder.failures, recorder.status = 2, status
    with connect(recorder.url, CREDENTIALS) as channel:
        stub = IngestionServiceStub(channel)
        stub.GetAccounting(pb.GetAccountingRequest())
        with pytest.raises(grpc.RpcError, match="not now"):
            stub.TrackEvent(pb.TrackEventRequest())
    assert recorder.calls == {"GetAccounting": 3, "TrackEvent": 1}


def test_a_failure_that_a_repeat_can_not_mend_is_final(recorder: Recorder) -> None:
    recorder.failures, recorder.status = 1, grpc.StatusCode.INVALID_ARGUMENT
    with connect(recorder.url, CREDENTIALS) as channel, pytest.raises(grpc.RpcError, match="not now"):
        IngestionServiceStub(channel).GetAccounting(pb.GetAccountingRequest())
    assert recorder.calls == {"GetAccounting": 1}


def certificate() -> tuple[bytes, bytes]:
    """A key and a certificate of this machine, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form), signed.public_bytes(serialization.Encoding.PEM)


async def test_with_tls_grpc_itself_asks_for_the_credentials_of_each_call() -> None:
    key, trusted = certificate()
    tokens = iter(["first", "second"])
    renewed = MeshCredentials("the-key", lambda: next(tokens))
    with serving(grpc.ssl_server_credentials([(key, trusted)])) as recorder:
        with connect(recorder.url, renewed, root_certificates=trusted) as channel:
            IngestionServiceStub(channel).TrackEvent(pb.TrackEventRequest())
            assert (recorder.metadata["x-api-key"], recorder.metadata["authorization"]) == ("the-key", "Bearer first")
        async with connect_async(recorder.url, renewed, root_certificates=trusted) as channel:
            await IngestionServiceStub(channel).TrackEvent(pb.TrackEventRequest())
            assert recorder.metadata["authorization"] == "Bearer second"
        with connect(recorder.url, CREDENTIALS) as channel, pytest.raises(grpc.RpcError) as refused:
            IngestionServiceStub(channel).TrackEvent(pb.TrackEventRequest())
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE, "a certificate that nobody vouches for"


def test_a_token_is_renewed_before_it_expires() -> None:
    now = 1_800_000_000.0
    token = MintedToken(SECRET, Scope.SITE, "42", lambda: now)
    first = token()
    now += 1200
    assert token() == first
    now += 1
    second = token()
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims = [jwt.decode(each, SECRET, algorithms=["HS256"], issuer=ISSUER, options=options) for each in (first, second)]
    assert [(each["iat"], each["exp"]) for each in claims] == [(1_800_000_000, 1_800_001_800), (1_800_001_201, 1_800_003_001)]
    assert [(each["scope"], each["id"]) for each in claims] == [("site", "42")] * 2
    assert "id" not in json.loads(json.dumps(jwt.decode(MintedToken(SECRET, Scope.READ)(), SECRET, algorithms=["HS256"])))


@pytest.mark.parametrize("url", ["mesh.example", "ftp://mesh.example", "https://", "https://mesh.example/api", "https://mesh.example?x=1"])
def test_an_address_that_is_none_of_a_gateway_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected the URL of a gateway"):
        connect(url, CREDENTIALS)
