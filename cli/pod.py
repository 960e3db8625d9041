"""Commands in a pod of the mesh, which has its settings in the environment instead of a data folder."""

from __future__ import annotations

import asyncio
import os
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc.aio
from google.protobuf.json_format import MessageToJson
from pmp.ingestion.v1.ingestion_pb2 import GetAccountingRequest
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pydantic import ValidationError
from pydantic_settings import SettingsError

from cli.books import PATIENCE_SECONDS, Books
from cli.errors import CommandFailed
from cli.folder import DataFolder, in_pod
from cli.layout import service_names
from cli.readiness import redis_ready, service_ready
from cli.status import ProcessStatus, RoleStatus, Status
from kit.credentials.channels import open_channel
from kit.settings import MeshSettings

_Settings = TypeVar("_Settings", bound=MeshSettings)


def pod_settings(folder: DataFolder) -> MeshSettings | None:
    """The settings of the pod in which a command runs; None where a mesh runs on the data folder, or outside of a pod.

    Raises:
        CommandFailed: a setting is wrong.
    """
    return read_settings(MeshSettings) if in_pod(folder) else None


def read_settings(kind: type[_Settings]) -> _Settings:
    """Reads settings from the environment of a pod.

    Raises:
        CommandFailed: a setting is missing or wrong.
    """
    try:
        return kind()  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        # The values may be secret.
        names = ", ".join(f"PMP_{'.'.join(map(str, each['loc']))}".upper() for each in error.errors())
        raise CommandFailed(f"{names} can't be read") from None
    except SettingsError as error:
        raise CommandFailed(f"a setting is not JSON: {error}") from None


async def ask_services(settings: MeshSettings) -> Status:
    """Checks every service of the mesh, each at one of its pods, and the Redis. Workers have no address to ask at."""
    names = service_names()
    answers = await asyncio.gather(*(service_ready(settings.address(name), name, open_channel(settings, name)) for name in names))
    found = [_status(name, settings.address(name), ready=ready) for name, ready in zip(names, answers, strict=True)]
    if url := os.environ.get("PMP_REDIS_URL", ""):
        found.append(_status("redis", urlsplit(url).netloc.rpartition("@")[2], ready=await redis_ready(url)))
    return Status(url="", ready=all(each.ready for each in found), disk=None, processes=found)


def _status(name: str, address: str, *, ready: bool) -> ProcessStatus:
    return ProcessStatus(name=name, pid=None, address=address, ready=ready, roles=[RoleStatus(name=name, ready=ready)], restarts=0)


async def ask_for_books(settings: MeshSettings) -> Books:
    """Requests the books from ingestion.

    Raises:
        CommandFailed: it does not answer.
    """
    address = settings.address("ingestion")
    async with open_channel(settings, "ingestion") as channel:
        stub: Any = IngestionServiceStub(channel)
        try:
            answer = await stub.GetAccounting(GetAccountingRequest(), metadata=settings.mesh_metadata, timeout=PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise CommandFailed(f"ingestion at {address} does not answer ({error.code().name}: {error.details()})") from None
    return Books.model_validate_json(MessageToJson(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
