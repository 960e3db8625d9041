"""A role of a service as an entry point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from kit.server import run
from kit.service.resources import Resources, open_resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from kit.telemetry.setup import telemetry

_Settings = TypeVar("_Settings", bound=Settings)


@dataclass(frozen=True, slots=True)
class Role(Generic[_Settings]):
    """A way to run a service."""

    name: str
    """In logs, spans and metrics."""
    settings: type[_Settings]
    compose: Callable[[_Settings, Resources], ServiceRuntime]
    """Composes it of what it has; connects to nothing."""

    def run(self) -> None:
        """Runs the role alone in this process, from its settings to its end; exits as `kit.server.run` does."""
        run(self.settings, self._main)

    async def _main(self, settings: _Settings) -> None:
        with telemetry(settings, self.name):
            async with open_resources(settings) as resources:
                await self.compose(settings, resources).serve()
