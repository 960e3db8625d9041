"""Every event that was answered takes effect once, whatever happens to processes, log and databases, and in which order.

A failure names its seed and prints the run: `PMP_SIM_SEED=17 pytest tests/simulation` repeats one in every class, and
`PMP_SIM_SEEDS=20000` makes more of them than the 300 of `make test`, or the 2,000 of `PMP_EVERY_VARIANT=1`.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.log import offsets
from kit.log.intake.account import Account
from kit.log.streams import Offset
from kit.log.tables import offsets as table
from kit.telemetry.log_lines import log_to_stdout
from tests.simulation.memory_log import MemoryLog
from tests.simulation.mesh import Rules
from tests.simulation.shop import Shop, open_shop
from tests.simulation.world import Faults, World
from tests.variants import EVERY_VARIANT

_SEEDS: Final = int(os.environ.get("PMP_SIM_SEEDS") or (2000 if EVERY_VARIANT else 300))
_SEED: Final = os.environ.get("PMP_SIM_SEED")
_CHUNK: Final = 25

PROCESSES: Final = Faults()
"""Processes are killed and suspended, calls break, and the log refuses and starts again: nothing may be lost."""
LOG: Final = replace(PROCESSES, restore_log=8)
"""Redis comes back with an earlier state, or empty: what is lost is known exactly."""
DATABASE: Final = replace(PROCESSES, restore_database=8)
"""The publisher's database comes back with an earlier state: what the log still holds is stored again, and nothing false is published."""
BOTH: Final = replace(PROCESSES, restore_log=5, restore_database=5)


def _seeds(share: float) -> Sequence[range]:
    if _SEED:
        return [range(int(_SEED), int(_SEED) + 1)]
    count = max(1, int(_SEEDS * share))
    return [range(first, min(first + _CHUNK, count)) for first in range(0, count, _CHUNK)]


def _name(seeds: range) -> str:
    return f"{seeds[0]}-{seeds[-1]}"


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    # Refused appends and waiting partitions are what every run is made of.
    log_to_stdout("critical")
    async with open_shop(tmp_path_factory.mktemp("simulation")) as shop:
        # What the imports left is never garbage, and what a run leaves can wait.
        gc.freeze()
        thresholds = gc.get_threshold()
        gc.set_threshold(50_000, 20, 20)
        yield shop
        gc.set_threshold(*thresholds)
        gc.unfreeze()
    log_to_stdout("warning")


async def broken_promises(shop: Shop, seed: int, faults: Faults, rules: Rules | None = None) -> str:
    """The story of a run that broke a promise; empty when all were kept."""
    world = World(shop, seed, faults, rules or Rules())
    try:
        await world.run()
    finally:
        world.disk.close()
        world.reader_disk.close()
        shutil.rmtree(world.folder)
    if not world.truth.violations:
        return ""
    return "\n".join([world.scheduler.story(), "", f"seed {seed} of {faults}", *world.truth.violations])


async def keep_all(shop: Shop, seeds: range, faults: Faults) -> None:
    for seed in seeds:
        story = await broken_promises(shop, seed, faults)
        if story:
            pytest.fail(story, pytrace=False)


class TestProcesses:
    @pytest.mark.parametrize("seeds", _seeds(0.5), ids=_name)
    async def test_no_crash_pause_or_broken_call_loses_or_repeats_an_event(self, shop: Shop, seeds: range) -> None:
        await keep_all(shop, seeds, PROCESSES)


class TestServers:
    @pytest.mark.parametrize("seeds", _seeds(0.2), ids=_name)
    async def test_a_restored_log_loses_what_it_lost_and_nothing_else(self, shop: Shop, seeds: range) -> None:
        await keep_all(shop, seeds, LOG)

    @pytest.mark.parametrize("seeds", _seeds(0.2), ids=_name)
    async def test_a_restored_database_reads_again_what_the_log_holds(self, shop: Shop, seeds: range) -> None:
        await keep_all(shop, seeds, DATABASE)

    @pytest.mark.parametrize("seeds", _seeds(0.1), ids=_name)
    async def test_both_restored_lose_only_what_neither_holds(self, shop: Shop, seeds: range) -> None:
        await keep_all(shop, seeds, BOTH)


class InHandLog(MemoryLog):
    """What a relay does that publishes what it has in hand, whatever the head is by now, and takes a refusal for done."""

    @override
    async def publish(self, topic: str, partition: int, *, head: Offset, packs: Sequence[tuple[int, bytes, int]]) -> bool:
        for _ in range(20):
            await self._pause("publish, in a while, what is in hand")
        stream = self.server.stream(topic, partition)
        for offset, pack, messages in packs:
            if offset > stream.head.ms:
                stream.add(Offset(offset, 0), pack, messages, 0)
        return True


async def _advance_whoever_came_first(session: AsyncSession, topic: str, steps: Mapping[int, tuple[Offset, Offset]]) -> set[int]:
    for partition, (_, new) in steps.items():
        own = (table.c.topic == topic, table.c.partition == partition)
        await session.execute(update(table).where(*own).values(position=str(new)))
    return set(steps)


async def _write_nothing(*_arguments: object) -> None:
    return


@pytest.mark.skipif(_SEED is not None, reason="one seed proves nothing here")
class TestTheSimulationItself:
    """It finds a mesh that breaks its rules."""

    async def _found(self, shop: Shop, faults: Faults, rules: Rules, *, within: int) -> bool:
        for seed in range(within):
            if await broken_promises(shop, seed, faults, rules):
                return True
        return False

    async def test_finds_a_relay_that_publishes_what_it_has_in_hand(self, shop: Shop) -> None:
        assert await self._found(shop, LOG, Rules(relay_log=InHandLog), within=300)

    async def test_finds_a_consumer_that_does_not_check_its_offset(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(offsets, "advance", _advance_whoever_came_first)
        assert await self._found(shop, PROCESSES, Rules(), within=50)

    async def test_finds_an_appender_that_does_not_reconcile_a_restored_log(self, shop: Shop) -> None:
        assert await self._found(shop, LOG, Rules(reconciles=False), within=100)

    async def test_finds_a_process_that_does_not_write_its_account_down(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Account, "_write", _write_nothing)
        assert await self._found(shop, LOG, Rules(), within=100)

    async def test_is_the_same_run_for_the_same_seed(self, shop: Shop) -> None:
        traces: list[list[str]] = []
        for _ in range(2):
            world = World(shop, 4, BOTH)
            await world.run()
            world.disk.close()
            world.reader_disk.close()
            shutil.rmtree(world.folder)
            traces.append(world.scheduler.trace)
        assert traces[0] == traces[1]
