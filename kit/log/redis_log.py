"""The log on Redis Streams.

The keys of a partition share a hash tag, so that a Redis Cluster keeps them together and they change together.

    pmp:{events.0}:log        entries: `p` pack, `n` its messages, `h` hour of receipt, in a topic 0 and `t` ms of publishing (since 1970)
    pmp:{events.0}:books      counters by writer and hour, and the number of each writer's last append
    pmp:{events.0}:trimmed    the last offset that was trimmed
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from typing_extensions import override

from kit.log.redis import scripts
from kit.log.redis.appends import AppendConnection
from kit.log.streams import (
    APPENDS,
    START,
    Append,
    Backlog,
    Count,
    Counters,
    Entry,
    Offset,
    OutOfTurnError,
    StreamLog,
    TopicPartition,
    Watermarks,
    reconcile,
)
from kit.outages import in_terms_of_the_log
from kit.redis_client import Connect, Node, SharedPipeline, rewrite_append_only_file, used_memory


def key(topic: str, partition: int, name: str) -> str:
    """A key of a partition."""
    return f"pmp:{{{topic}.{partition}}}:{name}"


class RedisLog(StreamLog):
    """`StreamLog` on one Redis.

    Args:
        redis: for what is no append.
        connect: makes the pool of the connection for appends.
        floors: what a log is reconciled with before the first append on each new connection; while those can't be read,
            nothing is appended.
    """

    def __init__(self, redis: Redis, connect: Connect, floors: Watermarks | None) -> None:
        # redis-py's types don't cover what its commands return.
        self._redis: Any = redis
        self._connect = connect
        self._floors = floors
        self._appending: dict[Node | None, AppendConnection] = {}
        self.shared_pipeline = SharedPipeline(redis)
        """For what many parts of a process ask now and then, such as leases."""
        self._raise: Any = redis.register_script(scripts.RAISE)
        self._trim: Any = redis.register_script(scripts.TRIM)
        self._backlog: Any = redis.register_script(scripts.BACKLOG)

    @property
    def redis(self) -> Redis:
        """The connection pool, for what concerns one key, or none: leases, reports, links that are taken once."""
        return self._redis

    async def instances(self) -> Sequence[Redis]:
        """A client of each Redis that holds a part of the log."""
        return [self._redis]

    async def check(self) -> None:
        """Raises what keeps the log from answering."""
        await self._redis.ping()

    async def used_bytes(self) -> int:
        """Memory that Redis uses for everything it holds."""
        return await used_memory(self._redis)

    async def rewrite(self) -> None:
        """Writes the append-only file anew, so that nothing stays in it that was trimmed."""
        for redis in await self.instances():
            await rewrite_append_only_file(redis)

    async def fix_partitions(self, topic: str, partitions: int) -> None:
        """Writes the number of partitions down at the first start.

        Raises:
            ValueError: the topic was started with another number; its messages would be looked for in the wrong partitions.
        """
        name = f"pmp:{topic}:partitions"
        await self._redis.set(name, partitions, nx=True)
        known = int(await self._redis.get(name) or partitions)
        if known != partitions:
            message = f"topic {topic!r} has {known} partitions, and PMP_LOG_PARTITIONS says {partitions}"
            raise ValueError(message)

    @override
    async def append(self, topic: str, appends: Sequence[Append]) -> Sequence[Exception | None]:
        return await self._append_to(None, topic, appends)

    async def _append_to(self, node: Node | None, topic: str, appends: Sequence[Append]) -> Sequence[Exception | None]:
        """Does `append` where one Redis holds all the partitions: that node of a cluster, or the only one there is."""
        connection = self._appending.get(node)
        if connection is None:
            reconciled = partial(self._reconcile, node) if self._floors else None
            connection = self._appending[node] = AppendConnection(self._connect, node, reconciled)
        # One script per partition, since partitions may live on different nodes; all of them in one round trip.
        verdicts = [_verdict(answer) for answer in await connection.execute([_append(topic, item) for item in appends])]
        if any(isinstance(verdict, OutOfTurnError) for verdict in verdicts):
            connection.reconcile_again()
        return verdicts

    async def _reconcile(self, node: Node | None) -> None:
        floors: Mapping[TopicPartition, Offset] = await self._floors() if self._floors else {}
        own = {each: offset for each, offset in floors.items() if self._is_on(node, each)}
        await reconcile(self, own, now=time.time())

    def _is_on(self, node: Node | None, partition: TopicPartition) -> bool:  # noqa: ARG002 (there is one Redis)
        return True

    async def close(self) -> None:
        """Closes the connections of the appends, and ends shared pipelines."""
        await self.shared_pipeline.close()
        for connection in self._appending.values():
            await connection.close()

    @override
    async def read_several(self, topic: str, after: Mapping[int, Offset], *, limit: int, block_ms: int) -> Mapping[int, Sequence[Entry]]:
        names = {key(topic, partition, "log").encode(): partition for partition in after}
        offsets = {name: str(after[partition]) for name, partition in names.items()}
        found: Any = await self._redis.xread(offsets, count=limit, block=block_ms or None)
        return {names[name]: entries for name, entries in _streams(found)}

    @override
    async def read_counted(self, topic: str, after: Mapping[int, Offset], *, limit: int) -> Mapping[int, tuple[Sequence[Entry], Counters]]:
        names = {key(topic, partition, "log").encode(): partition for partition in after}
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xread({name: str(after[partition]) for name, partition in names.items()}, count=limit)
            for partition in after:
                pipe.hgetall(key(topic, partition, "books"))
            found, *fields = await pipe.execute()
        counters = dict(zip(after, fields, strict=True))
        return {names[name]: (entries, counters_of(counters[names[name]])) for name, entries in _streams(found)}

    @override
    async def heads(self, topic: str, partitions: Collection[int]) -> Mapping[int, Offset]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for partition in partitions:
                pipe.xinfo_stream(key(topic, partition, "log"))
            answers = await pipe.execute(raise_on_error=False)
        return {partition: _head(answer) for partition, answer in zip(partitions, answers, strict=True)}

    async def newest(self, topic: str, partition: int) -> Offset:
        """Returns the offset of the last entry that exists: the head may have been raised above it."""
        found: Any = await self._redis.xrevrange(key(topic, partition, "log"), count=1)
        return Offset.parse(_text(found[0][0])) if found else START

    @override
    async def publish(self, topic: str, partition: int, *, head: Offset, packs: Sequence[tuple[int, bytes, int]]) -> bool:
        return partition in await self.publish_to_several(topic, {partition: (head, packs)})

    @override
    async def publish_to_several(
        self, topic: str, batches: Mapping[int, tuple[Offset, Sequence[tuple[int, bytes, int]]]]
    ) -> Collection[int]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for partition, (head, packs) in batches.items():
                first = packs[0][0]
                trimmed = "" if first == head.ms + 1 else f"{first - 1}-0"
                arguments = [argument for offset, pack, count in packs for argument in (offset, pack, count)]
                keys = [key(topic, partition, "log"), key(topic, partition, "trimmed")]
                pipe.eval(scripts.PUBLISH, len(keys), *keys, str(head), trimmed, *arguments)
            verdicts = await pipe.execute()
        return [partition for partition, verdict in zip(batches, verdicts, strict=True) if verdict]

    @override
    async def raise_head(self, topic: str, partition: int, offset: Offset) -> None:
        await self._raise(keys=[key(topic, partition, "log")], args=[str(offset)])

    @override
    async def trim(self, topic: str, partition: int, through: Offset) -> None:
        keys = [key(topic, partition, "log"), key(topic, partition, "trimmed")]
        await self._trim(keys=keys, args=[str(through), str(Offset(through.ms, through.seq + 1))])

    @override
    async def trimmed(self, topic: str, partition: int) -> Offset:
        value = await self._redis.get(key(topic, partition, "trimmed"))
        return Offset.parse(_text(value)) if value else START

    @override
    async def counters(self, topic: str, partition: int) -> Counters:
        fields: Any = await self._redis.hgetall(key(topic, partition, "books"))
        return counters_of(fields)

    @override
    async def backlog(self, topic: str, partition: int, after: Offset) -> Backlog:
        keys = [key(topic, partition, name) for name in ("log", "books", "trimmed")]
        flat, pending, trimmed = await self._backlog(keys=keys, args=[str(after)])
        return Backlog(
            counters=counters_of(dict(zip(flat[::2], flat[1::2], strict=True))),
            pending={int(hour): int(count) for hour, count in zip(pending[::2], pending[1::2], strict=True)},
            trimmed=Offset.parse(_text(trimmed)),
        )

    async def forget_counters(self, topic: str, partition: int, counters: Sequence[Count]) -> None:
        """Drops counters that are copied and can't move any more."""
        if counters:
            fields = [name for counter in counters for name in (_field(counter), f"{counter.name}:{counter.hour}")]
            await self._redis.hdel(key(topic, partition, "books"), *fields)

    async def size_bytes(self, topic: str, partition: int) -> int:
        """Memory of one partition's stream."""
        return int(await self._redis.memory_usage(key(topic, partition, "log"), samples=5) or 0)


