"""The runtime of a service: what it is composed of, and its life.

A service has rpcs, or none; a database, or none; a topic that it publishes, or none; subscriptions to topics of others, whose positions
its database keeps; and background work. What it has not is not made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from google.protobuf.descriptor import MethodDescriptor
from pmp.privacy.v1.privacy_pb2_grpc import add_SubjectDataServiceServicer_to_server

from kit.database.engine import Database, open_database
from kit.database.transactions import Sessions
from kit.log.consume.consumer import AfterCommit, Consumer
from kit.log.consume.handler import Handler
from kit.log.consume.history import remote_history
from kit.log.consume.isolation import DeadLetterLimit
from kit.log.leases import Leases
from kit.log.publish.outbox import prepare_heads
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.log.redis_log import RedisLog, open_log
from kit.log.report import Report
from kit.log.streams import Offset
from kit.log.trim import TopicTrimmer
from kit.people.keys.store import Keys, open_keys
from kit.people.subjects.data import SubjectData
from kit.people.subjects.holdings import After, PersonalTable
from kit.people.subjects.retention import Retention, expiries
from kit.people.subjects.servicer import SubjectDataServicer
from kit.server import Background, Check, Registration, serve
from kit.settings import Settings, mesh_tokens
from kit.telemetry.instrumentation import instrument
from kit.telemetry.setup import telemetry

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic that a service follows."""

    topic: str
    history: MethodDescriptor
    """The publisher's rpc that streams what the topic has trimmed."""
    handler: Handler
    """Writes the effect of its messages."""


class ServiceRuntime:
    """A running service: its database, its topic and the log both rest on, and the keys of persons."""

    def __init__(
        self, settings: Settings, name: str, log: RedisLog, keys: Keys, *, database: Database | None, topic: StateTopic | None
    ) -> None:
        self.log = log
        self.keys = keys
        self._settings = settings
        self._name = name
        self._database = database
        self._topic = topic
        self._relay = None if topic is None or database is None else Relay(database.sessions, log, name, keep=settings.topic_keep)

    @property
    def database(self) -> Database:
        """The service's database.

        Raises:
            LookupError: it has none.
        """
        return _had(self._database, "database")

    @property
    def sessions(self) -> Sessions:
        """The sessions of its database."""
        return self.database.sessions

    @property
    def topic(self) -> StateTopic:
        """The topic that it publishes.

        Raises:
            LookupError: it publishes none.
        """
        return _had(self._topic, "topic")

    @property
    def relay(self) -> Relay:
        """Publishes what was committed."""
        return _had(self._relay, "topic")

    def subject_data(self, holdings: Sequence[PersonalTable], after: Mapping[str, After] | None = None) -> Registration:
        """The service that shows and erases what is held of somebody.

        Args:
            holdings: what the service holds of persons.
            after: what follows from erased rows, by table.
        """
        data = SubjectData(self.database, self.keys, self._topic, holdings, after)
        return add_SubjectDataServiceServicer_to_server, SubjectDataServicer(data, self.database, self.log, self._topic)

    def retention(self, holdings: Sequence[PersonalTable], after: Mapping[str, After] | None = None) -> Background:
        """What deletes rows of the service that are too old.

        Args:
            holdings: what the service holds of persons.
            after: what follows from deleted rows, by table.

        Raises:
            WrongSetting: the settings name a table of this service that does not grow old.
        """
        return Retention(self._settings, self._name, self.sessions, expiries(holdings), self._topic, after=after).run

    async def serve(
        self, services: Sequence[Registration] = (), subscriptions: Sequence[Subscription] = (), background: Sequence[Background] = ()
    ) -> None:
        """Serves, publishes and follows until it is told to stop, with whatever else goes on. The rpcs need the database alone.

        Raises:
            LookupError: there are subscriptions, and no database to keep their positions in.
        """
        works = [*await self._publishing(), *self._following(subscriptions)]
        if self._database is not None:
            works.append(self._report(subscriptions).run)
        checks: Mapping[str, Check] = {"log": self.log.check} if self._database is None else {"database": self._database.check}
        await serve(self._settings, services=services, checks=checks, background=[*works, *background])

    async def _publishing(self) -> Sequence[Background]:
        if self._topic is None:
            return ()
        topic, partitions, redis = self.topic, self._settings.log_partitions, self.log.redis
        await self.log.fix_partitions(self._name, partitions)
        await prepare_heads(self.sessions, self._name, partitions)
        return (
            lambda: self.relay.run(Leases(redis, self._name, "relay", partitions), topic),
            TopicTrimmer(self.log, self._name, partitions, max_bytes=self._settings.topic_max_bytes).run,
        )

    def _following(self, subscriptions: Sequence[Subscription]) -> Iterator[Background]:
        after_commit = None if self._topic is None else self._committed
        for each in subscriptions:
            yield partial(follow, self._settings, self._name, self.database, self.log, each, after_commit=after_commit)

    def _report(self, subscriptions: Sequence[Subscription]) -> Report:
        return Report(
            self.sessions,
            self.log,
            self._settings.log_partitions,
            max_bytes=self._settings.log_max_bytes,
            topic=None if self._topic is None else self._name,
            follows=[each.topic for each in subscriptions],
        )

    async def _committed(self, _partition: int, _offset: Offset) -> None:
        self.topic.wake()


def _had(part: _Part | None, what: str) -> _Part:
    if part is None:
        raise LookupError(f"this service has no {what}")
    return part


async def follow(
    settings: Settings,
    name: str,
    database: Database,
    log: RedisLog,
    subscription: Subscription,
    *,
    after_commit: AfterCommit | None = None,
) -> None:
    """Applies the messages of a topic to the database of the service of this name, until cancelled."""
    publisher = subscription.history.containing_service.full_name.split(".")[1]
    history = remote_history(settings.address(publisher), mesh_tokens(settings.mesh_token)[0], subscription.history)
    limit = DeadLetterLimit(settings.dead_letter_limit, settings.dead_letter_window)
    consumer = Consumer(
        database.sessions, log, subscription.topic, subscription.handler, history=history, limit=limit, after_commit=after_commit
    )
    await consumer.run(Leases(log.redis, subscription.topic, name, settings.log_partitions))


@asynccontextmanager
async def open_runtime(
    settings: Settings, name: str, *, has_database: bool = True, publishes: bool = True, one_writer: bool = False
) -> AsyncGenerator[ServiceRuntime]:
    """Opens what a service of this name works with, and its telemetry; closes both at the end.

    Args:
        settings: the databases, keys and log to open.
        name: of the service, its database and its topic.
        has_database: it keeps something.
        publishes: its database has a topic of its own, which tells what it keeps.
        one_writer: all of its write transactions take the same lock.
    """
    with telemetry(settings, name):
        async with AsyncExitStack() as stack:
            database = None
            if has_database:
                database = await stack.enter_async_context(
                    open_database(settings.database(name), settings.database_pool, one_writer=one_writer)
                )
                instrument(database.engine)
            keys = await stack.enter_async_context(open_keys(settings))
            log = await stack.enter_async_context(open_log(settings.redis_url))
            topic = StateTopic(name, settings.log_partitions) if publishes and has_database else None
            yield ServiceRuntime(settings, name, log, keys, database=database, topic=topic)
