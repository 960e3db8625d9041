"""The log of a process: one line of JSON for each event, on stdout."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import orjson
import structlog

from kit.telemetry.deferred import DeferredBatch
from kit.telemetry.errors import describe
from kit.telemetry.roles import current_role

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger


def log_to_stdout(level: str) -> Callable[[], None]:
    """Configures logging from `level` on, of libraries from `warning` on: as JSON, or readable if stdout is a terminal.

    Returns:
        A function that writes the waiting lines.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    terminal = sys.stdout.isatty()
    stdout = _Stdout()
    structlog.configure(
        processors=[structlog.processors.add_log_level, _complete, structlog.dev.ConsoleRenderer() if terminal else _json],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory() if terminal else lambda *_names: stdout,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=max(threshold, logging.WARNING), force=True)
    return stdout.flush


class _Stdout:
    """Writes lines to stdout in batches: each write releases the interpreter's lock, which costs more than the line.

    Lines of `warning` and above are written immediately.
    """

    def __init__(self) -> None:
        self._descriptor = sys.__stdout__.fileno() if sys.__stdout__ else 1
        self._lines: DeferredBatch[bytes] = DeferredBatch(self._write)
        atexit.register(self.flush)

    def info(self, line: bytes) -> None:
        self._lines.add(line)

    def error(self, line: bytes) -> None:
        self._lines.add(line)
        self.flush()

    def flush(self) -> None:
        self._lines.flush()

    def _write(self, lines: Sequence[bytes]) -> None:
        rest = memoryview(b"".join(line + b"\n" for line in lines))
        with suppress(OSError):  # the reader is gone or the disk is full: no reason to fail a call
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    debug = msg = info
    warning = critical = error


class _Forward(logging.Handler):
    """Sends what libraries log through the same pipeline."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _json(_logger: WrappedLogger, _method: str, line: EventDict) -> bytes:
    return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def _complete(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Adds the time and the role, unless the line has them, and replaces an exception by its frames."""
    if "time" not in line:
        line["time"] = datetime.now(UTC)
    if "role" not in line and (role := current_role()):
        line["role"] = role
    if "exc_info" in line:
        error = _exception(line.pop("exc_info"))
        if error is not None:
            line["exception"] = "".join(_frames(error))
    return line


def _exception(exc_info: Any) -> BaseException | None:
    match exc_info:
        case BaseException() as error:
            return error
        case (_, BaseException() as error, _):
            return error
        case True:
            return sys.exception()
        case _:
            return None


def _frames(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _frames(cause)
    yield from traceback.format_tb(error.__traceback__)
    yield f"{describe(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _frames(each)
