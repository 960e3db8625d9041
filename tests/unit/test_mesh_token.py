"""The mesh's own credential: refused when empty, and rotated while calls go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any

import grpc
import pytest
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceServicer, IngestionServiceStub, add_IngestionServiceServicer_to_server
from pmp.privacy.v1 import privacy_pb2
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceServicer, add_SubjectDataServiceServicer_to_server
from pydantic import SecretStr, ValidationError

from gateway.contracts import read_descriptors
from gateway.render import render, secrets
from gateway.settings import GatewaySettings
from kit.boundary.boundary import Boundary
from kit.errors import Unavailable
from kit.settings import Settings
from services.gdpr.holders import Holders

STEPS = ("old", "old,new", "new,old", "new")
"""What the setting is before, while and after it rotates, as docs/operations.md says it."""


def settings_of(mesh_token: str, service_address: str = "") -> Settings:
    return Settings(
        mesh_token=SecretStr(mesh_token),
        vault_key=SecretStr(""),
        key_encryption_keys=SecretStr(""),
        database_url="sqlite+aiosqlite://",
        redis_url="redis://127.0.0.1",
        service_address=service_address,
    )


@cache
def sent_by_the_gateway(mesh_token: str) -> str:
    """The credential that Envoy adds to calls."""
    key = SecretStr("k" * 32)
    settings = GatewaySettings(mesh_token=SecretStr(mesh_token), api_keys=[key], jwt_secrets=[key])
    listener = render(settings, read_descriptors(), "mesh.binpb")["static_resources"]["listeners"][0]
    (host,) = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    headers = {each["header"]["key"]: each["header"]["value"] for each in host["request_headers_to_add"]}
    assert headers["x-pmp-mesh-token"] == "%ENVIRONMENT(PMP_MESH_TOKEN)%"
    return secrets(settings)["PMP_MESH_TOKEN"]


class Pod(IngestionServiceServicer, SubjectDataServiceServicer):
    """Of each kind of call there is, one: the gateway's and another service's."""

    async def TrackEvent(self, request: pb.TrackEventRequest, context: Any) -> pb.TrackEventResponse:  # noqa: ARG002
        return pb.TrackEventResponse(success=True)

    async def Erase(self, request: privacy_pb2.EraseRequest, context: Any) -> privacy_pb2.EraseResponse:  # noqa: ARG002
        return privacy_pb2.EraseResponse()


@asynccontextmanager
async def replica(mesh_token: str) -> AsyncGenerator[str]:
    """Address of a pod of a service with that setting."""
    server = grpc.aio.server(interceptors=[Boundary(lambda: settings_of(mesh_token).mesh_tokens)])
    pod: Any = Pod()  # pyright: ignore[reportAbstractUsage]  (the other rpcs are not called)
    add_IngestionServiceServicer_to_server(pod, server)
    add_SubjectDataServiceServicer_to_server(pod, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def call(address: str, mesh_token: str) -> None:
    """Calls as the gateway does, and as another service does, with that setting."""
    request = pb.TrackEventRequest()
    request.event.event_type = "page_view"
    request.event.timestamp.GetCurrentTime()
    async with grpc.aio.insecure_channel(address) as channel:
        await IngestionServiceStub(channel).TrackEvent(request, metadata=(("x-pmp-mesh-token", sent_by_the_gateway(mesh_token)),))
    await Holders(settings_of(mesh_token, service_address=address), ["identity"]).erase("identity", dry_run=True)


async def test_the_credential_rotates_while_calls_go_on() -> None:
    """Pods of a service and of its callers get each step's setting one after the other, and call whatever they meet."""
    async with AsyncExitStack() as stack:
        pods = [await stack.enter_async_context(replica(STEPS[0])) for _ in range(2)]
        callers = [STEPS[0]] * 2
        for step in STEPS[1:]:
            for number in range(2):
                callers[number] = step
                await asyncio.gather(*(call(pod, caller) for caller in callers for pod in pods))
                pods[number] = await stack.enter_async_context(replica(step))
                await asyncio.gather(*(call(pod, caller) for caller in callers for pod in pods))


@pytest.mark.parametrize(("caller", "service"), [("new", "old"), ("old", "new"), ("new,old", "old"), ("old,new", "new")])
async def test_a_step_that_is_left_out_has_calls_refused(caller: str, service: str) -> None:
    async with replica(service) as address:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(address, caller)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(Unavailable, match="identity answers UNAUTHENTICATED"):
            await Holders(settings_of(caller, service_address=address), ["identity"]).answer()


@pytest.mark.parametrize("setting", ["", ",", "old,", ",new", "one,two,three"])
def test_an_empty_credential_or_a_third_is_refused(setting: str) -> None:
    """With an empty one, a port would let in whoever sends none."""
    with pytest.raises(ValidationError, match="one credential, or two with a comma between them while they rotate"):
        settings_of(setting)
    with pytest.raises(ValidationError, match="one credential, or two with a comma between them while they rotate"):
        sent_by_the_gateway(setting)
