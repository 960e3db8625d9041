"""What the log can do, and how Redis does it.

A topic has a fixed number of partitions, each one stream. The keys of a partition share a hash tag, so that a Redis
Cluster keeps them together and they change together.

    pmp:{events.0}:log        entries: `p` the pack, `n` how many messages, `h` hour of receipt (hours since 1970)
    pmp:{events.0}:books      counters by hour, and the `epoch` they began in
    pmp:{events.0}:trimmed    the last position that was trimmed away
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias
from zlib import crc32

from redis.asyncio import BlockingConnectionPool, Connection, Redis, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, ReadOnlyError, ResponseError, TimeoutError  # noqa: A004
from typing_extensions import override

PACK_BYTES: Final = 524_288
"""Largest pack; one entry of the log."""


class Position(NamedTuple):
    """A place in a stream: the id of an entry. Compares as numbers. In a topic `ms` is the position and `seq` 0."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Reads `ms-seq`."""
        ms, _, seq = text.partition("-")
        return cls(int(ms), int(seq or 0))


START: Final = Position(0, 0)
"""Before the first entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream."""

    position: Position
    pack: bytes
    messages: int
    hour: int


@dataclass(frozen=True, slots=True)
class Append:
    """What one group commit writes to one partition, at once or not at all."""

    partition: int
    packs: Sequence[tuple[bytes, int]]
    """Serialised packs with the number of messages in each."""
    hour: int
    """Hour of receipt, in hours since 1970."""
    counters: Mapping[str, int]
    """How far the counters of that hour move."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of a partition as the log holds them."""

    epoch: str
    """Names the life of these counters: a log that lost them starts another one. Empty before the first append."""
    counts: Mapping[tuple[str, int], int]
    """Counts by name and hour."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What the tables know of a partition: a log that knows less was restored, wiped or failed over."""

    position: Position
    """Behind this the consumer goes on."""
    counters: Mapping[str, Mapping[tuple[str, int], int]]
    """Copies of the log's counters, by epoch."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """A partition's counters and what lies behind a position, read in one instant."""

    counters: Counters
    pending: Mapping[int, int]
    """Messages behind the position, by hour of receipt."""
    trimmed: Position
    """Entries up to here are gone."""


class LogFullError(Exception):
    """The log's memory is used up; nothing was written."""


class LogDownError(ConnectionError):
    """The log does not take writes now: it is starting, read-only, or its disk is full. Nothing was written."""


Floors: TypeAlias = Callable[[], Awaitable[Mapping[tuple[str, int], Floor]]]
"""Reads what the tables know, by topic and partition."""


class StreamLog(Protocol):
    """The operations on which the log's promises rest. Every one of them either happens as a whole or not at all."""

    async def append(self, topic: str, appends: Sequence[Append]) -> Sequence[Exception | None]:
        """Appends to several partitions in one round trip; an error per partition that refused."""
        ...

    async def read(self, topic: str, partition: int, after: Position, *, limit: int, block_ms: int) -> Sequence[Entry]:
        """Entries behind a position, waiting up to `block_ms` for the first."""
        ...

    async def head(self, topic: str, partition: int) -> Position:
        """The last position that was ever given in the stream."""
        ...

    async def publish(self, topic: str, partition: int, *, head: Position, packs: Sequence[tuple[int, bytes, int]]) -> bool:
        """Appends entries (position, pack, number of messages) if the stream's head is still `head`; says whether it was.

        A first position that leaves a gap behind the head marks what is between them as trimmed.
        """
        ...

    async def raise_head(self, topic: str, partition: int, position: Position) -> None:
        """Makes sure that every later entry has a position behind this one."""
        ...

    async def trim(self, topic: str, partition: int, through: Position) -> None:
        """Drops the entries up to and including a position, and says so in `trimmed`."""
        ...

    async def trimmed(self, topic: str, partition: int) -> Position:
        """Entries up to here are gone."""
        ...

    async def counters(self, topic: str, partition: int) -> Counters:
        """The partition's counters."""
        ...

    async def reset_counters(self, topic: str, partition: int, epoch: str) -> None:
        """Drops the counters of an epoch, so that the next append begins another one."""
        ...

    async def backlog(self, topic: str, partition: int, after: Position) -> Backlog:
        """The partition's counters and what lies behind a position, in one instant."""
        ...


