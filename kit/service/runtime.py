"""The runtime of one role of a service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pmp.privacy.v1.privacy_pb2_grpc import add_SubjectDataServiceServicer_to_server

from kit.database.engine import Database
from kit.database.transactions import Sessions
from kit.log import offsets
from kit.log.consume.consumer import Consumer, RawLogConsumer
from kit.log.consume.history import remote_history
from kit.log.consume.isolation import DeadLetterLimit
from kit.log.leases import Leases
from kit.log.publish.outbox import Outbox, prepare_heads
from kit.log.publish.relay import Relay
from kit.log.report import Report
from kit.log.streams import Offset
from kit.log.trim import TopicTrimmer
from kit.people.subjects.personal_tables import PersonalTable
from kit.people.subjects.retention import Retention
from kit.people.subjects.servicer import SubjectDataServicer
from kit.registry import Background, Check, Part, Registration
from kit.service.parts import Intake, Publication, RawLog, Subscription
from kit.service.resources import Resources
from kit.settings import Settings
from kit.streams.stream import Stream

_Part = TypeVar("_Part")


class ServiceRuntime:
    """One role of a service, composed of what it has. Nothing runs before `kit.server.serve`.

    Args:
        settings: the role's.
        resources: those of its process.
        service: the name of the service; consumers and relays of one name share their work.
        checks: what must be up for the role to work, by name.
        database: where it keeps its rows, its outbox and its offsets.
        rpcs: what it serves.
        streams: which of its rpcs it serves over HTTP as well.
        subject_data: shows and erases the personal data it keeps.
        retention: deletes rows that are too old.
        publication: the topic it publishes.
        subscriptions: topics of other services that it follows.
        intake: the raw log it appends to.
        raw_log: the raw log it processes.
        background: whatever else runs as long as it serves.

    Raises:
        LookupError: a part needs a database, and there is none.
    """

    def __init__(
        self,
        settings: Settings,
        resources: Resources,
        service: str,
        *,
        checks: Mapping[str, Check],
        database: Database | None = None,
        rpcs: Sequence[Registration] = (),
        streams: Sequence[Stream] = (),
        subject_data: SubjectDataServicer | None = None,
        retention: Retention | None = None,
        publication: Publication | None = None,
        subscriptions: Sequence[Subscription] = (),
        intake: Intake | None = None,
        raw_log: RawLog | None = None,
        background: Sequence[Background] = (),
    ) -> None:
        self.settings = settings
        self.log = resources.log
        self.keys = resources.keys
        self.service = service
        self.checks = checks
        self.subject_data = subject_data
        self.subscriptions = subscriptions
        self.background = background
        self._rpcs = rpcs
        self._streams = streams
        self._database = database
        self._retention = retention
        self._publication = publication
        self._intake = intake
        self._raw_log = raw_log
        if any((subject_data, retention, publication, subscriptions, intake, raw_log)):
            _ = self.database
        if intake is not None:
            resources.watermarks.append(partial(offsets.floors, self.sessions, intake.topic))

    @property
    def database(self) -> Database:
        """Its database.

        Raises:
            LookupError: it has none.
        """
        return _present(self._database, "database")

    @property
    def sessions(self) -> Sessions:
        """The sessions of its database."""
        return self.database.sessions

    @property
    def topic(self) -> Outbox:
        """The topic that it publishes.

        Raises:
            LookupError: it publishes none.
        """
        return _present(self._publication, "topic").outbox

    @property
    def relay(self) -> Relay:
        """Publishes what was committed."""
        return _present(self._publication, "topic").relay

    @property
    def intake(self) -> Intake:
        """The raw log it appends to.

        Raises:
            LookupError: it appends to none.
        """
        return _present(self._intake, "intake")

    @property
    def raw_log(self) -> RawLog:
        """The raw log it processes.

        Raises:
            LookupError: it processes none.
        """
        return _present(self._raw_log, "raw log")

    @property
    def retention(self) -> Retention:
        """Deletes rows that are too old.

        Raises:
            LookupError: none of its rows grow too old.
        """
        return _present(self._retention, "retention")

    @property
    def personal_tables(self) -> Sequence[PersonalTable]:
        """The tables whose personal data it shows and erases, beside those that every service has."""
        return () if self.subject_data is None else self.subject_data.tables

    @property
    def rpcs(self) -> Sequence[Registration]:
        """What it serves, with the registration of each servicer."""
        if self.subject_data is None:
            return self._rpcs
        return (*self._rpcs, (add_SubjectDataServiceServicer_to_server, self.subject_data))

    def part(self, role: str) -> Part:
        """What the role contributes to its process once it is prepared: it serves, publishes and consumes."""
        return Part(role, self.rpcs, self.checks, [*self._works(), *self.background], self._streams)

    async def prepare(self) -> None:
        """Fixes the number of partitions of its topics, and makes the rows from which their offsets are assigned.

        Raises:
            ValueError: the log was started with another number of partitions.
        """
        partitions = self.settings.log_partitions
        for topic in dict.fromkeys(part.topic for part in (self._intake, self._raw_log, self._outbox) if part is not None):
            await self.log.fix_partitions(topic, partitions)
        if self._outbox is not None:
            await prepare_heads(self.sessions, self._outbox.topic, partitions)

    @property
    def _outbox(self) -> Outbox | None:
        return None if self._publication is None else self._publication.outbox

    def _works(self) -> Iterator[Background]:
        """The background work of its parts."""
        if self._outbox is not None:
            topic = self._outbox.topic
            yield partial(self.relay.run, self._leases(topic, "relay"), self._outbox)
            yield TopicTrimmer(self.log, topic, self.settings.log_partitions, max_bytes=self.settings.topic_max_bytes).run
        if self._raw_log is not None:
            yield partial(self.consumer_of_raw_log().run, self._leases(self._raw_log.topic, self.service))
        for subscription in self.subscriptions:
            yield partial(self.consumer(subscription).run, self._leases(subscription.topic, self.service))
        if self._intake is not None:
            yield self._intake.appender.run
        if self._publication or self._raw_log or self.subscriptions:
            yield self._report().run
        if self._retention is not None:
            yield self._retention.run

    def _leases(self, topic: str, group: str) -> Leases:
        return Leases(self.log, topic, group, self.settings.log_partitions)

    def consumer(self, subscription: Subscription) -> Consumer:
        """Applies a topic to its database."""
        history = remote_history(self.settings, subscription.history)
        return Consumer(
            self.sessions,
            self.log,
            subscription.topic,
            subscription.handler,
            history=history,
            limit=self._dead_letter_limit,
            after_commit=self._after_commit,
        )

    def consumer_of_raw_log(self) -> RawLogConsumer:
        """Processes its raw log."""
        raw_log = self.raw_log

        async def after_commit(partition: int, offset: Offset) -> None:
            await self._after_commit(partition, offset)
            await raw_log.trimmer.after_commit(partition, offset)

        return RawLogConsumer(
            self.sessions, self.log, raw_log.topic, raw_log.handler, limit=self._dead_letter_limit, after_commit=after_commit
        )

    @property
    def _dead_letter_limit(self) -> DeadLetterLimit:
        return DeadLetterLimit(self.settings.dead_letter_limit, self.settings.dead_letter_window)

    async def _after_commit(self, _partition: int, _offset: Offset) -> None:
        if self._outbox is not None:
            self._outbox.wake()

    def _report(self) -> Report:
        return Report(
            self.sessions,
            self.log,
            self.settings.log_partitions,
            max_bytes=self.settings.log_max_bytes,
            topic=None if self._outbox is None else self._outbox.topic,
            raw=None if self._raw_log is None else self._raw_log.topic,
            follows=[each.topic for each in self.subscriptions],
            with_books=None if self._raw_log is None else self._raw_log.with_books,
        )


def _present(part: _Part | None, what: str) -> _Part:
    if part is None:
        raise LookupError(f"this service has no {what}")
    return part
