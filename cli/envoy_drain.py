"""Takes a gateway out of service without cutting off a call."""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial

from cli.plain_http import request

PATIENCE_SECONDS = 5.0
"""How long running calls may take; streams never end by themselves."""
POLL_SECONDS = 0.05
"""Interval between two checks of the running calls."""
_ACTIVE = re.compile(r"^http\.(?!admin\.|operations\.)[^:]*downstream_rq_active: (\d+)$", re.MULTILINE)


async def drain(admin: str) -> None:
    """Closes the listeners of the Envoy whose admin interface is the Unix socket `admin`, and waits until its running calls are done."""
    ask = partial(request, seconds=PATIENCE_SECONDS, unix_socket=admin)
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        # From here on each answer closes its connection, and new connections are refused.
        await ask("POST", "http://gateway/healthcheck/fail")
        await ask("POST", "http://gateway/drain_listeners")
        while time.monotonic() < deadline:
            _, stats = await ask("GET", "http://gateway/stats?filter=downstream_rq_active")
            if not any(int(count) for count in _ACTIVE.findall(stats)):
                return
            await asyncio.sleep(POLL_SECONDS)
    except OSError:
        # It is down already, or unreachable: there is nothing to wait for.
        return
