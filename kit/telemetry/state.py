"""The tracers and meters of this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from opentelemetry.metrics import Meter, NoOpMeter
from opentelemetry.trace import Tracer

from kit.telemetry.roles import current_role

_Instruments = TypeVar("_Instruments", Tracer, Meter)

SCOPE = "pmp"
"""Name of the instrumentation scope."""


class State:
    """The telemetry of this process: replaced by `telemetry`, off outside of it."""

    def __init__(self) -> None:
        self.tracers: Mapping[str, Tracer] = {}
        """By role, and under an empty name that of work that belongs to none; empty when no spans are recorded."""
        self.meters: Mapping[str, Meter] = {"": NoOpMeter(SCOPE)}
        """By role, and under an empty name that of work that belongs to none."""

    @property
    def tracer(self) -> Tracer | None:
        """The tracer of the current role; None when no spans are recorded."""
        return _of_role(self.tracers) if self.tracers else None


state = State()


def meter() -> Meter:
    """Returns the meter of the current role, which creates instruments. Outside of `telemetry` they record nothing.

    Roles have a meter each, because a meter ignores the second observable instrument of one name.
    """
    return _of_role(state.meters)


def _of_role(by_role: Mapping[str, _Instruments]) -> _Instruments:
    return by_role.get(current_role(), by_role[""])
