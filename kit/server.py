"""The life of a service process: settings, server, health, background work, and a drain that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection
from pydantic import ValidationError
from pydantic_settings import SettingsError

from kit.boundary.boundary import Boundary
from kit.outages import is_outage
from kit.scrubbing.scrubber import Scrubber
from kit.settings import Settings, WrongSetting, mesh_tokens
from kit.telemetry.errors import describe
from kit.telemetry.log_lines import log_to_stdout

Registration: TypeAlias = tuple[Callable[[Any, Any], None], object]
"""The generated function that adds a servicer to a server, and the servicer."""
Check: TypeAlias = Callable[[], Awaitable[object]]
"""Returns while what it checks is up, raises while it is not."""
Background: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Runs until it is cancelled, and finishes the current step before it ends."""

_Settings = TypeVar("_Settings", bound=Settings)

LIVENESS = "liveness"
"""Name under which grpc.health.v1 reports that the process answers at all, whatever the checks find: no restart repairs a database."""

_CHECK_SECONDS = 1.0
"""Between two rounds of checks; also the most a check may take."""

_FAILURES = 3
"""Consecutive failures of a check that make a serving process unready: one slow answer under load is no outage."""

_YOUNG_OBJECTS = 10_000
"""New objects that make the garbage collector look for cycles: a batch holds some thousands until it is answered, and none is garbage."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second process on the port is a mistake
    ("grpc.max_receive_message_length", 1_048_576 + 65_536),  # above the boundary's limit, which answers with the reason
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # Envoy keeps idle connections alive by pings
)

_log = structlog.get_logger()


async def serve(
    settings: Settings, *, services: Sequence[Registration], checks: Mapping[str, Check], background: Sequence[Background] = ()
) -> None:
    """Serves until SIGTERM, SIGINT or cancellation, then drains: first the calls, then the background work.

    Args:
        settings: `listen`, `mesh_token`, `site_timezone`, `site_url_parameters`, `most_calls`, `slow_call_seconds`, `drain_delay_seconds`
            and `drain_seconds`.
        services: What is served, inside of the boundary.
        checks: What must be up for the rpcs to work, by name: grpc.health.v1 says NOT_SERVING while one of them fails.
        background: Consumers and relays, which run as long as the process serves.

    Raises:
        OSError: The address can't be listened on.
        ExceptionGroup: Background work failed, or ended by itself. The process is drained.
    """
    server = Server(settings, services)
    with _signals() as stopped:
        server.listen(settings.listen)
        await server.start()
        works = [asyncio.create_task(work()) for work in background]
        watch = asyncio.create_task(_watch(server, checks))
        try:
            await asyncio.wait([stopped, watch, *works], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = [task for task in (watch, *works) if task.done()]
            _log.info("draining", background_ended=len(ended))
            await server.drain(0 if ended else settings.drain_delay_seconds, settings.drain_seconds)
            errors = await _end([watch, *works])
    _log.info("stopped")
    if ended or errors:
        message = "background work ended"
        raise ExceptionGroup(message, errors or [RuntimeError(message)])


def run(kind: type[_Settings], main: Callable[[_Settings], Coroutine[Any, Any, None]]) -> None:
    """Runs a process from its settings to its end. Exits with 2 when a setting is missing or wrong, with 1 on an error.

    Args:
        kind: the class of the settings, which are read from the environment.
        main: runs until the process is stopped.
    """
    try:
        settings = kind()  # pyright: ignore[reportCallIssue]  (the environment gives what is required)
    except (ValidationError, SettingsError) as error:
        sys.stderr.writelines(f"{line}\n" for line in _complaints(error))
        sys.exit(2)
    log_to_stdout(settings.log_level)
    # Collections that look through all modules again took a tenth of a busy process's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    try:
        uvloop.run(_main(main, settings))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except WrongSetting as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except Exception as error:  # noqa: BLE001  (the default would print texts that may hold personal values)
        _log.critical("died", exc_info=error)
        sys.exit(1)


async def _main(main: Callable[[_Settings], Coroutine[Any, Any, None]], settings: _Settings) -> None:
    asyncio.get_running_loop().set_exception_handler(_forgotten)
    await main(settings)


def _forgotten(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Logs an error that was never awaited; asyncio's own handler would print the exception's text."""
    _log.error("unhandled", what=context["message"], exc_info=context.get("exception"))


async def run_every(look: Check, seconds: float, complaint: str, **fields: object) -> None:
    """Calls `look` every so many seconds until cancelled; logs each error of it as `complaint`, with these fields."""
    while True:
        try:
            await look()
        except Exception as error:  # noqa: BLE001 (whatever it is, the next call may succeed)
            _log.warning(complaint, **fields, error=type(error).__name__, exc_info=not is_outage(error))
        await asyncio.sleep(seconds)


