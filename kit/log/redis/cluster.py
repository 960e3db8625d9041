"""The log on a Redis Cluster: its partitions are distributed over the shards.

Redis answers for keys of several hash slots neither in one command nor in one transaction, so that partitions are read and
appended to one by one, those of a node in one round trip. While a shard is down, nothing is appended to its partitions, and
those of the others go on.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, cast

from redis.asyncio import Redis, RedisCluster
from typing_extensions import override

from kit.log.redis import scripts
from kit.log.redis_log import RedisLog, counters_of, entry_of, key
from kit.log.streams import Append, Counters, Entry, Offset, OutOfTurnError, TopicPartition, Watermarks
from kit.outages import LogFullError
from kit.redis_client import Connect, Node, used_memory

_Ask: TypeAlias = Callable[[Any, str, Offset], object]
"""Adds to a pipeline what is asked of a partition's stream after an offset."""
_Wait: TypeAlias = tuple[str, int, Offset]
_CONNECTIONS: Final = 8
"""Most connections to a node for what is asked of it as a whole."""
_LOOK_SECONDS: Final = 1.0
"""Time between two looks at which node has which of 16,384 slots, each of which takes some milliseconds of processor time."""


class ClusterLog(RedisLog):
    """`StreamLog` on the primaries of a Redis Cluster."""

    def __init__(self, cluster: RedisCluster, connect: Connect, floors: Watermarks | None) -> None:
        super().__init__(cast("Redis", cluster), connect, floors)
        self._cluster: Any = cluster
        self._instances: dict[Node, Redis] = {}
        self._waits: dict[_Wait, asyncio.Task[object]] = {}
        self._outdated = False
        """Whether partitions may have moved to other nodes."""
        self._next_look = 0.0

    # Nodes

    @override
    async def instances(self) -> Sequence[Redis]:
        await self._look_up()
        nodes = {(node.host, int(node.port)) for node in self._cluster.get_primaries()}
        for node in nodes - self._instances.keys():
            self._instances[node] = Redis.from_pool(self._connect(node=node, max_connections=_CONNECTIONS))
        return [self._instances[node] for node in sorted(nodes)]

    @override
    async def check(self) -> None:
        """Raises what keeps all shards from answering. Of those that are down, each call is refused by itself."""

        async def ping(redis: Redis) -> None:
            await cast("Any", redis).ping()

        await self._of_instances(ping)

    @override
    async def used_bytes(self) -> int:
        """Memory that the fullest of the shards uses: intake stops when one is full."""
        return max(await self._of_instances(used_memory))

    async def _of_instances(self, ask: Callable[[Redis], Any]) -> Sequence[Any]:
        """Asks all shards, and returns the answers of those that answer.

        Raises:
            Exception: of a shard, when none answers.
        """
        answers = await asyncio.gather(*(ask(redis) for redis in await self.instances()), return_exceptions=True)
        good = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not good:
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        return good

    async def _look_up(self) -> None:
        """Asks the cluster which node has which slots, if that is not known or may have changed."""
        await self._cluster.initialize()
        now = time.monotonic()
        if self._outdated and now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            await self._cluster.nodes_manager.initialize()
            self._outdated = False

    def _node(self, topic: str, partition: int) -> Node:
        node = self._cluster.get_node_from_key(key(topic, partition, "log"))
        return node.host, int(node.port)

    async def _by_node(self, topic: str, partitions: Collection[int]) -> Mapping[Node, Sequence[int]]:
        await self._look_up()
        nodes: dict[Node, list[int]] = defaultdict(list)
        for partition in partitions:
            nodes[self._node(topic, partition)].append(partition)
        return nodes

    @override
    def _is_on(self, node: Node | None, partition: TopicPartition) -> bool:
        return self._node(*partition) == node

    # Appending

    @override
    async def append(self, topic: str, appends: Sequence[Append]) -> Sequence[Exception | None]:
        async def to(node: Node, partitions: Sequence[int]) -> Mapping[int, Exception | None]:
            own = [each for each in appends if each.partition in partitions]
            try:
                verdicts = await self._append_to(node, topic, own)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other nodes' partitions are not concerned)
                verdicts = [error] * len(own)
            self._outdated |= any(each and not isinstance(each, LogFullError | OutOfTurnError) for each in verdicts)
            return {each.partition: verdict for each, verdict in zip(own, verdicts, strict=True)}

        nodes = await self._by_node(topic, [each.partition for each in appends])
        found = await asyncio.gather(*(to(*each) for each in nodes.items()))
        verdicts = {partition: verdict for of_node in found for partition, verdict in of_node.items()}
        return [verdicts[each.partition] for each in appends]

    # Reading

    @override
    async def read_several(self, topic: str, after: Mapping[int, Offset], *, limit: int, block_ms: int) -> Mapping[int, Sequence[Entry]]:
        found = await self._entries(topic, after, limit)
        if not found and block_ms and await self._wait(topic, after, block_ms):
            return await self._entries(topic, after, limit)
        return found

    async def _entries(self, topic: str, after: Mapping[int, Offset], limit: int) -> Mapping[int, Sequence[Entry]]:
        def ask(pipe: Any, name: str, offset: Offset) -> None:
            # XREAD has its key at no fixed place: the client would ask a node where.
            pipe.xrange(name, min=f"({offset}", count=limit)

        found = await self._found(topic, after, ask, bool)
        return {partition: [entry_of(*entry) for entry in entries] for partition, entries in found.items()}

    @override
    async def read_counted(self, topic: str, after: Mapping[int, Offset], *, limit: int) -> Mapping[int, tuple[Sequence[Entry], Counters]]:
        def ask(pipe: Any, name: str, offset: Offset) -> None:
            pipe.eval(scripts.READ, 2, name, name.removesuffix("log") + "books", str(offset), limit)

        found = await self._found(topic, after, ask, lambda answer: bool(answer[0]))
        return {
            partition: ([entry_of(offset, _pairs(fields)) for offset, fields in entries], counters_of(_pairs(books)))
            for partition, (entries, books) in found.items()
        }

    async def _found(self, topic: str, after: Mapping[int, Offset], ask: _Ask, is_some: Callable[[Any], bool]) -> Mapping[int, Any]:
        """Asks the partitions of all nodes, and returns the answers that have something.

        Raises:
            Exception: of a node, when no other has anything.
        """

        async def of(partitions: Sequence[int]) -> Mapping[int, Any]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for partition in partitions:
                    ask(pipe, key(topic, partition, "log"), after[partition])
                return dict(zip(partitions, await pipe.execute(), strict=True))

        nodes = await self._by_node(topic, after)
        found: dict[int, Any] = {}
        failed: list[BaseException] = []
        for answers in await asyncio.gather(*map(of, nodes.values()), return_exceptions=True):
            if isinstance(answers, BaseException):
                failed.append(answers)
            else:
                found |= {partition: answer for partition, answer in answers.items() if is_some(answer)}
        if failed:
            self._outdated = True
            if not found:
                raise failed[0]
        return found

    async def _wait(self, topic: str, after: Mapping[int, Offset], block_ms: int) -> bool:
        """Waits until a partition has something after its offset.

        Returns:
            False when none has, after a wait of at most `block_ms`.
        """
        waits = [self._waiting((topic, partition, offset), block_ms) for partition, offset in after.items()]
        done, _ = await asyncio.wait(waits, timeout=block_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
        return any(wait.result() for wait in done)

    def _waiting(self, name: _Wait, block_ms: int) -> asyncio.Task[object]:
        """The wait for a partition, one for all who wait for the same: it ends with what comes, whoever else has come meanwhile."""
        wait = self._waits.get(name)
        if wait is None:
            wait = self._waits[name] = asyncio.create_task(self._first(name, block_ms))
            wait.add_done_callback(partial(self._forget, name))
        return wait

    def _forget(self, name: _Wait, wait: asyncio.Task[object]) -> None:
        del self._waits[name]
        if not wait.cancelled() and wait.exception():
            self._outdated = True

    async def _first(self, name: _Wait, block_ms: int) -> object:
        topic, partition, offset = name
        stream = key(topic, partition, "log")
        node = self._cluster.get_node_from_key(stream)
        words = ("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", stream, str(offset))
        return await self._cluster.execute_command(*words, target_nodes=node)

    @override
    async def close(self) -> None:
        for wait in list(self._waits.values()):
            wait.cancel()
        await asyncio.gather(*self._waits.values(), return_exceptions=True)
        await super().close()
        for redis in self._instances.values():
            await redis.aclose()


def _pairs(flat: Sequence[bytes]) -> Mapping[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
