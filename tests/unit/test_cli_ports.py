from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from cli.errors import CommandFailed
from cli.ports import LOOPBACK, RANGE, Ports


@pytest.fixture
def ports() -> Iterator[Ports]:
    with Ports() as ports:
        yield ports


def listener(port: int = 0) -> socket.socket:
    """As Envoy's."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((LOOPBACK, port))
    made.listen()
    return made


def test_ports_are_different_and_not_given_to_outgoing_connections(ports: Ports) -> None:
    taken = ports.take(20)
    assert len(set(taken)) == 20
    assert set(taken) <= set(RANGE)


def test_two_meshes_that_start_at_once_never_choose_the_same_port(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.ports.RANGE", range(RANGE.stop - 60, RANGE.stop))
    taken = ports.take(20)
    with Ports() as others:
        assert not set(taken) & set(others.take(20))


def test_a_held_port_is_for_its_server_again_and_again(ports: Ports) -> None:
    [port] = ports.take(1)
    for _ in range(2):
        with listener(port), socket.create_connection((LOOPBACK, port)):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, port))


def test_a_port_is_free_again_when_the_mesh_has_ended() -> None:
    with Ports() as ports:
        [port] = ports.take(1)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((LOOPBACK, port))
    with socket.socket() as other:
        other.bind((LOOPBACK, port))


def test_a_port_with_a_listener_is_not_held(ports: Ports) -> None:
    with listener() as server:
        port = server.getsockname()[1]
        assert not ports.hold(LOOPBACK, port)
    assert ports.hold(LOOPBACK, port)


def test_an_address_of_another_machine_is_reported(ports: Ports) -> None:
    with pytest.raises(CommandFailed, match=r"can't listen on 192\.0\.2\.1"):
        ports.hold("192.0.2.1", 8080)
