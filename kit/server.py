"""The life of a process: settings, server, health, background work of its roles, and a drain that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import structlog
import uvloop
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection
from pydantic import ValidationError
from pydantic_settings import SettingsError

from kit.boundary import health
from kit.boundary.boundary import Boundary
from kit.credentials.channels import listen_on
from kit.outages import is_outage
from kit.registry import Check, Part, Registry
from kit.scrubbing.scrubber import Scrubber
from kit.settings import Settings, WrongSetting
from kit.telemetry.errors import describe
from kit.telemetry.log_lines import log_to_stdout
from kit.telemetry.roles import acting_as

if TYPE_CHECKING:
    from kit.streams.listener import StreamListener

LIVENESS = "liveness"
"""Name under which grpc.health.v1 reports that the process answers at all, whatever the checks find: no restart repairs a database."""

_CHECK_SECONDS = 1.0
"""Between two rounds of checks while one fails; also the most a check may take."""
_PASSING_SECONDS = 5.0
"""Between two rounds of checks while all pass: each costs a query."""

_FAILURES = 3
"""Consecutive failures of a check that make a serving process unready: one slow answer under load is no outage."""

_YOUNG_OBJECTS = 10_000
"""New objects that make the garbage collector look for cycles: a batch holds some thousands until it is answered, and none is garbage."""

_Main: TypeAlias = Callable[[Sequence[Any]], Coroutine[Any, Any, None]]

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second process on the port is a mistake
    ("grpc.max_receive_message_length", 1_048_576 + 65_536),  # above the boundary's limit, which answers with the reason
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # Envoy keeps idle connections alive by pings
)

_log = structlog.get_logger()


async def serve(settings: Settings, parts: Sequence[Part]) -> None:
    """Serves until SIGTERM, SIGINT or cancellation, then drains: first the calls, then the background work.

    Args:
        settings: addresses, `mesh_token`, `certificates`, `site_timezone`, `site_url_parameters`, `most_calls`, `slow_call_seconds`,
            `drain_delay_seconds` and `drain_seconds`.
        parts: The roles of the process. grpc.health.v1 says NOT_SERVING of a role, and of what it serves, while one of its checks fails;
            of the process, while one of any role fails.

    Raises:
        OSError: The address can't be listened on.
        ExceptionGroup: Background work of a role failed, or ended by itself. The process is drained.
    """
    server = Server(settings, parts)
    with _signals() as stopped:
        server.listen(settings.listen)
        await server.listen_for_streams(settings.stream_listen)
        await server.listen_for_probes(settings.health_listen)
        await server.start()
        works = [task for part in parts for task in _start(server, part)]
        try:
            await asyncio.wait([stopped, *works], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = [task for task in works if task.done()]
            _log.info("draining", background_ended=len(ended))
            await server.drain(0 if ended else settings.drain_delay_seconds, settings.drain_seconds)
            errors = await _end(works)
    _log.info("stopped")
    if ended or errors:
        message = "background work ended"
        raise ExceptionGroup(message, errors or [RuntimeError(message)])


def _start(server: Server, part: Part) -> list[asyncio.Task[None]]:
    """Starts the checks and the background work of a role."""
    with acting_as(part.role):
        works = [partial(_watch, server, part), *part.background]
        return [asyncio.create_task(work()) for work in works]


def run(kinds: Sequence[type[Settings]], main: _Main) -> None:
    """Runs a process from its settings to its end. Exits with 2 when a setting is missing or wrong, with 1 on an error.

    Args:
        kinds: the classes of the settings, which are read from the one environment.
        main: runs until the process is stopped; is given the settings in the order of their classes.
    """
    try:
        settings = [kind() for kind in kinds]  # pyright: ignore[reportCallIssue]  (the environment gives what is required)
    except (ValidationError, SettingsError) as error:
        sys.stderr.writelines(f"{line}\n" for line in _complaints(error))
        sys.exit(2)
    log_to_stdout(settings[0].log_level)
    # Collections that look through all modules again took a tenth of a busy process's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    try:
        uvloop.run(_guarded(main, settings))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except WrongSetting as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except Exception as error:  # noqa: BLE001  (the default would print texts that may hold personal values)
        _log.critical("died", exc_info=error)
        sys.exit(1)


async def _guarded(main: _Main, settings: Sequence[Settings]) -> None:
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


class Server:
    """The gRPC server of a process: services inside of the boundary, with health and reflection.

    Args:
        settings: `mesh_token`, `certificates`, `site_timezone`, `site_url_parameters`, `most_calls` and `slow_call_seconds`.
        parts: the roles of the process.
    """

    def __init__(self, settings: Settings, parts: Sequence[Part]) -> None:
        registry = Registry(parts)
        boundary = Boundary(
            settings.token_source,
            timezone=settings.site_timezone,
            scrubber=Scrubber(settings.site_url_parameters),
            most_calls=settings.most_calls,
            slow_seconds=settings.slow_call_seconds,
            roles=registry.roles,
        )
        self._streams = [(part.role, stream) for part in parts for stream in part.streams]
        self._boundary = boundary
        self._stream_listener: StreamListener | None = None
        self._server = grpc.aio.server(interceptors=[boundary], options=_OPTIONS)
        self._settings = settings
        self._health = health.Health()
        registry.add_to(self._server)
        self._serving = dict.fromkeys((part.role for part in parts), False)
        self._roles = {"": list(self._serving), **{role: [role] for role in self._serving}, **registry.roles}
        self._health.add_to(self._server)
        enable_server_reflection([*registry.roles, health.SERVICE, REFLECTION], self._server)

    def listen(self, address: str) -> int:
        """Listens on an address; returns the port.

        Raises:
            OSError: the port is taken, or the address is not of this machine.
            WrongSetting: the certificates are of no use.
        """
        port = listen_on(self._server, address, self._settings.certificates)
        _log.info("listening", address=address)
        return port

    async def listen_for_streams(self, address: str) -> int:
        """Listens for streams over HTTP if a role has some, as `listen` does; returns the port, else 0."""
        if not self._streams:
            return 0
        # Only where it is needed: its library takes memory.
        from kit.streams.listener import StreamListener  # noqa: PLC0415

        self._stream_listener = StreamListener(self._boundary, self._streams, self._settings.certificates)
        return await self._stream_listener.listen(address)

    async def listen_for_probes(self, address: str | None) -> int:
        """Listens for questions about health alone, without TLS, if an address is given; returns the port, else 0."""
        return await self._health.listen(address) if address else 0

    async def start(self) -> None:
        """Starts to take calls. The process is live from now on, and ready once `set_serving` says so."""
        for role in self._serving:
            await self.set_serving(role, serving=False)
        await self._health.set(LIVENESS, serving=True)
        await self._server.start()

    async def set_serving(self, role: str, *, serving: bool) -> None:
        """Sets what grpc.health.v1 answers for a role, for the services it serves and for the process."""
        self._serving[role] = serving
        for name, roles in self._roles.items():
            if role in roles:
                await self._health.set(name, serving=all(self._serving[each] for each in roles))

    async def drain(self, delay_seconds: float, seconds: float) -> None:
        """Reports that it stops, takes calls for `delay_seconds` more, then ends streams and lets other calls take up to `seconds`."""
        await self._health.drain()
        await asyncio.sleep(delay_seconds)
        for _, stream in self._streams:
            stream.end()
        closing = [self._stream_listener.close(seconds)] if self._stream_listener is not None else []
        await asyncio.gather(self._server.stop(seconds), *closing)
        await self._health.close()


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


async def _watch(server: Server, part: Part) -> None:
    """Makes health follow the checks of a role, and logs each change."""
    checks = part.checks
    known: Mapping[str, str] | None = None
    failures = dict.fromkeys(checks, _FAILURES)
    while True:
        reasons = await asyncio.gather(*(_reason(check) for check in checks.values()))
        failures = {name: failures[name] + 1 if reason else 0 for name, reason in zip(checks, reasons, strict=True)}
        failing = {name: reason for name, reason in zip(checks, reasons, strict=True) if failures[name] >= _FAILURES}
        await server.set_serving(part.role, serving=not failing)
        if known is None or known.keys() != failing.keys():
            (_log.warning if failing else _log.info)("health", serving=not failing, failing=failing)
            known = failing
        await asyncio.sleep(_CHECK_SECONDS if any(reasons) else _PASSING_SECONDS)


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
