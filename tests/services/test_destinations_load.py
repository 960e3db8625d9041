"""Six destinations under load, of which one fails, one hangs and one asks to wait: the others are served in time, and nothing is lost.

`PMP_DELIVERY_EVENTS` and `PMP_DELIVERY_RATE` (per second) make it longer.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from time import time

import psutil
import pytest

from kit.service.resources import Resources
from kit.settings import Settings
from tests.background import eventually
from tests.services.test_destinations import Deliverer, deliverer, page_view, table
from tests.webhooks import Reply, systems

EVENTS = int(os.environ.get("PMP_DELIVERY_EVENTS", "100"))
RATE = int(os.environ.get("PMP_DELIVERY_RATE", "50"))
WELL, ILL = ("well-1", "well-2", "well-3"), ("busy", "fails", "hangs")
AT_ONCE = 25


@pytest.mark.timeout(180 + EVENTS / 20)
async def test_what_fails_hangs_or_asks_to_wait_delays_no_other(
    settings: Settings, resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "whsec_c2hhcmVkIGJ5IHRoZSBtZXNoIGFuZCBhbm90aGVyIHN5c3RlbQ==")
    async with systems() as shop:
        shop.replies |= {"/fails": Reply(500), "/hangs": Reply(seconds=3.0), "/busy": Reply(429, {"retry-after": "30"})}
        tables = [table(shop.port, name, types=["event.page_view"]) for name in (*WELL, *ILL)]
        async with deliverer(settings, resources, tmp_path / "destinations.toml", *tables) as mesh, mesh.sending():
            before, happened = psutil.Process().memory_info().rss, await _events(mesh)
            for name in WELL:
                await eventually(lambda name=name: _delivered(mesh, name))
            grown = psutil.Process().memory_info().rss - before
            late = sorted(each.at - happened[each.content["data"]["event"]["id"]] for name in WELL for each in shop.received[f"/{name}"])
            # Events, deliveries and the systems that take them share one process, which may not reach the rate.
            rate = EVENTS / (max(happened.values()) - min(happened.values()))
            p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
            figures = f"{EVENTS} events, {rate:.0f}/s of {RATE}/s: p50 {p50:.2f} s, p99 {p99:.2f} s"
            logging.getLogger(__name__).warning("%s, %d MiB more", figures, grown >> 20)
            assert p99 <= 5
            assert len(shop.received["/busy"]) <= 32
            shop.replies.clear()
            async with asyncio.timeout(60 + EVENTS / 50):
                while not all([await _delivered(mesh, name) for name in ILL]):
                    await mesh.make_due()
                    await asyncio.sleep(2.0)
        for name in (*WELL, *ILL):
            assert {each.content["data"]["event"]["id"] for each in shop.received[f"/{name}"]} == happened.keys()
            assert len(shop.ids(f"/{name}")) == EVENTS, "repetitions have the same id"
        assert all(count == 1 for name in WELL for count in shop.ids(f"/{name}").values())


async def _events(mesh: Deliverer) -> dict[str, float]:
    """Lets events happen at a rate; returns when each did."""
    happened: dict[str, float] = {}
    began = time()
    for start in range(0, EVENTS, AT_ONCE):
        some = [f"e{number}" for number in range(start, min(start + AT_ONCE, EVENTS))]
        happened |= dict.fromkeys(some, time())
        await mesh.topics.happen(*(page_view(each, session=each) for each in some))
        await asyncio.sleep(max(0.0, began + (start + AT_ONCE) / RATE - time()))
    return happened


async def _delivered(mesh: Deliverer, name: str) -> bool:
    return await mesh.states(name) == {"delivered": EVENTS}
