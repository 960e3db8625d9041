"""A service that answers from its tables, publishes a topic of its own and follows those of others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from google.protobuf.descriptor import MethodDescriptor
from pmp.privacy.v1.privacy_pb2_grpc import add_SubjectDataServiceServicer_to_server

from kit.database.engine import Database, open_database
from kit.database.transactions import Sessions
from kit.log.consume import Consumer, Handler
from kit.log.history import remote_history
from kit.log.leases import Leases
from kit.log.outbox import Relay, StateTopic, prepare_heads
from kit.log.redis_log import RedisLog, open_log
from kit.log.report import Report
from kit.log.streams import Position
from kit.log.trim import TopicTrimmer
from kit.people.keys.store import Keys, open_keys
from kit.people.subjects.data import SubjectData
from kit.people.subjects.holdings import After, PersonalTable
from kit.people.subjects.retention import Retention, expiries
from kit.people.subjects.servicer import SubjectDataServicer
from kit.server import Background, Service, serve
from kit.settings import Settings, mesh_tokens
from kit.telemetry.instrumentation import instrument
from kit.telemetry.setup import telemetry


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

    def __init__(self, settings: Settings, name: str, database: Database, log: RedisLog, keys: Keys) -> None:
        self.sessions: Sessions = database.sessions
        self.topic = StateTopic(name, settings.log_partitions)
        self.log = log
        self.keys = keys
        self.relay = Relay(database.sessions, log, name, keep=settings.topic_keep)
        self._settings = settings
        self._name = name
        self._database = database

    def subject_data(self, holdings: Sequence[PersonalTable], after: Mapping[str, After] | None = None) -> Service:
        """The service that shows and erases what is held of somebody.

        Args:
            holdings: what the service holds of persons.
            after: what follows from erased rows, by table.
        """
        data = SubjectData(self._database, self.keys, self.topic, holdings, after)
        return add_SubjectDataServiceServicer_to_server, SubjectDataServicer(data, self._database, self.log, self.topic)

    def retention(self, holdings: Sequence[PersonalTable], after: Mapping[str, After] | None = None) -> Background:
        """What deletes rows of the service that are too old.

        Args:
            holdings: what the service holds of persons.
            after: what follows from deleted rows, by table.

        Raises:
            WrongSetting: the settings name a table of this service that does not grow old.
        """
        return Retention(self._settings, self._name, self.sessions, expiries(holdings), self.topic, after=after).run

    async def serve(
        self, services: Sequence[Service], subscriptions: Sequence[Subscription], background: Sequence[Background] = ()
    ) -> None:
        """Serves rpcs, publishes and follows until it is told to stop, with whatever else goes on. The rpcs need the database alone."""
        settings, log, topic = self._settings, self.log, self.topic
        partitions = settings.log_partitions
        await prepare_heads(self.sessions, self._name, partitions)
        follows = [subscription.topic for subscription in subscriptions]
        report = Report(self.sessions, log, partitions, max_bytes=settings.log_max_bytes, topic=self._name, follows=follows)
        await serve(
            settings,
            services=services,
            checks={"database": self._database.check},
            background=[
                lambda: self.relay.run(Leases(log.redis, self._name, "relay", partitions), topic),
                TopicTrimmer(log, self._name, partitions, max_bytes=settings.topic_max_bytes).run,
                report.run,
                *(
                    partial(follow, settings, self._name, self._database, log, subscription, after_commit=self._committed)
                    for subscription in subscriptions
                ),
                *background,
            ],
        )

    async def _committed(self, _partition: int, _position: Position) -> None:
        self.topic.wake()


async def follow(
    settings: Settings,
    name: str,
    database: Database,
    log: RedisLog,
    subscription: Subscription,
    *,
    after_commit: Callable[[int, Position], Awaitable[None]] | None = None,
) -> None:
    """Applies what a topic tells to the database of the service of this name, until cancelled."""
    publisher = subscription.history.containing_service.full_name.split(".")[1]
    history = remote_history(settings.address(publisher), mesh_tokens(settings.mesh_token)[0], subscription.history)
    consumer = Consumer(database.sessions, log, subscription.topic, subscription.handler, history=history, after_commit=after_commit)
    await consumer.run(Leases(log.redis, subscription.topic, name, settings.log_partitions))


@asynccontextmanager
async def open_runtime(settings: Settings, name: str, *, one_writer: bool = False) -> AsyncGenerator[ServiceRuntime]:
    """Opens what a service of this name works with, and tells of it; closes it at the end.

    Args:
        settings: the databases, keys and log to open.
        name: whose they are.
        one_writer: all of its write transactions take the same lock.
    """
    with telemetry(settings, name):
        async with (
            open_database(settings.database(name), settings.database_pool, one_writer=one_writer) as database,
            open_keys(settings) as keys,
            open_log(settings.redis_url) as log,
        ):
            instrument(database.engine)
            await log.fix_partitions(name, settings.log_partitions)
            yield ServiceRuntime(settings, name, database, log, keys)
