"""Gauges of figures that are read every now and then: one that could not be read again is not shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Final

from opentelemetry.metrics import CallbackOptions, Observation

from kit.telemetry.names import Attribute, Metric, MetricName
from kit.telemetry.roles import current_role
from kit.telemetry.state import meter

_FRESH_SECONDS: Final = 60.0
"""Several readings long: a single one that fails does not hide the figure."""


class Gauge:
    """A gauge whose figures expire: when the code that sets it fails or hangs, a stale figure would look like a good one.

    Args:
        clock: seconds, as `time.monotonic` has them.
    """

    def __init__(self, name: Metric, description: str, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._role = _role_attribute()
        self._figures: dict[frozenset[tuple[str, str]], tuple[float, float]] = {}
        meter().create_observable_gauge(name, [self._observe], name.unit, description)

    def set(self, figure: float, attributes: Mapping[str, str] | None = None) -> None:
        """Shows a figure for the next minute."""
        self._figures[frozenset((attributes or {}).items())] = self._clock(), figure

    def _observe(self, _options: CallbackOptions) -> Iterator[Observation]:
        now = self._clock()
        for attributes, (at, figure) in list(self._figures.items()):  # read by another thread
            if now - at <= _FRESH_SECONDS:
                yield Observation(figure, {**self._role, **dict(attributes)})


class Ages:
    """A gauge of the seconds since each source of a report was last read, or since the process started.

    Args:
        clock: seconds, as `time.monotonic` has them.
    """

    def __init__(self, *sources: str, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._role = _role_attribute()
        self._read_at = dict.fromkeys(sources, clock())
        description = "Time since what a report is made of was last read."
        meter().create_observable_gauge(MetricName.REPORT_AGE, [self._observe], MetricName.REPORT_AGE.unit, description)

    def read(self, source: str) -> None:
        """A source was read just now."""
        self._read_at[source] = self._clock()

    def _observe(self, _options: CallbackOptions) -> Iterator[Observation]:
        now = self._clock()
        for source, at in self._read_at.items():
            yield Observation(now - at, {**self._role, Attribute.SOURCE: source})


def _role_attribute() -> dict[str, str]:
    """Names the role that makes a gauge: its figures stand beside those of the other roles of the process."""
    return {Attribute.ROLE: role} if (role := current_role()) else {}
