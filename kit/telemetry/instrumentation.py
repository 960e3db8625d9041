"""Spans of SQL statements, and the use of a database's pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanKind
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from kit.telemetry.names import Attribute, MetricName
from kit.telemetry.state import meter, state
from kit.telemetry.tracing import fail, tracing


def instrument(engine: AsyncEngine) -> None:
    """Records the engine's statements (text without values) as spans within a recorded span, and its pool as a gauge."""
    sync = engine.sync_engine
    name = Path(sync.url.database or "").stem
    if isinstance(sync.pool, QueuePool):
        used = partial(_pool_use, sync.pool, {Attribute.POOL: name})
        meter().create_observable_gauge(MetricName.POOL_USED, [used], MetricName.POOL_USED.unit, "Connections in use.")
    if tracing():
        attributes: dict[str, str] = {Attribute.DB_SYSTEM: sync.dialect.name, Attribute.DB_NAME: name}
        event.listen(sync, "before_cursor_execute", partial(_statement_begins, attributes))
        event.listen(sync, "after_cursor_execute", _statement_ends)
        event.listen(sync, "handle_error", _statement_fails)


def _pool_use(pool: QueuePool, attributes: Mapping[str, str], _options: CallbackOptions) -> Iterator[Observation]:
    yield Observation(pool.checkedout(), attributes)


def _statement_begins(
    attributes: Mapping[str, str], _connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool
) -> None:
    # Polling outside of any trace would fill the store with traces of one statement.
    if state.tracer is not None and trace.get_current_span().is_recording():
        context.kit_span = state.tracer.start_span(
            statement.split(None, 1)[0].upper(), kind=SpanKind.CLIENT, attributes={**attributes, Attribute.DB_STATEMENT: statement}
        )


def _statement_ends(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
    current: Span | None = getattr(context, "kit_span", None)
    if current is not None:
        current.end()


def _statement_fails(failure: Any) -> None:
    current: Span | None = getattr(failure.execution_context, "kit_span", None)
    if current is not None and current.is_recording():
        fail(current, failure.original_exception)
        current.end()
