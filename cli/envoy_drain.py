"""Takes a gateway out of service without cutting off a call."""

from __future__ import annotations

import asyncio
import re
import time

from cli.plain_http import request

PATIENCE_SECONDS = 5.0
"""How long running calls may go on; live feeds never end by themselves."""
POLL_SECONDS = 0.05
"""Pause between two looks at the running calls."""
_ACTIVE = re.compile(r"^http\.(?!admin\.)[^:]*downstream_rq_active: (\d+)$", re.MULTILINE)


async def drain(admin: str) -> None:
    """Closes the listeners of the Envoy whose admin interface is at `admin`, and waits until its running calls are done."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        # From here on each answer closes its connection, and no new one is taken.
        await request("POST", f"{admin}/healthcheck/fail", seconds=PATIENCE_SECONDS)
        await request("POST", f"{admin}/drain_listeners", seconds=PATIENCE_SECONDS)
        while time.monotonic() < deadline:
            _, stats = await request("GET", f"{admin}/stats?filter=downstream_rq_active", seconds=PATIENCE_SECONDS)
            if not any(int(count) for count in _ACTIVE.findall(stats)):
                return
            await asyncio.sleep(POLL_SECONDS)
    except OSError:
        # It is down already, or can't be asked: nothing to wait for.
        return
