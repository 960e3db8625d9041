"""The plan of a local mesh: its processes, their ports and their environments."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cli.disk import Disk
from cli.embedded_redis import executable, max_memory, write_configuration
from cli.envoy_drain import drain
from cli.errors import CommandFailed
from cli.folder import DataFolder
from cli.forked import is_forking
from cli.layout import FORK_SERVER, INTAKE, Processes, roles_by_process, service_names, worker_names
from cli.local_secrets import Secrets
from cli.ports import LOOPBACK, Ports
from cli.processes import Command
from cli.readiness import embedded_redis_ready, gateway_ready, service_ready
from cli.sockets import socket_path
from kit.credentials.signing import SITE_SECRET
from services.ingestion.settings import IngestionSettings

_NICENESS = 5
"""Of the processes that follow the intake: where processors are short, no answer waits for what follows from others."""
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Setting of a collector of all telemetry, the gateway's spans included."""
SPANS_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
"""Setting of a collector of the services' spans alone."""
REDIS_LONGEST_PAUSE = 5.0
"""Seconds: without Redis intake stops, and a start that finds the disk still full costs little."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `pmp up`."""

    host: str
    """Address the gateway listens on."""
    port: int
    """Port of the gateway."""
    database_url: str
    """SQLAlchemy URL with `{service}` for the database's name."""
    redis_url: str | None
    """URL of an existing Redis; None starts the embedded one."""
    processes: Processes
    """How roles are distributed over processes."""
    traces: bool = False
    """Whether the spans of all processes are kept in the data folder."""

    @property
    def url(self) -> str:
        """Address of the gateway for clients on this machine."""
        return f"http://{_reachable(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The processes of a mesh."""

    url: str
    """Address of the gateway for clients on this machine."""
    redis_url: str
    """URL of the Redis that holds the log, credentials included."""
    log_partitions: int
    """Partitions of each topic."""
    service_addresses: dict[str, str]
    """Host and port of each service; services that share a process have the same."""
    environment: dict[str, str]
    """Environment of services, workers and migrations, without their ports."""
    redis: Command | None
    """The embedded Redis; None with an existing Redis."""
    disk: Disk | None
    """The disk of the embedded Redis."""
    traces: Command | None
    """Keeps spans, if they are kept."""
    fork_server: Command
    """Forks the processes of services and workers."""
    services: tuple[Command, ...]
    """The processes of services and workers."""
    gateway: Command
    """The gateway."""

    @property
    def sockets(self) -> tuple[str, ...]:
        """Paths of the processes' Unix sockets."""
        return self.gateway.environment["PMP_GATEWAY_ADMIN"], self.fork_server.address


def make_plan(options: Options, folder: DataFolder, secrets: Secrets, ports: Ports, environ: Mapping[str, str] = os.environ) -> Plan:
    """Allocates ports and plans every process. Settings in `environ` are passed on; the mesh's own take precedence.

    Raises:
        CommandFailed: no ports are free, or a setting is invalid.
    """
    processes = roles_by_process(options.processes)
    redis_port, gateway_metrics_port, traces_port, *own = ports.take(3 + 3 * len(processes))
    metrics_ports = own[: len(processes)]
    listens, streams = (
        {process: f"{LOOPBACK}:{port}" for process, port in zip(processes, some, strict=True)}
        for some in (own[len(processes) : -len(processes)], own[-len(processes) :])
    )
    addresses, stream_addresses = (_by_service(processes, each) for each in (listens, streams))
    redis_url = options.redis_url or f"redis://:{secrets.redis_password}@{LOOPBACK}:{redis_port}"
    # Modules are imported from the installed package, never from the working directory of `pmp`.
    base = {
        # Its processes talk over the loopback interface.
        **{name: value for name, value in environ.items() if name != "PMP_CERTIFICATES"},
        "PYTHONSAFEPATH": "1",
        "PMP_MESH_TOKEN": secrets.mesh_token,
        "PMP_SERVICE_ADDRESSES": json.dumps(addresses),
        "PMP_STREAM_ADDRESSES": json.dumps(stream_addresses),
    }
    traces = _traces(folder, traces_port, environ) if options.traces else None
    of_gateway = base if traces is None else base | {ENDPOINT: _http(traces.address)}
    environment = {
        **({} if traces is None else _exporting(traces.address)),
        **base,
        "PMP_VAULT_KEY": secrets.vault_key,
        "PMP_KEY_ENCRYPTION_KEYS": ",".join(secrets.key_encryption_keys),
        SITE_SECRET: environ.get(SITE_SECRET) or secrets.site_secret,
        "PMP_DATABASE_URL": options.database_url,
        "PMP_REDIS_URL": redis_url,
    }
    disk = None if options.redis_url else Disk(folder=folder.redis, least_bytes=_whole_number(environ, "log_disk_min_bytes"))
    if disk is not None:
        environment["PMP_LOG_DISK"] = str(disk.folder)
    fork_server = _fork_server(folder, environment)
    commands: list[Command] = []
    for (name, roles), metrics_port in zip(processes.items(), metrics_ports, strict=True):
        address = listens[name]
        own_ports = {"PMP_LISTEN": address, "PMP_STREAM_LISTEN": streams[name], "PMP_METRICS_PORT": str(metrics_port)}
        commands.append(
            Command(
                name=name,
                kind="worker" if name in worker_names() else "service",
                roles=tuple(roles),
                niceness=0 if name == INTAKE else _NICENESS,
                argv=(sys.executable, "-m", "services", *roles),
                fork_server=Path(fork_server.address),
                environment={**environment, **own_ports},
                log=folder.log(name),
                address=address,
                metrics_url=f"http://{LOOPBACK}:{metrics_port}/metrics",
                ready=partial(service_ready, address),
            )
        )
    return Plan(
        url=options.url,
        redis_url=redis_url,
        log_partitions=_whole_number(environ, "log_partitions"),
        service_addresses=addresses,
        environment=environment,
        redis=None if disk is None else _redis(folder, secrets, redis_port, environ, disk=disk),
        disk=disk,
        traces=traces,
        fork_server=fork_server,
        services=tuple(commands),
        gateway=_gateway(options, folder, secrets, gateway_metrics_port, of_gateway),
    )