def _head(answer: Any) -> Offset:
    if isinstance(answer, Exception):
        if isinstance(answer, ResponseError) and "no such key" in str(answer):
            return START
        raise answer
    return Offset.parse(_text(answer["last-generated-id"]))


def _append(topic: str, item: Append) -> tuple[Any, ...]:
    writer, after, number = item.turn
    books = [(_field(Count(writer, name, item.hour)), count) for name, count in item.counters.items() if count]
    flat = [argument for pair in (*books, *item.packs) for argument in pair]
    keys = (key(topic, item.partition, "log"), key(topic, item.partition, "books"))
    return ("EVAL", scripts.APPEND, 2, *keys, _field(Count(writer, APPENDS, 0)), after, number, item.hour, len(books), *flat)


def _verdict(answer: object) -> Exception | None:
    if isinstance(answer, Exception):
        return in_terms_of_the_log(answer)
    return OutOfTurnError(int(answer)) if isinstance(answer, bytes) else None


def _field(counter: Count) -> str:
    return f"{counter.writer}/{counter.name}:{counter.hour}"


def counters_of(fields: Mapping[bytes, bytes]) -> Counters:
    """Reads the books of a partition."""
    # Counters without a writer are those of an older release, which named their life beside them.
    unnamed = _text(fields.get(b"epoch", b""))
    counts: dict[Count, int] = {}
    for field, value in fields.items():
        path, _, hour = field.decode().rpartition(":")
        writer, _, name = path.rpartition("/")
        if name:
            counts[Count(writer or unnamed, name, int(hour))] = int(value)
    return Counters(counts)


def _streams(found: Any) -> Iterator[tuple[bytes, Sequence[Entry]]]:
    """The entries of each stream that XREAD found."""
    # RESP2 answers with pairs of a stream and its entries, RESP3 with a map of lists of entries.
    listed = isinstance(found, list)
    for name, entries in cast("Any", found if listed else (found or {}).items()):
        yield name, [entry_of(*entry) for entry in (entries if listed else entries[0])]


def entry_of(offset: bytes | str, fields: Mapping[bytes, bytes]) -> Entry:
    """Reads an entry of a stream."""
    return Entry(Offset.parse(_text(offset)), fields[b"p"], int(fields[b"n"]), int(fields[b"h"]))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