def _complaints(error: ValidationError | SettingsError) -> Iterator[str]:
    """What is wrong with the settings, by variable; never a value."""
    if isinstance(error, SettingsError):
        yield str(error)
        return
    prefix = Settings.model_config.get("env_prefix", "")
    for each in error.errors(include_input=False, include_context=False, include_url=False):
        variable = f"{prefix}{'.'.join(map(str, each['loc']))}".upper()
        yield f"{variable} is missing" if each["type"] == "missing" else f"{variable}: {each['msg']}"


class _Health(Protocol):
    """What grpcio's stubs leave out of its asyncio health servicer."""

    async def set(self, service: str, status: Any) -> None: ...

    async def enter_graceful_shutdown(self) -> None: ...


class _Registry:
    """What generated code adds servicers to: the server, which also records the names of the services."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        self.names.append(service)
        self._server.add_registered_method_handlers(service, handlers)


class Server:
    """The gRPC server of a process: services inside of the boundary, with health and reflection.

    Args:
        settings: `mesh_token`, `site_timezone`, `site_url_parameters`, `most_calls` and `slow_call_seconds`.
        services: what is served.
    """

    def __init__(self, settings: Settings, services: Sequence[Registration]) -> None:
        boundary = Boundary(
            *mesh_tokens(settings.mesh_token),
            timezone=settings.site_timezone,
            scrubber=Scrubber(settings.site_url_parameters),
            most_calls=settings.most_calls,
            slow_seconds=settings.slow_call_seconds,
        )
        self._server = grpc.aio.server(interceptors=[boundary], options=_OPTIONS)
        self._health = cast("_Health", health.aio.HealthServicer())  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]
        registry = _Registry(self._server)
        for add, servicer in services:
            add(servicer, registry)
        self._names = ["", *registry.names]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registry)  # pyright: ignore[reportUnknownMemberType]
        enable_server_reflection([*registry.names, REFLECTION], self._server)

    def listen(self, address: str) -> int:
        """Listens on an address; returns the port.

        Raises:
            OSError: the port is taken, or the address is not of this machine.
        """
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            message = f"can't listen on {address}: the port is taken, or the address is not of this machine"
            raise OSError(message) from None
        _log.info("listening", address=address)
        return port

    async def start(self) -> None:
        """Starts to take calls. The process is live from now on, and ready once `set_serving` says so."""
        await self.set_serving(serving=False)
        await self._health.set(LIVENESS, HealthCheckResponse.SERVING)
        await self._server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Sets what grpc.health.v1 answers for each service."""
        for name in self._names:
            await self._health.set(name, HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)

    async def drain(self, delay_seconds: float, seconds: float) -> None:
        """Reports that it stops serving, takes calls for `delay_seconds` more, and lets running ones finish for up to `seconds`."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(delay_seconds)
        await self._server.stop(seconds)


@contextmanager
def _signals() -> Generator[asyncio.Task[bool]]:
    """Yields a task that is done at the first SIGTERM or SIGINT."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    stopped: asyncio.Task[bool] = asyncio.create_task(event.wait())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    try:
        yield stopped
    finally:
        stopped.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _watch(server: Server, checks: Mapping[str, Check]) -> None:
    """Makes health follow the checks, and logs each change."""
    known: Mapping[str, str] | None = None
    failures = dict.fromkeys(checks, _FAILURES)
    while True:
        reasons = await asyncio.gather(*(_reason(check) for check in checks.values()))
        failures = {name: failures[name] + 1 if reason else 0 for name, reason in zip(checks, reasons, strict=True)}
        failing = {name: reason for name, reason in zip(checks, reasons, strict=True) if failures[name] >= _FAILURES}
        await server.set_serving(serving=not failing)
        if known is None or known.keys() != failing.keys():
            (_log.warning if failing else _log.info)("health", serving=not failing, failing=failing)
            known = failing
        await asyncio.sleep(_CHECK_SECONDS)


async def _reason(check: Check) -> str:
    """Why a check fails; empty while it passes."""
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check()
    except Exception as error:  # noqa: BLE001  (a check fails in whatever way its subject does)
        return describe(error)
    return ""


async def _end(works: Sequence[asyncio.Task[None]]) -> list[Exception]:
    """Lets background work finish its current step; returns its errors."""
    for each in works:
        each.cancel()
    results = await asyncio.gather(*works, return_exceptions=True)
    return [result for result in results if isinstance(result, Exception)]
