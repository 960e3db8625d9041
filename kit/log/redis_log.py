"""The log on Redis Streams.

The keys of a partition share a hash tag, so that a Redis Cluster keeps them together and they change together.

    pmp:{events.0}:log        entries: `p` pack, `n` its messages, `h` hour of receipt, in a topic 0 and `t` ms of publishing (since 1970)
    pmp:{events.0}:books      counters by writer and hour, and the number of each writer's last append
    pmp:{events.0}:trimmed    the last offset that was trimmed
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ResponseError
from typing_extensions import override

from kit.log import redis_scripts
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
    Watermarks,
    reconcile,
)
from kit.outages import in_terms_of_the_log
from kit.redis_client import ANSWER_SECONDS, ConnectionCount, SharedPipeline, connection_pool, rewrite_append_only_file


def key(topic: str, partition: int, name: str) -> str:
    """A key of a partition."""
    return f"pmp:{{{topic}.{partition}}}:{name}"


class RedisLog(StreamLog):
    """`StreamLog` on one Redis (or a Redis Cluster's node for these partitions)."""

    def __init__(self, redis: Redis, appending: ConnectionPool, connections: ConnectionCount, floors: Watermarks | None) -> None:
        # redis-py's types don't cover what its commands return.
        self._redis: Any = redis
        # One connection for one append at a time: taking it from a pool and giving it back costs half as much as the append.
        self._appending: Any = appending
        self._connection: Any = appending.make_connection()
        self._free = asyncio.Lock()
        self.shared_pipeline = SharedPipeline(redis)
        """For what many parts of a process ask now and then, such as leases."""
        self._floors = floors
        self._connections = connections
        self._reconciled = 0
        self._raise: Any = redis.register_script(redis_scripts.RAISE)
        self._trim: Any = redis.register_script(redis_scripts.TRIM)
        self._backlog: Any = redis.register_script(redis_scripts.BACKLOG)

    @property
    def redis(self) -> Redis:
        """The connection pool, for leases and reports."""
        return self._redis

    async def check(self) -> None:
        """Raises what keeps the log from answering."""
        await self._redis.ping()

    async def used_bytes(self) -> int:
        """Memory that Redis uses for everything it holds."""
        info: dict[str, Any] = await self._redis.info("memory")
        return int(info["used_memory"])

    async def rewrite(self) -> None:
        """Writes the append-only file anew, so that nothing stays in it that was trimmed."""
        await rewrite_append_only_file(self._redis)

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
        # One script per partition, since partitions may live on different nodes; all of them in one round trip.
        commands = [_append(topic, item) for item in appends]
        async with self._free:
            answers = await self._answers(commands)
        verdicts = [_verdict(answer) for answer in answers]
        if any(isinstance(verdict, OutOfTurnError) for verdict in verdicts):
            # It may have lost something though the connection stayed, as FLUSHALL does.
            self._reconciled = 0
        return verdicts

    async def _answers(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        connection = self._connection
        try:
            await self._appending.ensure_connection(connection)
            if self._floors and self._reconciled != self._connections.made:
                await reconcile(self, await self._floors(), now=time.time())
                self._reconciled = self._connections.made
            await connection.send_packed_command(connection.pack_commands(commands))
            answers: list[Any] = []
            # One timer for all answers: the client's own would be set anew for each.
            async with asyncio.timeout(ANSWER_SECONDS):
                for _ in commands:
                    try:
                        answers.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        answers.append(error)
        except BaseException:
            # Some answers are still under way: no later call may read them.
            await connection.disconnect(nowait=True)
            raise
        return answers

    async def close(self) -> None:
        """Closes the connection of the appends, and ends shared pipelines."""
        await self.shared_pipeline.close()
        await self._connection.disconnect()

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
        return {names[name]: (entries, _counters(counters[names[name]])) for name, entries in _streams(found)}

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
                pipe.eval(redis_scripts.PUBLISH, len(keys), *keys, str(head), trimmed, *arguments)
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
        return _counters(fields)

    @override
    async def backlog(self, topic: str, partition: int, after: Offset) -> Backlog:
        keys = [key(topic, partition, name) for name in ("log", "books", "trimmed")]
        flat, pending, trimmed = await self._backlog(keys=keys, args=[str(after)])
        return Backlog(
            counters=_counters(dict(zip(flat[::2], flat[1::2], strict=True))),
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


@asynccontextmanager
async def open_log(url: str, *, floors: Watermarks | None = None, newest_url: Callable[[], str] | None = None) -> AsyncGenerator[RedisLog]:
    """Opens the log at `url`, lazily.

    Before the first append on each new connection the log is reconciled with `floors`; while those can't be read, nothing
    is appended. Nothing is retried silently: a broken connection is an error, since what was sent may have taken
    effect. Of `newest_url` each new connection takes the user and the password.
    """
    reading = Redis.from_pool(connection_pool(url, newest_url, max_connections=256))
    connections = ConnectionCount()
    appending = connection_pool(url, newest_url, redis_connect_func=connections.connected)
    log = RedisLog(reading, appending, connections, floors)
    try:
        yield log
    finally:
        await log.close()
        await reading.aclose()


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
    return ("EVAL", redis_scripts.APPEND, 2, *keys, _field(Count(writer, APPENDS, 0)), after, number, item.hour, len(books), *flat)


def _verdict(answer: object) -> Exception | None:
    if isinstance(answer, Exception):
        return in_terms_of_the_log(answer)
    return OutOfTurnError(int(answer)) if isinstance(answer, bytes) else None


def _field(counter: Count) -> str:
    return f"{counter.writer}/{counter.name}:{counter.hour}"


def _counters(fields: Mapping[bytes, bytes]) -> Counters:
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
        yield name, [_entry(*entry) for entry in (entries if listed else entries[0])]


def _entry(offset: bytes | str, fields: Mapping[bytes, bytes]) -> Entry:
    return Entry(Offset.parse(_text(offset)), fields[b"p"], int(fields[b"n"]), int(fields[b"h"]))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
