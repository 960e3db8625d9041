"""A role of a service as an entry point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from kit.registry import Part
from kit.server import run, serve
from kit.service.resources import Resources, open_resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from kit.telemetry.roles import acting_as
from kit.telemetry.setup import telemetry

_Settings = TypeVar("_Settings", bound=Settings)


@dataclass(frozen=True, slots=True)
class Role(Generic[_Settings]):
    """A way to run a service."""

    name: str
    """In logs, spans, metrics and health."""
    settings: type[_Settings]
    compose: Callable[[_Settings, Resources], ServiceRuntime]
    """Composes it of what it has; connects to nothing."""

    async def prepare(self, settings: _Settings, resources: Resources) -> Part:
        """Composes the role and prepares its topics."""
        with acting_as(self.name):
            runtime = self.compose(settings, resources)
            await runtime.prepare()
            return runtime.part(self.name)


def run_roles(roles: Sequence[Role[Any]]) -> None:
    """Runs roles in this process, from their settings to their end; exits as `kit.server.run` does."""
    run([role.settings for role in roles], partial(_main, roles))


async def _main(roles: Sequence[Role[Any]], settings: Sequence[Settings]) -> None:
    shared = settings[0]  # what all services share has one value in one environment
    with telemetry(shared, *(role.name for role in roles)):
        async with open_resources(shared) as resources:
            parts = [await role.prepare(own, resources) for role, own in zip(roles, settings, strict=True)]
            await serve(shared, parts)