async def reconcile(log: StreamLog, floors: Mapping[tuple[str, int], Floor]) -> None:
    """Makes a log that may have been restored, wiped or failed over safe to append to.

    New entries get positions behind those that were read already, and counters that went back begin a new epoch.
    """
    for (topic, partition), floor in floors.items():
        await log.raise_head(topic, partition, floor.position)
        live = await log.counters(topic, partition)
        copies = floor.counters.get(live.epoch, {})
        if any(live.counts.get(name, 0) < count for name, count in copies.items()):
            await log.reset_counters(topic, partition, live.epoch)


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key."""
    return crc32(key.encode()) % partitions


def key(topic: str, partition: int, name: str) -> str:
    """A key of a partition."""
    return f"pmp:{{{topic}.{partition}}}:{name}"


def is_log_transient(error: BaseException) -> bool:
    """True when the log may answer the same request later."""
    return isinstance(error, ConnectionError | TimeoutError | BusyLoadingError | ReadOnlyError | LogFullError) or (
        isinstance(error, ResponseError) and isinstance(_refused(error), LogFullError | LogDownError)
    )


# Appends only if nobody else did since the head was read, so that a relay that slept through a restore can't leave a gap.
_PUBLISH: Final = """
local head = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do if info[i] == 'last-generated-id' then head = info[i + 1] end end
end
if head ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2]) end
for i = 3, #ARGV, 3 do redis.call('XADD', KEYS[1], ARGV[i] .. '-0', 'p', ARGV[i + 1], 'n', ARGV[i + 2], 'h', '0') end
return 1
"""

_RAISE: Final = """
local function parse(id) local ms, seq = string.match(id, '(%d+)-(%d+)'); return tonumber(ms), tonumber(seq) end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'made', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'made')
end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local head
for i = 1, #info, 2 do if info[i] == 'last-generated-id' then head = info[i + 1] end end
local ms, seq = parse(head)
local want_ms, want_seq = parse(ARGV[1])
if ms < want_ms or (ms == want_ms and seq < want_seq) then redis.call('XSETID', KEYS[1], ARGV[1]) end
return 1
"""

_BACKLOG: Final = """
local pending = {}
local from = '(' .. ARGV[1]
while true do
  local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 64)
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    local n, h = 0, '0'
    for i = 1, #fields, 2 do
      if fields[i] == 'n' then n = tonumber(fields[i + 1]) elseif fields[i] == 'h' then h = fields[i + 1] end
    end
    pending[h] = (pending[h] or 0) + n
    from = '(' .. entry[1]
  end
