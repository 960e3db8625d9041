"""HTTP calls on loopback with the standard library: a client with certificates and pools would cost the supervisor more than its work."""

from __future__ import annotations

import asyncio
import socket
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit


async def request(method: str, url: str, *, seconds: float, unix_socket: str | None = None) -> tuple[int, str]:
    """Returns status and body of the answer, over a Unix socket if one is given.

    Raises:
        OSError: there is no answer, or it is not HTTP.
    """
    return await asyncio.to_thread(_request, method, url, seconds, unix_socket)


def _request(method: str, url: str, seconds: float, unix_socket: str | None) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=seconds)
    try:
        if unix_socket is not None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(seconds)
            connection.sock.connect(unix_socket)
        connection.request(method, url.removeprefix(f"http://{parts.netloc}"))
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
