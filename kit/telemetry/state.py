"""The tracer and the meter of this process."""

from __future__ import annotations

from opentelemetry.metrics import Meter, NoOpMeter
from opentelemetry.trace import Tracer

SCOPE = "pmp"
"""Name of the instrumentation scope."""


class State:
    """The telemetry of this process: replaced by `telemetry`, off outside of it."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        self.meter: Meter = NoOpMeter(SCOPE)


state = State()


def meter() -> Meter:
    """Returns the meter that creates instruments. Outside of `telemetry` they record nothing."""
    return state.meter
