"""A mesh in miniature: clients, services, workers, relays and a downstream reader, on one log and two databases.

The kit's appender, consumers, outbox, relay, books and trimmer are the real ones, and so are the handler of ingestion and SQLite; only
the log is in memory. One seed makes one run. `World.run` plays it: first everything that can go wrong does, then nothing
more does and all work is finished; `World.truth.violations` says which promises were broken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import groupby
from random import Random
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from pmp.ingestion.v1 import event_pb2 as pb
from pmp.log.v1 import log_pb2
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions
from kit.errors import LogFull, Unavailable
from kit.log import books, offsets
from kit.log.consume import dead_letters
from kit.log.consume.consumer import Consumer, RawLogConsumer
from kit.log.consume.reader import GapError
from kit.log.intake.account import Sender
from kit.log.intake.appender import Appender
from kit.log.packs import packs
from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay, TopicAheadOfDatabase
from kit.log.redis_log import RedisLog
from kit.log.streams import Entry, Offset, TopicPartition
from kit.log.trim import Trimmer
from kit.outages import is_outage
from kit.people.hashing import KeyedHasher
from kit.people.keys.store import Keys
from kit.people.keys.wrapping import EnvironmentKeys
from services.ingestion.consent import Treatment
from services.ingestion.consumers import StoreEvents
from services.ingestion.enrichment import Enricher
from services.ingestion.losses import Losses
from services.ingestion.messages import RAW_TOPIC, TOPIC, stored_message
from services.ingestion.repository import Events, keep_receipts
from tests.simulation.inline_sqlite import Disk, broken_disk
from tests.simulation.judgement import Judge
from tests.simulation.memory_log import MemoryLog, MemoryRedis, Stream
from tests.simulation.scheduler import Actor, Killed, Scheduler
from tests.simulation.shop import MOST_PARTITIONS, Shop, project
from tests.simulation.truth import Truth, WatchedAccount, WatchedLog

_HOUR: Final = int(time.time() // 3600) - 2
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


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts of the mesh that a test may replace by broken ones."""

    relay: Callable[..., Relay] = Relay
    reconciles: bool = True
    relay_log: type[MemoryLog] = MemoryLog


@dataclass(slots=True)
class Request:
    """What a client sends in one call: (id, content, key) of each event."""

    events: list[tuple[str, str, str]]
    rejected: int
    again: bool


@dataclass(slots=True)
class _Host:
    """One process."""

    name: str
    begin: Callable[[_Host], Any]
    actor: Actor | None = None
    appender: Appender | None = None
    begins_at: int = 0

    @property
    def alive(self) -> bool:
        return self.actor is not None and self.actor.alive


