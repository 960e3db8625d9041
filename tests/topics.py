"""Lets a service follow topics step by step: what other services publish is published here, on the real log."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.message import Message
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.log.v1 import log_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log import offsets
from kit.log.consume.consumer import Consumer
from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.log.streams import partition_of
from kit.service.runtime import ServiceRuntime


class Topics:
    """The topics that a service follows.

    Args:
        runtime: the service. Its database holds the outboxes.
    """

    def __init__(self, runtime: ServiceRuntime) -> None:
        self.partitions = runtime.settings.log_partitions
        self._runtime = runtime
        self.consumers: dict[str, Consumer] = {}
        self.start_consumers()

    def start_consumers(self) -> None:
        """Starts consumers from the offsets in the database, as a process does."""
        self.consumers = {each.topic: self._runtime.consumer(each) for each in self._runtime.subscriptions}

    def relay(self, topic: str) -> Relay:
        """Publishes a topic."""
        return Relay(self._runtime.sessions, self._runtime.log, topic, keep=timedelta(hours=1))

    async def happen(self, *messages: Message) -> None:
        """Publishes messages on their topics in one transaction, and lets the service follow."""
        async with self._runtime.sessions.begin() as session:
            for message in messages:
                await self._publish(session, message)
        await self.follow()

    async def _publish(self, session: AsyncSession, message: Message) -> None:
        if isinstance(message, EventStored):
            record = log_pb2.Record(type=message.DESCRIPTOR.full_name, payload=message.SerializeToString())
            key = message.event.user_id or message.event.session_id or message.event.id
            await Outbox("events").add(session, partition_of(key, self.partitions), [record])
        elif isinstance(message, PurchaseChanged):
            await StateTopic("purchases", self.partitions).publish(session, [(message.purchase_id, message)])
        else:
            await StateTopic("identity", self.partitions).publish(session, [(str(message), message)])

    async def follow(self) -> None:
        """Lets the service apply all that was published."""
        for topic, consumer in self.consumers.items():
            relay = self.relay(topic)
            for partition in range(self.partitions):
                while await relay.step(partition):
                    pass
                while await consumer.step(partition):
                    pass

    async def replay(self) -> None:
        """Lets the service read all topics again from their beginning."""
        async with self._runtime.sessions.begin() as session:
            for topic in self.consumers:
                await offsets.rewind(session, topic)
        self.start_consumers()
        await self.follow()
