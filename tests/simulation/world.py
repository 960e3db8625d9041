"""One run of the mesh: what goes wrong in it, and how it comes to rest.

One seed makes one run. `World.run` plays it: first everything that can go wrong does, then nothing more does and all work is
finished; `World.truth.violations` says which promises were broken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from kit.log import books
from kit.log.redis_log import RedisLog
from kit.log.streams import TopicPartition
from kit.people.hashing import KeyedHasher
from kit.people.keys.store import Keys
from kit.people.keys.wrapping import EnvironmentKeys
from services.ingestion.losses import Losses
from services.ingestion.messages import RAW_TOPIC
from tests.simulation.inline_sqlite import broken_disk
from tests.simulation.judgement import Judge
from tests.simulation.memory_log import MemoryLog, Stream
from tests.simulation.mesh import Host, Mesh, Rules
from tests.simulation.scheduler import Actor, Killed
from tests.simulation.shop import Shop

_LONGEST: Final = 900
_RESTING: Final = frozenset({"idle", "waiting"})
_ROUNDS: Final = 200


@dataclass(frozen=True, slots=True)
class Faults:
    """What may go wrong in a run. Figures are chances in a thousand, at each step of the scheduler."""

    kill: int = 12
    sleep: int = 15
    break_call: int = 12
    refuse: int = 4
    restart: int = 2
    back_up: int = 10
    restore_log: int = 0
    restore_database: int = 0
    restore_projection: int = 3


class World(Mesh):
    """One run."""

    def __init__(self, shop: Shop, seed: int, faults: Faults, rules: Rules | None = None) -> None:
        keys = Keys(shop.ingestion.database, KeyedHasher(bytes(32)), EnvironmentKeys(bytes(32)))  # no event has an address
        super().__init__(shop, seed, rules or Rules(), keys)
        self.faults = faults
        self._log_backups: list[dict[TopicPartition, Stream]] = []
        self._disk_backups: list[bytes] = []
        self._reader_backups: list[bytes] = []

    async def run(self) -> None:
        """Plays the run and looks at what came of it."""
        await self.shop.ingestion.use(self.disk)
        await self.shop.reader.use(self.reader_disk)
        names = [("service", self._service, 2), ("worker", self._worker, 2), ("relay", self._relay, 2), ("reader", self._reader, 2)]
        for name, begin, count in names:
            self._hosts.extend(Host(f"{name}{number}", begin) for number in range(count))
        self._hosts.append(Host("books", self._bookkeeper))
        try:
            for host in self._hosts:
                await self._begin(host)
            for number in range(self.random.choice((1, 2, 2, 3))):
                self.clients += 1
                await self.scheduler.start(f"client{number}", partial(self._client, number))
            await self._wreck()
            await self._drain()
        finally:
            await self.scheduler.end()
        losses = Losses(self.sessions, cast("RedisLog", MemoryLog(self.redis)), RAW_TOPIC, self.partitions)
        for _ in range(3):
            await losses.look(await books.accounts(self.sessions, MemoryLog(self.redis), RAW_TOPIC, self.partitions))
        await Judge(self.truth, self.sessions).judge()

    async def _begin(self, host: Host) -> None:
        host.actor = await self.scheduler.start(host.name, partial(host.begin, host))

    async def _wreck(self) -> None:
        scheduler, random = self.scheduler, self.random
        actor: Actor | None = None
        while self.clients and scheduler.steps < _LONGEST:
            scheduler.steps += 1
            self.clock += random.choice((0, 0, 1, 3, 400))
            await self._befall()
            ready = scheduler.ready()
            if not ready:
                continue
            if actor not in ready or random.random() < 0.5:
                busy = [other for other in ready if other.point not in _RESTING]
                actor = random.choice(busy if busy and random.random() < 0.75 else ready)
            luck = random.randrange(1000)
            process = not actor.name.startswith("client")
            if process and luck < self.faults.kill:
                await scheduler.move(actor, Killed())
            elif luck < self.faults.kill + self.faults.sleep:
                actor.asleep_until = scheduler.steps + random.randrange(5, 80)
                scheduler.note(f"{actor.name} sleeps at: {actor.point}")
            elif process and luck < self.faults.kill + self.faults.sleep + self.faults.break_call and actor.point != "idle":
                await scheduler.move(
                    actor, broken_disk() if actor.point.startswith("sql") else ConnectionResetError("the connection broke")
                )
            else:
                await scheduler.move(actor)
            await self._revive()

    async def _revive(self) -> None:
        for host in self._hosts:
            if not host.alive and host.begins_at <= self.scheduler.steps:
                if host.begins_at == 0 and self.chaos:
                    host.begins_at = self.scheduler.steps + self.random.randrange(1, 60)
                else:
                    host.begins_at = 0
                    await self._begin(host)

    async def _befall(self) -> None:
        """What happens to the servers."""
        random, faults = self.random, self.faults
        luck = random.randrange(1000)
        if luck < faults.refuse:
            self.redis.read_only = random.random() < 0.5
            self.redis.max_bytes = random.choice((None, 0, self.redis.used_bytes()))
            self.scheduler.note(f"redis: read_only={self.redis.read_only} max_bytes={self.redis.max_bytes}")
        elif luck < faults.refuse + 20:
            self.redis.read_only, self.redis.max_bytes = False, None
        if random.randrange(1000) < faults.restart:
            self.redis.life += 1
            self.scheduler.note("redis: started again")
        if random.randrange(1000) < faults.back_up:
            self._log_backups.append(self.redis.snapshot())
            self._disk_backups.append(self.disk.snapshot())
            self._reader_backups.append(self.reader_disk.snapshot())
            self.scheduler.note("backups made")
        if random.randrange(1000) < faults.restore_log:
            await self._restore_log()
        if random.randrange(1000) < faults.restore_database and self._disk_backups:
            await self._restore_database()
        if random.randrange(1000) < faults.restore_projection and self._reader_backups:
            self.reader_disk.restore(random.choice(self._reader_backups))
            await self.shop.reader.use(self.reader_disk)
            self.scheduler.note("reader's database restored")

    async def _restore_log(self) -> None:
        back = self.random.randrange(len(self._log_backups) + 1)
        backup: dict[TopicPartition, Stream] = self._log_backups[back - 1] if back else {}
        # A backup of what a restore threw away is no backup any more.
        self._log_backups = self._log_backups[:back]
        lost = self.truth.log_restored(backup)
        if not back and self.lag == 0 and self.random.random() < 0.5:
            self.clock += 1
            self.redis.flush()
            self.scheduler.note(f"redis: flushed, lost {lost} entries")
            return
        self.redis.restore(backup)
        held = [host.actor for host in self._hosts if host.actor and host.actor.gate and host.name.startswith("worker")]
        if self.random.random() < 0.5:
            for actor in held:
                await self.scheduler.move(actor, Killed())
        # It may stand on another machine by now.
        self.lag = self.random.choice((0, 5, 2_000, 50_000))
        self.scheduler.note(f"redis: restored to {'backup ' + str(back) if back else 'nothing'}, lost {lost} entries")

    async def _restore_database(self) -> None:
        before = self.random.randrange(len(self._disk_backups))
        self.disk.restore(self._disk_backups[before])
        self._disk_backups = self._disk_backups[: before + 1]
        await self.shop.ingestion.use(self.disk)
        lost = self.truth.database_restored()
        self.scheduler.note(f"database restored to backup {before}, {lost} entries can't be read again")

    async def _drain(self) -> None:
        scheduler = self.scheduler
        self.chaos = False
        self.redis.read_only, self.redis.max_bytes = False, None
        scheduler.note("nothing more goes wrong")
        for actor in scheduler.actors:
            actor.asleep_until = 0
        for _ in range(_ROUNDS):
            await self._revive()
            for actor in self.random.sample(scheduler.actors, len(scheduler.actors)):
                await self._round(actor)
            if not self.clients and self.truth.drained():
                return
        self.truth.violations.append("the mesh did not come to rest: " + ", ".join(f"{a.name} at {a.point}" for a in scheduler.actors))

    async def _round(self, actor: Actor) -> None:
        """Lets an actor finish what it does."""
        while actor.alive:
            self.clock += self.random.choice((0, 1, 5))
            self.scheduler.steps += 1
            await self.scheduler.move(actor)
            if actor.point in _RESTING:
                return
