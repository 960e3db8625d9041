"""Builds the project's images, and stand-ins for the images of a registry that they and the compose files name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.smoke.engine import CHECKOUT, FOLDER, Engine, running, say

IMAGES: Final = ("mesh", "gateway", "server")
BASE: Final = "debian:bookworm-slim"
STAND_INS: Final = {
    "python:3.11-slim": "python",
    "mysql:8.4": "mysql",
    "redis:7.4": "redis",
    "prom/prometheus:v3.1.0": "prometheus",
}
"""The target in this folder's Dockerfile of each."""
_CA: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_SECRETS: Final = Path("/tmp")  # noqa: S108  (a file system of this process alone)
"""Where the engine's file system has the secrets of the build."""


def main() -> None:
    """Builds everything that is not yet built."""
    with running() as engine:
        if not engine.docker("images", "--quiet", BASE):
            with subprocess.Popen(["tar", "--directory", FOLDER / "debian", "--create", "."], stdout=subprocess.PIPE) as packed:
                assert packed.stdout is not None
                engine.docker("import", "-", BASE, stdin=packed.stdout.fileno())
        for image, target in STAND_INS.items():
            _build(engine, image, target, CHECKOUT / "tests" / "smoke" / "Dockerfile", CHECKOUT / "tests" / "smoke")
            say(f"{image}: a stand-in, from Debian 12")
        for image in IMAGES:
            _build(engine, image, image, CHECKOUT / "deploy" / "Dockerfile", CHECKOUT, *_secrets(engine))
            size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", image))
            say(f"{image}: built from deploy/Dockerfile, {size / 1e6:.0f} MB")
        engine.docker("image", "prune", "--force")


def _build(engine: Engine, image: str, target: str, file: Path, context: Path, *more: str) -> None:
    engine.docker("build", "--network", "host", "--progress", "plain", *more, "--file", file, "--target", target, "--tag", image, context)


def _secrets(engine: Engine) -> list[str]:
    """How this machine reaches PyPI and npm, as options of a build."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True).stdout
    settings = dict(line.split("=", 1) for line in listed.splitlines())
    pip = {name.rpartition(".")[2]: value.strip("'\"") for name, value in settings.items()} | {"cert": "/run/secrets/ca"}
    pip.pop("find-links", None)  # a folder of this machine
    npmrc = Path.home() / ".npmrc"
    contents = {
        "ca": _CA.read_text(),
        "pip": "\n".join(["[global]", *(f"{name} = {value}" for name, value in pip.items())]),
        "npm": "\n".join([npmrc.read_text() if npmrc.exists() else "", "cafile=/run/secrets/ca", ""]),
    }
    for name, content in contents.items():
        engine.path(_SECRETS / name).write_text(content)
    return [word for name in contents for word in ("--secret", f"id={name},src={_SECRETS / name}")]


if __name__ == "__main__":
    main()
