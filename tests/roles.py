"""The roles of all services, and how tests run one step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, TypeVar

import grpc

from kit.registry import Background, Part
from kit.server import Server
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services import role_modules

_Settings = TypeVar("_Settings", bound=Settings)


ROLES: Mapping[str, Role[Any]] = {name: import_module(module).ROLE for name, module in role_modules().items()}


def settings_for(role: Role[_Settings], settings: Settings, **changes: Any) -> _Settings:
    """The settings of a role, as these are but for some changes."""
    return role.settings.model_validate({**dict(settings), **changes})


@asynccontextmanager
async def serving(runtime: ServiceRuntime, background: Sequence[Background] = ()) -> AsyncGenerator[grpc.aio.Channel]:
    """Serves the rpcs of a role. Of what else it does only this runs: tests publish and consume step by step.

    Args:
        runtime: the role as it was composed.
        background: what runs beside.
    """
    await runtime.prepare()
    server = Server(runtime.settings, [Part(runtime.service, runtime.rpcs)])
    host = runtime.settings.listen.rpartition(":")[0]
    port = server.listen(runtime.settings.listen)
    await server.start()
    tasks = [asyncio.create_task(work()) for work in background]
    async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
        yield channel
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.drain(0, 0)