class World:
    """One run."""

    def __init__(self, shop: Shop, seed: int, faults: Faults, rules: Rules = Rules()) -> None:
        self.random = Random(seed)  # noqa: S311 (a run has to be repeatable)
        self.faults = faults
        self.rules = rules
        self.scheduler = Scheduler(self.random)
        self.partitions = self.random.randint(1, MOST_PARTITIONS)
        self.clock = 1_000_000
        """Milliseconds, on which all processes agree; Redis's own clock lags by `lag`."""
        self.lag = 0
        self.redis = MemoryRedis(self._tick)
        folder = shop.folder / f"run-{seed}"
        folder.mkdir()
        self.folder = folder
        self.shop = shop
        self.disk = Disk(folder, "ingestion", shop.ingestion_template, self.scheduler.pause, self._dawdles)
        self.reader_disk = Disk(folder, "reader", shop.reader_template, self.scheduler.pause, self._dawdles)
        self.chaos = True
        self.clients = 0
        self.received = 0
        """How many calls there were: each has a time of its own."""
        self.truth = Truth(self.redis, self.disk, self.reader_disk, self.partitions)
        self._hosts: list[_Host] = []
        self._log_backups: list[dict[TopicPartition, Stream]] = []
        self._disk_backups: list[bytes] = []
        self._reader_backups: list[bytes] = []
        self._keys = Keys(shop.ingestion.database, KeyedHasher(bytes(32)), EnvironmentKeys(bytes(32)))  # no event has an address
        self._enricher = Enricher(frozenset(), ZoneInfo("UTC"), lambda data: data[:8])

    @property
    def sessions(self) -> Sessions:
        """Those of one process: others don't wait for its turns."""
        return Sessions(self.shop.ingestion.database.engine)

    # What goes on

    async def run(self) -> None:
        """Plays the run and looks at what came of it."""
        await self.shop.ingestion.use(self.disk)
        await self.shop.reader.use(self.reader_disk)
        names = [("service", self._service, 2), ("worker", self._worker, 2), ("relay", self._relay, 2), ("reader", self._reader, 2)]
        for name, begin, count in names:
            self._hosts.extend(_Host(f"{name}{number}", begin) for number in range(count))
        self._hosts.append(_Host("books", self._bookkeeper))
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

    def _dawdles(self) -> bool:
        return self.random.random() < 0.2

    def _tick(self) -> int:
        return self.clock - self.lag

    async def _begin(self, host: _Host) -> None:
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

    # Who takes part

    def _log(self, kind: type[MemoryLog] = MemoryLog, **options: Any) -> MemoryLog:
        return kind(self.redis, pause=self.scheduler.pause, **options)

    async def _service(self, host: _Host) -> None:
        floors = partial(offsets.floors, self.sessions, RAW_TOPIC)
        log = WatchedLog(
            self.truth, self.scheduler.pause, floors=floors if self.rules.reconciles else None, clock=lambda: self.clock / 1000
        )
        hour = _HOUR + self.random.randrange(2)
        writer = f"{host.name}-{self.scheduler.steps}"
        account = WatchedAccount(self.truth, writer, self.sessions, RAW_TOPIC, keep_receipts)
        appender = Appender(
            log, RAW_TOPIC, self.partitions, account, max_bytes=1 << 30, used_bytes=log.used_bytes, clock=lambda: hour * 3600.0
        )
        host.appender = appender
        while True:
            await self.scheduler.pause("idle")
            await appender.step()
            if not self.chaos or self.random.random() < 0.1:
                try:
                    await account.write()
                except Exception as error:  # noqa: BLE001
                    self._expect(error)

    async def _client(self, number: int) -> None:
        for request in self._requests(number):
            for event_id, content, _ in request.events:
                self.truth.sent[event_id].add(content)
            answers = 0
            while answers < 1 + request.again:
                await self.scheduler.pause("idle")
                hosts = [host for host in self._hosts if host.alive and host.appender]
                if not hosts:
                    continue
                host = self.random.choice(hosts)
                if await self._call(host, request):
                    answers += 1
                    self.truth.answered |= {event_id for event_id, _, _ in request.events}
                elif self.chaos and self.random.random() < 0.1:
                    break
        self.clients -= 1

    async def _call(self, host: _Host, request: Request) -> bool:
        assert host.appender is not None
        actor = host.actor
        self.received += 1
        received = _HOUR * 3_600_000_000 + self.received
        records = [(key, self._record(event_id, content, received)) for event_id, content, key in request.events]
        ids = [event_id for event_id, _, _ in request.events]
        sender = Sender("shop", "site", received)
        call = asyncio.create_task(host.appender.append(records, rejected=request.rejected, ids=ids, sender=sender))
        while not call.done():
            await self.scheduler.pause("waiting")
            gone = self.chaos and self.random.random() < 0.02
            if gone or not host.alive or host.actor is not actor:
                break
        if not call.done():
            call.cancel()
            await asyncio.wait([call])
        if call.cancelled():
            return False
        error = call.exception()
        if error is not None and not isinstance(error, LogFull | Unavailable):
            self.truth.violations.append(f"a client was refused with {error!r}")
        return error is None

    def _requests(self, number: int) -> list[Request]:
        """Ids are sent again by the same client, by another one, or with other content: ids of all clients overlap a little."""
        requests: list[Request] = []
        for turn in range(self.random.randrange(1, 4)):
            events: list[tuple[str, str, str]] = []
            for index in range(self.random.choice((0, 1, 1, 2, 3))):
                shared = self.random.random() < 0.2
                event_id = f"shared-{self.random.randrange(3)}" if shared else f"e-{number}-{turn}-{index}"
                if self.random.random() < 0.1:
                    event_id += "-suppressed"
                content = "other" if shared and self.random.random() < 0.4 else "same"
                events.append((event_id, content, self.random.choice(("user", "visitor", event_id))))
            requests.append(Request(events, rejected=self.random.choice((0, 0, 1)) if events else 1, again=self.random.random() < 0.2))
        return requests

    @staticmethod
    def _record(event_id: str, content: str, received_at: int) -> bytes:
        event = pb.Event(id=event_id, event_type="page_view", platform="wordpress", source=content)
        event.timestamp.FromSeconds(_HOUR * 3600)
        received = pb.ReceivedEvent(event=event, client="shop", scope="site")
        received.received_at.FromMicroseconds(received_at)
        return log_pb2.Record(type=received.DESCRIPTOR.full_name, payload=received.SerializeToString()).SerializeToString()

    async def _worker(self, _host: _Host) -> None:
        log = WatchedLog(self.truth, self.scheduler.pause)
        keep = timedelta(seconds=self.random.choice((0, 1, 3600)))
        trimmer = Trimmer(
            cast("RedisLog", log), RAW_TOPIC, keep=keep, max_bytes=self.random.choice((0, 1 << 20)), clock=lambda: self.clock / 1000
        )
        outbox = Outbox(TOPIC)

        async def consent(
            _session: AsyncSession, events: Sequence[pb.ReceivedEvent], _named: Sequence[tuple[str, ...]]
        ) -> Sequence[Treatment]:
            return [Treatment.DROP if received.event.id.endswith("suppressed") else Treatment.STORE for received in events]

        store = StoreEvents(outbox, self._enricher, self._keys, consent)
        consumer = RawLogConsumer(self.sessions, log, RAW_TOPIC, store, after_commit=trimmer.after_commit)
        while True:
            await self._rest(self.truth.unread)
            partition = self.random.randrange(self.partitions)
            try:
                if self.random.random() < 0.1:
                    await consumer.retry(partition)
                else:
                    await consumer.step(partition)
            except Exception as error:  # noqa: BLE001
                self._expect(error)

    async def _relay(self, _host: _Host) -> None:
        relay = self.rules.relay(self.sessions, self._log(self.rules.relay_log), TOPIC, keep=timedelta(hours=self.random.choice((0, 0, 1))))
        while True:
            await self._rest(self.truth.unpublished)
            partition = self.random.randrange(self.partitions)
            calm = not self.chaos
            try:
                await relay.step(partition)
                self.truth.stopped.discard(partition)
                self.truth.looked |= {partition} if calm else set()
                if self.random.random() < 0.3:
                    await relay.prune(partition)
            except TopicAheadOfDatabase:
                self.truth.stopped.add(partition)
                self.truth.looked |= {partition} if calm else set()
                if not self.truth.database_restores:
                    self.truth.violations.append("a relay takes the database for a restored one")
            except Exception as error:  # noqa: BLE001
                self._expect(error)

    async def _reader(self, _host: _Host) -> None:
        log = self._log()
        consumer = Consumer(Sessions(self.shop.reader.database.engine), log, TOPIC, project, history=self._history)
        while True:
            await self._rest(self.truth.unseen)
            try:
                await consumer.step(self.random.randrange(self.partitions))
            except Exception as error:  # noqa: BLE001
                self._expect(error)

    async def _bookkeeper(self, _host: _Host) -> None:
        """Looks at the books at any time, and now and then gives a dead letter another try."""
        losses = Losses(self.sessions, cast("RedisLog", self._log()), RAW_TOPIC, self.partitions)
        while True:
            await self.scheduler.pause("idle")
            try:
                if self.random.random() < 0.3:
                    async with self.sessions.begin() as session:
                        await dead_letters.mark(session, dead_letters.RETRYING, None)
                accounts = await books.accounts(self.sessions, self._log(), RAW_TOPIC, self.partitions)
                await losses.look(accounts)
                if not self.truth.log_restores and not self.truth.database_restores:
                    self.truth.violations.extend(f"{account} does not balance" for account in accounts.values() if not account.balanced)
            except Exception as error:  # noqa: BLE001
                self._expect(error)
            for _ in range(20):
                await self.scheduler.pause("idle")

    async def _rest(self, work: Callable[[], bool]) -> None:
        """Stands until it is time to look for work: looking in vain costs most of a run, and is rare here."""
        await self.scheduler.pause("idle")
        while self.chaos and self.random.random() > (0.5 if work() else 0.05):
            await self.scheduler.pause("idle")

    async def _history(self, partition: int, after: int) -> Sequence[Entry]:
        async with self.sessions.reading() as session:
            rows = await Events(session).published(partition, after, 3)
        entries: list[Entry] = []
        for offset, group in groupby(rows, key=lambda row: row.topic_position):
            stored = [stored_message(row) for row in group]
            records = [log_pb2.Record(type=message.DESCRIPTOR.full_name, payload=message.SerializeToString()) for message in stored]
            entries.extend(
                Entry(Offset(offset, 0), pack, count, 0) for pack, count in packs([record.SerializeToString() for record in records])
            )
        return entries

    def _expect(self, error: Exception) -> None:
        if isinstance(error, GapError) and self.chaos and self.truth.log_restores:
            return  # what it read was lost when it checked
        self.scheduler.note(f"  {type(error).__name__}: {str(error)[:120]}")
        if not is_outage(error):
            self.truth.violations.append(f"unexpected {error!r}")
