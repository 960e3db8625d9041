"""A mesh in miniature: clients, services, workers, relays and a downstream reader, on one log and two databases.

The kit's appender, consumers, outbox, relay, books and trimmer are the real ones, and so are the handler of ingestion and SQLite; only
the log is in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import groupby
from random import Random
from typing import Any, cast
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
from kit.log.consume.stream_consumer import StreamConsumer
from kit.log.intake.account import Sender
from kit.log.intake.appender import Appender
from kit.log.packs import packs
from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay, TopicAheadOfDatabase
from kit.log.redis_log import RedisLog
from kit.log.streams import Entry, Offset
from kit.log.trim import Trimmer
from kit.outages import is_outage
from kit.people.keys.store import Keys
from services.ingestion.consent import Treatment
from services.ingestion.consumers import StoreEvents
from services.ingestion.enrichment import Enricher
from services.ingestion.losses import Losses
from services.ingestion.messages import RAW_TOPIC, TOPIC, stored_message
from services.ingestion.repository import Events, keep_receipts
from tests.simulation.calls import HOUR, Request, record, requests_of
from tests.simulation.inline_sqlite import Disk
from tests.simulation.memory_log import MemoryLog, MemoryRedis
from tests.simulation.scheduler import Actor, Scheduler
from tests.simulation.shop import MOST_PARTITIONS, Shop, project
from tests.simulation.truth import Truth, WatchedAccount, WatchedLog


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts of the mesh that a test may replace by broken ones."""

    relay: Callable[..., Relay] = Relay
    reconciles: bool = True
    relay_log: type[MemoryLog] = MemoryLog


@dataclass(slots=True)
class Host:
    """One process."""

    name: str
    begin: Callable[[Host], Any]
    actor: Actor | None = None
    appender: Appender | None = None
    begins_at: int = 0

    @property
    def alive(self) -> bool:
        return self.actor is not None and self.actor.alive


class Mesh:
    """The processes of a mesh and its clients, each of which moves when the scheduler lets it."""

    def __init__(self, shop: Shop, seed: int, rules: Rules, keys: Keys) -> None:
        self.random = Random(seed)  # noqa: S311 (a run has to be repeatable)
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
        """Things go wrong."""
        self.clients = 0
        self.received = 0
        """Number of calls: each has a time of its own."""
        self.truth = Truth(self.redis, self.disk, self.reader_disk, self.partitions)
        self._hosts: list[Host] = []
        self._keys = keys
        self._enricher = Enricher(frozenset(), ZoneInfo("UTC"), lambda data: data[:8])

    @property
    def sessions(self) -> Sessions:
        """Those of one process: others don't wait for its turns."""
        return Sessions(self.shop.ingestion.database.engine)

    def _dawdles(self) -> bool:
        return self.random.random() < 0.2

    def _tick(self) -> int:
        return self.clock - self.lag

    def _log(self, kind: type[MemoryLog] = MemoryLog, **options: Any) -> MemoryLog:
        return kind(self.redis, pause=self.scheduler.pause, **options)

    async def _service(self, host: Host) -> None:
        floors = partial(offsets.floors, self.sessions, RAW_TOPIC)
        log = WatchedLog(
            self.truth, self.scheduler.pause, floors=floors if self.rules.reconciles else None, clock=lambda: self.clock / 1000
        )
        hour = HOUR + self.random.randrange(2)
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
        for request in requests_of(self.random, number):
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

    async def _call(self, host: Host, request: Request) -> bool:
        assert host.appender is not None
        actor = host.actor
        self.received += 1
        received = HOUR * 3_600_000_000 + self.received
        records = [(key, record(event_id, content, received)) for event_id, content, key in request.events]
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

    async def _worker(self, _host: Host) -> None:
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
            try:
                if self.random.random() < 0.1:
                    await consumer.retry(self.random.randrange(self.partitions))
                else:
                    await self._step(consumer)
            except Exception as error:  # noqa: BLE001
                self._expect(error)

    async def _relay(self, _host: Host) -> None:
        relay = self.rules.relay(self.sessions, self._log(self.rules.relay_log), TOPIC, keep=timedelta(hours=self.random.choice((0, 0, 1))))
        while True:
            await self._rest(self.truth.unpublished)
            partition = self.random.randrange(self.partitions)
            calm = not self.chaos
            try:
                if self.random.random() < 0.5:
                    for error in (await relay.step_all(self._some_partitions(), asyncio.Event())).values():
                        self._expect(error)
                await relay.step(partition)
                self.truth.stopped.discard(partition)
                self.truth.looked |= {partition} if calm else set()
                if self.random.random() < 0.3:
                    await relay.prune(partition)
            except TopicAheadOfDatabase:
                self.truth.stopped.add(partition)
                self.truth.looked |= {partition} if calm else set()
                self._expect_restored()
            except Exception as error:  # noqa: BLE001
                self._expect(error)

    async def _reader(self, _host: Host) -> None:
        log = self._log()
        consumer = Consumer(Sessions(self.shop.reader.database.engine), log, TOPIC, project, history=self._history)
        while True:
            await self._rest(self.truth.unseen)
            try:
                await self._step(consumer)
            except Exception as error:  # noqa: BLE001
                self._expect(error)

    async def _step(self, consumer: StreamConsumer) -> None:
        """Lets a consumer read on in some partitions, as it does in those that it holds leases for."""
        for error in (await consumer.step_all(self._some_partitions())).failed.values():
            self._expect(error)

    def _some_partitions(self) -> list[int]:
        return self.random.sample(range(self.partitions), self.random.randint(1, self.partitions))

    async def _bookkeeper(self, _host: Host) -> None:
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

    def _expect_restored(self) -> None:
        if not self.truth.database_restores:
            self.truth.violations.append("a relay takes the database for a restored one")

    def _expect(self, error: Exception) -> None:
        if isinstance(error, GapError) and self.chaos and self.truth.log_restores:
            return  # what it read was lost when it checked
        if isinstance(error, TopicAheadOfDatabase):
            self._expect_restored()
            return
        self.scheduler.note(f"  {type(error).__name__}: {str(error)[:120]}")
        if not is_outage(error):
            self.truth.violations.append(f"unexpected {error!r}")
