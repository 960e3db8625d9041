"""Real processes for the gateway's tests: the probe service and `python -m gateway`, on free ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import jwt

from tests import logs
from tests.servers import free_port

MESH_TOKEN = "mesh-token-100%-of-the-tests"
API_KEYS = ("server-key-that-is-old", "server-key-that-is-new")
BROWSER_KEY = "browser-key-of-the-tests"
JWT_SECRETS = ("the-old-secret-of-the-tests-0123456789", "the-new-secret-of-the-tests-0123456789")
SECRETS = {
    "PMP_MESH_TOKEN": MESH_TOKEN,
    "PMP_API_KEYS": json.dumps(API_KEYS),
    "PMP_BROWSER_API_KEYS": json.dumps([BROWSER_KEY]),
    "PMP_JWT_SECRETS": json.dumps(JWT_SECRETS),
}
EVENT = {"timestamp": "2026-11-22T10:00:00Z", "event_type": "page_view"}

Answer = TypeVar("Answer")


def eventually(ask: Callable[[], Answer | None], seconds: float = 15.0) -> Answer:
    """The first answer that is true.

    Raises:
        AssertionError: there was none in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def token(scope: object = "track", user: object = "42", *, secret: str = JWT_SECRETS[0], **claims: object) -> str:
    """A token of the shop; claims given as None are left out."""
    now = int(time.time())
    payload = {"iss": "pmp-wordpress-integration", "scope": scope, "id": user, "iat": now, "exp": now + 3600, **claims}
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, secret, algorithm="HS256")


def headers(scope: str = "track", user: object = "42", key: str = API_KEYS[0]) -> dict[str, str]:
    """A caller's credentials."""
    return {"x-api-key": key, "authorization": f"Bearer {token(scope, user)}"}


@dataclass(frozen=True)
class Gateway:
    """A running gateway."""

    address: str
    """Its address, `host:port`."""
    admin: str
    """Unix socket of Envoy's admin interface."""
    pid: int
    """The process."""
    log: Path
    """Its log."""
    client: httpx.Client
    """Calls it by path."""

    def track(self, event: Mapping[str, object] = EVENT, **caller: str) -> httpx.Response:
        """Sends one event over REST as `headers(**caller)`."""
        return self.client.post("/api/v1/events/track", json=event, headers=headers(**caller))


def _is_open(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _process(arguments: list[str], environment: Mapping[str, str], log: Path) -> Generator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            with logs.followed(log):
                yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def running_probe(folder: Path, port: int | None = None, certificates: Path | None = None) -> Generator[int]:
    """Runs the probe service on this port, or on a free one, with TLS if it has certificates; yields the port."""
    port = port or free_port()
    tls = [str(certificates)] if certificates else []
    with _process(["tests.gateway_probe.server", str(port), *tls], {}, folder / f"probe-{port}.log"):
        eventually(lambda: _is_open(port))
        yield port


@contextmanager
def running_gateway(folder: Path, service_port: int, **environment: str) -> Generator[Gateway]:
    """A gateway in front of the service on this port; settings can be overridden by their variables.

    With `PMP_SECRETS_DIR` its secrets are those of that folder.
    """
    port, admin = free_port(), str(folder / f"gateway-{free_port()}.sock")
    settings = {
        "PMP_GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "PMP_GATEWAY_ADMIN": admin,
        **SECRETS,
        "PMP_SITE_NAME": "shop-of-the-tests",
        "PMP_CORS_ORIGINS": '["https://shop.example"]',
        "PMP_SERVICE_ADDRESS": f"127.0.0.1:{service_port}",
        "PMP_STREAM_ADDRESS": f"127.0.0.1:{service_port}",
        "PMP_RATE_USER_PER_HOUR": "100000",
        **environment,
    }
    if "PMP_SECRETS_DIR" in environment:
        settings = {name: value for name, value in settings.items() if name not in SECRETS}
    log = folder / f"gateway-{port}.log"
    with _process(["gateway"], settings, log) as process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        eventually(lambda: process.poll() is not None or _is_open(port))
        assert process.poll() is None, log.read_text()
        yield Gateway(f"127.0.0.1:{port}", admin, process.pid, log, client)
