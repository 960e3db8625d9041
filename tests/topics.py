"""Lets a service follow topics step by step: what other services publish is published here, on the real log."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

from google.protobuf.message import Message
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.log.v1 import log_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged

from kit.log import offsets
from kit.log.consume.consumer import Consumer
from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.log.streams import partition_of
from kit.log.trim import TopicTrimmer
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
        events: dict[int, list[log_pb2.Record]] = defaultdict(list)
        states: dict[str, list[tuple[str, Message]]] = defaultdict(list)
        for message in messages:
            if isinstance(message, EventStored):
                key = message.event.user_id or message.event.session_id or message.event.id
                record = log_pb2.Record(type=message.DESCRIPTOR.full_name, payload=message.SerializeToString())
                events[partition_of(key, self.partitions)].append(record)
            elif isinstance(message, PurchaseChanged):
                states["purchases"].append((message.purchase_id, message))
            else:
                states["identity"].append((str(message), message))
        async with self._runtime.sessions.begin() as session:
            await Outbox("events").add_to_partitions(session, events)
            for topic, changes in states.items():
                await StateTopic(topic, self.partitions).publish(session, changes)
        await self.follow()

    async def follow(self) -> None:
        """Lets the service apply all that was published."""
        for topic, consumer in self.consumers.items():
            relay = self.relay(topic)
            for partition in range(self.partitions):
                while await relay.step(partition):
                    pass
                while await consumer.step(partition):
                    pass

    async def trim(self, *, max_bytes: int) -> None:
        """Trims each partition of the topics to so many bytes, as their publishers do."""
        for topic in self.consumers:
            trimmer = TopicTrimmer(self._runtime.log, topic, self.partitions, max_bytes=max_bytes)
            for partition in range(self.partitions):
                await trimmer.look(partition)

    async def replay(self) -> None:
        """Lets the service read all topics again from their beginning."""
        async with self._runtime.sessions.begin() as session:
            for topic in self.consumers:
                await offsets.rewind(session, topic)
        self.start_consumers()
        await self.follow()
