"""`python -m gateway.drain SECONDS`: takes the gateway of a pod out of service before it is ended, which cuts off what is under way.

For so many seconds each answer asks its client to close the connection, while the pod's address is removed from load balancers and new
connections are still served. Then the calls that are under way get the time that a call may take; streams, which last, do not.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from http.client import HTTPConnection
from typing import Final

from gateway.settings import GatewaySettings

_POLL_SECONDS: Final = 0.1
_CALLS: Final = re.compile(r"^http\.gateway\.downstream_rq_active: (\d+)$", re.MULTILINE)
_STREAMS: Final = re.compile(r"^cluster\.[a-z]+-streams\.upstream_rq_active: (\d+)$", re.MULTILINE)


def drain(admin: str, seconds: float, call_seconds: float) -> None:
    """Returns when the gateway may be ended.

    Args:
        admin: Unix socket of Envoy's admin interface.
        seconds: how long new connections are still made.
        call_seconds: how long calls may take after that.

    Raises:
        OSError: the gateway does not answer.
    """
    _ask(admin, "POST", "/healthcheck/fail")
    time.sleep(seconds)
    deadline = time.monotonic() + call_seconds
    while _calls_under_way(_ask(admin, "GET", "/stats?filter=rq_active")) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _calls_under_way(stats: str) -> int:
    calls, streams = (sum(map(int, pattern.findall(stats))) for pattern in (_CALLS, _STREAMS))
    return calls - streams


def _ask(admin: str, method: str, path: str) -> str:
    connection = HTTPConnection("gateway", timeout=2)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(admin)
        connection.request(method, path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _setting(field: str) -> str:
    """A setting as the gateway reads it: the hook of a pod has its environment, and needs none of its secrets."""
    return os.environ.get(f"PMP_{field.upper()}") or str(GatewaySettings.model_fields[field].default)


if __name__ == "__main__":
    drain(_setting("gateway_admin"), float(sys.argv[1]), float(_setting("gateway_timeout_seconds")))