def _by_service(processes: Mapping[str, Sequence[str]], addresses: Mapping[str, str]) -> dict[str, str]:
    """The addresses of services, given those of processes."""
    by_role = {role: addresses[process] for process, roles in processes.items() for role in roles}
    return {name: by_role[name] for name in service_names()}


def _fork_server(folder: DataFolder, environment: Mapping[str, str]) -> Command:
    path = socket_path(folder, FORK_SERVER)
    return Command(
        name=FORK_SERVER,
        kind="fork-server",
        argv=(sys.executable, "-m", "services.fork_server", path),
        environment=environment,
        log=folder.log(FORK_SERVER),
        address=path,
        ready=partial(is_forking, Path(path)),
    )


def _redis(folder: DataFolder, secrets: Secrets, port: int, environ: Mapping[str, str], *, disk: Disk) -> Command:
    configuration = folder.redis / "redis.conf"
    write_configuration(
        configuration,
        data=folder.redis,
        port=port,
        password=secrets.redis_password,
        memory=max_memory(_whole_number(environ, "log_max_bytes")),
    )
    return Command(
        name="redis",
        kind="redis",
        argv=(str(executable()), str(configuration)),
        environment={"PATH": environ.get("PATH", os.defpath)},
        log=folder.log("redis"),
        address=f"{LOOPBACK}:{port}",
        ready=partial(embedded_redis_ready, port, secrets.redis_password),
        longest_pause=REDIS_LONGEST_PAUSE,
        why=lambda: disk.describe() if disk.is_low() else "",
    )


def _traces(folder: DataFolder, port: int, environ: Mapping[str, str]) -> Command:
    for name in (ENDPOINT, SPANS_ENDPOINT):
        if name in environ:
            raise CommandFailed(f"{name} says where spans go: unset it, or leave --traces out")
    address = f"{LOOPBACK}:{port}"
    return Command(
        name="traces",
        kind="traces",
        niceness=_NICENESS,
        argv=(sys.executable, "-m", "cli.traces.receiver", str(folder.traces), address),
        environment={"PATH": environ.get("PATH", os.defpath), "PYTHONSAFEPATH": "1"},
        log=folder.log("traces"),
        address=address,
        ready=partial(service_ready, address),
    )


def _exporting(address: str) -> Mapping[str, str]:
    """Environment of a service whose spans, and not its metrics, are exported to an address, within a second rather than five."""
    return {SPANS_ENDPOINT: _http(address), "OTEL_BSP_SCHEDULE_DELAY": "1000"}


def _http(address: str) -> str:
    return f"http://{address}"


def _gateway(options: Options, folder: DataFolder, secrets: Secrets, metrics_port: int, base: Mapping[str, str]) -> Command:
    admin = socket_path(folder, "gateway")
    host = f"[{options.host}]" if ":" in options.host else options.host
    return Command(
        name="gateway",
        kind="gateway",
        argv=(sys.executable, "-m", "gateway"),
        environment={
            **base,
            "PMP_GATEWAY_LISTEN": f"{host}:{options.port}",
            "PMP_GATEWAY_ADMIN": admin,
            "PMP_METRICS_HOST": LOOPBACK,
            "PMP_METRICS_PORT": str(metrics_port),
            "PMP_API_KEYS": json.dumps(secrets.api_keys),
            "PMP_BROWSER_API_KEYS": json.dumps(secrets.browser_api_keys),
            "PMP_JWT_SECRETS": json.dumps(secrets.jwt_secrets),
        },
        log=folder.log("gateway"),
        address=f"{host}:{options.port}",
        metrics_url=f"http://{LOOPBACK}:{metrics_port}/metrics",
        ready=partial(gateway_ready, options.url),
        before_end=partial(drain, admin),
    )


def _reachable(host: str) -> str:
    """The address at which clients on this machine reach a listener."""
    if host == "0.0.0.0":  # noqa: S104 (compared, not bound)
        return LOOPBACK
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _whole_number(environ: Mapping[str, str], field: str) -> int:
    """A setting of the services that `pmp up` needs as well."""
    variable = f"PMP_{field.upper()}"
    text = environ.get(variable, str(IngestionSettings.model_fields[field].default))
    if not text.isascii() or not text.isdigit():
        message = f"{variable} must be a whole number"
        raise CommandFailed(message)
    return int(text)
