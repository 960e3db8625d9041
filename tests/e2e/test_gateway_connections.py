"""A client that holds many connections does not keep others out."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.gateway_probe.processes import EVENT, Gateway, eventually, headers, running_gateway, running_probe
from tests.servers import free_port

MOST = 1500
OPENED = 2000


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    """A gateway, and its monitoring port."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = tmp_path_factory.mktemp("gateway")
    bounds = {"PMP_GATEWAY_MAX_CONNECTIONS": str(MOST), "PMP_METRICS_PORT": str(watch := free_port())}
    with running_probe(folder) as port, running_gateway(folder, port, **bounds) as gateway:
        yield gateway, f"http://127.0.0.1:{watch}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answered(gateway: Gateway) -> bool:
    """Whether the probe and an event from another address get through."""
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
    try:
        with httpx.Client(base_url=f"http://{gateway.address}", transport=elsewhere, timeout=5) as client:
            event = client.post("/api/v1/events/track", json=EVENT, headers=headers())
            return event.status_code == client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /nothing HTTP/1.1\r\n",
        b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, *bytes(5))),
    ],
    ids=["nothing", "half a request", "a request", "the preface of HTTP/2"],
)
def test_idle_connections_make_room(watched: tuple[Gateway, str], said: bytes) -> None:
    gateway, watch = watched
    host, port = gateway.address.split(":")
    with ExitStack() as held:
        for _ in range(OPENED):
            connection = held.enter_context(socket.create_connection((host, int(port))))
            connection.setblocking(False)
            try:
                connection.send(said)
            except OSError:
                continue  # refused: the gateway is full
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(f"{watch}{path}").status_code == 200
        eventually(lambda: answered(gateway), 60)
