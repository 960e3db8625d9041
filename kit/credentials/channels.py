"""Connections over gRPC within the mesh: with TLS where the settings name certificates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio

from kit.credentials.certificates import certificates_in
from kit.settings import MeshSettings


def open_channel(settings: MeshSettings, service: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
    """Opens a channel to a service, which the caller closes.

    Raises:
        WrongSetting: the certificates are of no use.
    """
    address = settings.address(service)
    if settings.certificates is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, certificates_in(settings.certificates).of_channel(), options=options)


def listen_on(server: grpc.aio.Server, address: str, certificates: Path | None = None) -> int:
    """Makes a server listen on an address; returns the port.

    Args:
        server: has not started yet.
        address: host and port.
        certificates: folder with the certificate of the process and the authority of its callers' ones; None is without TLS.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
        WrongSetting: the certificates are of no use.
    """
    try:
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, certificates_in(certificates).of_server())
    except RuntimeError:
        message = f"can't listen on {address}: the port is taken, or the address is not of this machine"
        raise OSError(message) from None