end
local flat = {}
for h, n in pairs(pending) do flat[#flat + 1] = h; flat[#flat + 1] = n end
return {redis.call('HGETALL', KEYS[2]), flat, redis.call('GET', KEYS[3]) or '0-0'}
"""

_RESET: Final = """
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""

_OUT_OF_MEMORY: Final = ("OOM ", "EXECABORT")
_NOT_WRITABLE: Final = ("MISCONF", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "UNKILLABLE", "BUSY")


def _refused(error: Exception) -> Exception:
    """The error in the log's own terms, for what Redis refuses to write."""
    text = str(error)
    if text.startswith(_NOT_WRITABLE) or "MISCONF" in text:
        return LogDownError(text.split(" ", 1)[0])
    if text.startswith(_OUT_OF_MEMORY) or "OOM " in text or "used memory > 'maxmemory'" in text or "command not allowed when used memory" in text:
        return LogFullError("the log is full")
    return error


class RedisLog:
    """`StreamLog` on one Redis (or a Redis Cluster's node for these partitions)."""

    def __init__(self, redis: Redis, appending: BlockingConnectionPool, floors: Floors | None) -> None:
        self._redis = redis
        self._appending = appending
        self._floors = floors
        self._reconciled: object = None
        self._publish = redis.register_script(_PUBLISH)
        self._raise = redis.register_script(_RAISE)
        self._reset = redis.register_script(_RESET)
        self._backlog = redis.register_script(_BACKLOG)

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

    async def fix_partitions(self, topic: str, partitions: int) -> None:
        """Writes the number of partitions down at the first start.

        Raises:
            ValueError: the topic was started with another number; its messages would be found in the wrong places.
        """
        name = f"pmp:{topic}:partitions"
        await self._redis.set(name, partitions, nx=True)
        known = int(await self._redis.get(name) or partitions)
        if known != partitions:
            message = f"topic {topic!r} has {known} partitions, and PMP_LOG_PARTITIONS says {partitions}"
            raise ValueError(message)

    async def append(self, topic: str, appends: Sequence[Append]) -> Sequence[Exception | None]:
        # One MULTI per partition, since partitions may live on different nodes; all of them in one round trip.
        commands: list[tuple[Any, ...]] = []
        ends: list[int] = []
        for item in appends:
            books = key(topic, item.partition, "books")
            commands.append(("MULTI",))
            commands.append(("HSETNX", books, "epoch", secrets.token_hex(8)))
            commands.extend(
                ("XADD", key(topic, item.partition, "log"), "*", "p", pack, "n", count, "h", item.hour) for pack, count in item.packs
            )
            commands.extend(("HINCRBY", books, f"{name}:{item.hour}", count) for name, count in item.counters.items() if count)
            commands.append(("EXEC",))
            ends.append(len(commands) - 1)
        connection = await self._appending.get_connection()
        try:
            if self._floors and self._reconciled is not connection.pmp_session:
                await reconcile(self, await self._floors())
                self._reconciled = connection.pmp_session
            await connection.send_packed_command(connection.pack_commands(commands))
            answers: list[Any] = []
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            # Some answers are still under way: nobody else may read them.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._appending.release(connection)
        return [_verdict(answers[end]) for end in ends]

    async def read(self, topic: str, partition: int, after: Position, *, limit: int, block_ms: int) -> Sequence[Entry]:
        found: Any = await self._redis.xread({key(topic, partition, "log"): str(after)}, count=limit, block=block_ms or None)
        streams = list(found.values()) if isinstance(found, dict) else [entries for _, entries in found or ()]
        return [
            Entry(Position.parse(name.decode()), fields[b"p"], int(fields[b"n"]), int(fields[b"h"]))
            for entries in streams
            for name, fields in (entries[0] if entries and isinstance(entries[0], list) else entries)
        ]

    async def head(self, topic: str, partition: int) -> Position:
        try:
            info: dict[str, Any] = await self._redis.xinfo_stream(key(topic, partition, "log"))
        except ResponseError as error:
            if "no such key" in str(error):
                return START
            raise
        return Position.parse(_text(info["last-generated-id"]))

    async def publish(self, topic: str, partition: int, *, head: Position, packs: Sequence[tuple[int, bytes, int]]) -> bool:
        first = packs[0][0]
        trimmed = "" if first == head.ms + 1 else f"{first - 1}-0"
        arguments = [argument for position, pack, count in packs for argument in (position, pack, count)]
        keys = [key(topic, partition, "log"), key(topic, partition, "trimmed")]
        return bool(await self._publish(keys=keys, args=[str(head), trimmed, *arguments]))

    async def raise_head(self, topic: str, partition: int, position: Position) -> None:
        await self._raise(keys=[key(topic, partition, "log")], args=[str(position)])

    async def trim(self, topic: str, partition: int, through: Position) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xtrim(key(topic, partition, "log"), minid=str(Position(through.ms, through.seq + 1)), approximate=False)
            pipe.set(key(topic, partition, "trimmed"), str(through))
            await pipe.execute()

    async def trimmed(self, topic: str, partition: int) -> Position:
        value = await self._redis.get(key(topic, partition, "trimmed"))
        return Position.parse(_text(value)) if value else START

    async def counters(self, topic: str, partition: int) -> Counters:
        fields: Any = await self._redis.hgetall(key(topic, partition, "books"))
        return _counters(fields)

    async def reset_counters(self, topic: str, partition: int, epoch: str) -> None:
        await self._reset(keys=[key(topic, partition, "books")], args=[epoch])

    async def backlog(self, topic: str, partition: int, after: Position) -> Backlog:
        keys = [key(topic, partition, name) for name in ("log", "books", "trimmed")]
        flat, pending, trimmed = await self._backlog(keys=keys, args=[str(after)])
        return Backlog(
            counters=_counters(dict(zip(flat[::2], flat[1::2], strict=True))),
            pending={int(hour): int(count) for hour, count in zip(pending[::2], pending[1::2], strict=True)},
            trimmed=Position.parse(_text(trimmed)),
        )

    async def forget_counters(self, topic: str, partition: int, names: Sequence[tuple[str, int]]) -> None:
        """Drops counters (name, hour) that are copied and can't move any more."""
        if names:
            await self._redis.hdel(key(topic, partition, "books"), *(f"{name}:{hour}" for name, hour in names))

    async def size_bytes(self, topic: str, partition: int) -> int:
        """Memory of one partition's stream."""
        return int(await self._redis.memory_usage(key(topic, partition, "log"), samples=5) or 0)


class _Session(Connection):
    """A connection that says when it is a new one."""

    pmp_session: object = None

    @override
    async def on_connect(self) -> None:
        await super().on_connect()
        self.pmp_session = object()


class _UnixSession(UnixDomainSocketConnection):
    pmp_session: object = None

    @override
    async def on_connect(self) -> None:
        await super().on_connect()
        self.pmp_session = object()


@asynccontextmanager
async def open_log(url: str, *, floors: Floors | None = None) -> AsyncGenerator[RedisLog]:
    """Opens the log at `url`, lazily.

    Before the first append on each new connection the log is reconciled with `floors`; while those can't be read, nothing
    is appended. Nothing is repeated behind the caller's back: a broken connection is an error, since what was sent may
    have happened.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": 5,
        "socket_timeout": 10,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }
    reading = Redis.from_url(url, max_connections=256, **options)
    session = _UnixSession if url.startswith("unix:") else _Session
    appending = BlockingConnectionPool.from_url(url, connection_class=session, max_connections=1, timeout=10, **options)
    try:
        yield RedisLog(reading, appending, floors)
    finally:
        await appending.disconnect()
        await reading.aclose()


def _verdict(answer: object) -> Exception | None:
    """What became of one MULTI: an error of EXEC itself, or of a command in it."""
    if isinstance(answer, Exception):
        return _refused(answer)
    failed = next((item for item in answer if isinstance(item, Exception)), None) if isinstance(answer, list) else None
    return _refused(failed) if failed else None


def _counters(fields: Mapping[bytes, bytes]) -> Counters:
    counts: dict[tuple[str, int], int] = {}
    for field, value in fields.items():
        name, _, hour = field.decode().rpartition(":")
        if name:
            counts[name, int(hour)] = int(value)
    return Counters(_text(fields.get(b"epoch", b"")), counts)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
