"""What is recorded of a call when it ends: its span's attributes, its metric and its log line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final

import grpc
import structlog
from opentelemetry.trace import Span, StatusCode

from kit.boundary.caller import Call
from kit.boundary.outcome import FAULTS, Ended
from kit.errors import Overloaded
from kit.telemetry.deferred import DeferredBatch
from kit.telemetry.errors import describe
from kit.telemetry.names import Attribute, MetricName
from kit.telemetry.roles import current_role
from kit.telemetry.state import meter
from kit.telemetry.tracing import traceparent

_REFUSALS_SECONDS: Final = 1.0
"""Calls that are shed within this time share one log line: writing one for each would add to the load."""

_SECONDS: Final = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]


class Recorder:
    """Records calls that have ended. One of each process: its metrics have one instrument."""

    def __init__(self) -> None:
        self._log: Any = structlog.get_logger().bind()
        self._ended = DeferredBatch(self._record_ended)
        self._refused = DeferredBatch(self._record_refused, _REFUSALS_SECONDS)
        self._duration = meter().create_histogram(
            MetricName.CALL_DURATION, MetricName.CALL_DURATION.unit, "Duration of rpcs.", explicit_bucket_boundaries_advisory=_SECONDS
        )

    def record(self, call: Call, current: Span, code: grpc.StatusCode, fault: BaseException | None) -> None:
        """Records a call.

        Args:
            call: its state.
            current: its span.
            code: how it ended.
            fault: the error that ended it, if any.
        """
        ended = Ended(call, code, perf_counter() - call.started, datetime.now(UTC), traceparent()[3:35], current_role())
        if current.is_recording():
            current.set_attribute(Attribute.RPC_STATUS, code.name)
            current.set_attribute(Attribute.CLIENT, call.caller.client)
            current.set_attribute(Attribute.SCOPE, call.caller.scope)
            if code in FAULTS:
                current.set_status(StatusCode.ERROR)
        if isinstance(fault, Overloaded):
            self._refused.add(ended)
            return
        if code not in FAULTS:
            self._ended.add(ended)
            return
        self._ended.flush()  # the calls before a fault help to understand it
        self._duration.record(ended.seconds, call.method.labels(code))
        if code is grpc.StatusCode.UNAVAILABLE:
            self._log.warning("call", error=describe(fault) if fault else "", **ended.line())
        else:
            self._log.error("call", exc_info=fault, **ended.line())

    def _record_ended(self, calls: Sequence[Ended]) -> None:
        for ended in calls:
            self._duration.record(ended.seconds, ended.call.method.labels(ended.code))
        for ended in calls:
            self._log.info("call", **ended.line())

    def _record_refused(self, calls: Sequence[Ended]) -> None:
        for ended in calls:
            self._duration.record(ended.seconds, ended.call.method.labels(ended.code))
        for method, count in Counter(ended.call.method.name for ended in calls).items():
            self._log.warning("calls refused", method=method, calls=count)
