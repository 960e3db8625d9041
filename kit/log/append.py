"""Group-committed append: requests that arrive together share one round trip and one disk sync."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from opentelemetry.trace import SpanKind
from pmp.log.v1 import log_pb2 as pb

from kit.database import is_transient
from kit.errors import LogFull, Unavailable
from kit.log.streams import PACK_BYTES, Append, LogFullError, StreamLog, is_log_outage, partition_of
from kit.telemetry import SpanName, span

_log = structlog.get_logger(__name__)
_GAUGE_SECONDS = 0.5
# A group's round trip stays short, and nobody waits behind more than a few of them.
_GROUP_BYTES = 4 * PACK_BYTES
# Tag and length of a record inside of its pack, at most.
_RECORD_FRAME = 6


@dataclass(slots=True)
class _Request:
    records: Mapping[int, Sequence[bytes]]
    rejected: int
    size: int
    done: asyncio.Future[None]

    @property
    def partitions(self) -> list[int]:
        """Where it is written; what is only counted has to be written somewhere, too."""
        return list(self.records) or [0]


class Appender:
    """Appends messages to the raw log so that they survive the loss of every process before the caller is answered.

    The books of the log move with the entries: `received` counts what callers sent, `rejected` what was refused.
    """

    def __init__(
        self,
        log: StreamLog,
        topic: str,
        partitions: int,
        *,
        max_bytes: int,
        used_bytes: Callable[[], Awaitable[int]],
        linger: float = 0.002,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._topic = topic
        self._partitions = partitions
        self._max_bytes = max_bytes
        self._used_bytes = used_bytes
        self._linger = linger
        self._clock = clock
        self._waiting: list[_Request] = []
        self._arrived = asyncio.Event()
        self._full = False

    async def append(self, records: Sequence[tuple[str, bytes]], *, rejected: int = 0) -> None:
        """Appends messages; returns when they are durable.

        Args:
            records: serialised `pmp.log.v1.Record`s, each with the key that chooses its partition.
            rejected: messages of the same call that are only counted.

        Raises:
            LogFull: the log takes nothing now; nothing was kept.
            Unavailable: the log did not confirm; the caller tries again with the same ids.
        """
        if self._full and records:
            message = "the log is full; try again later"
            raise LogFull(message)
        of_partitions: dict[int, list[bytes]] = defaultdict(list)
        size = 0
        for key, record in records:
            of_partitions[partition_of(key, self._partitions)].append(record)
            size += len(record)
        request = _Request(of_partitions, rejected, size, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._arrived.set()
        with span(SpanName.APPEND, kind=SpanKind.PRODUCER):
            await request.done

    async def run(self) -> None:
        """Commits group after group until cancelled; a group under way is finished first."""
        gauge = asyncio.create_task(self._watch())
        try:
            while True:
                await self._arrived.wait()
                await asyncio.sleep(self._linger)
                commit = asyncio.ensure_future(self._commit(self._group()))
                try:
                    await asyncio.shield(commit)
                except asyncio.CancelledError:
                    await commit
                    raise
        finally:
            gauge.cancel()
            for request in self._waiting:
                _fail(request, Unavailable("the service is shutting down"))

    async def step(self) -> None:
        """Commits what is waiting now."""
        if self._waiting:
            await self._commit(self._group())

    def _group(self) -> list[_Request]:
        taken, size = 0, 0
        for request in self._waiting:
            if taken and size + request.size > _GROUP_BYTES:
                break
            taken, size = taken + 1, size + request.size
        group, self._waiting = self._waiting[:taken], self._waiting[taken:]
        if not self._waiting:
            self._arrived.clear()
        return group

    async def _commit(self, group: Sequence[_Request]) -> None:
        # A caller that went away took its answer with it, not its events: they may be in its own log as sent.
        appends = self._appends(group)
        try:
            verdicts = await self._log.append(self._topic, appends)
        except Exception as error:  # noqa: BLE001 (every failure is an answer to the callers)
            verdicts = [error] * len(appends)
        failed = {item.partition: verdict for item, verdict in zip(appends, verdicts, strict=True) if verdict is not None}
        for verdict in {type(v): v for v in failed.values()}.values():
            _log.warning("append refused", topic=self._topic, error=type(verdict).__name__, partitions=len(failed))
        for request in group:
            broken = next((failed[partition] for partition in request.partitions if partition in failed), None)
            if broken is None:
                if not request.done.done():
                    request.done.set_result(None)
            else:
                _fail(request, _answer(broken))

    def _appends(self, group: Sequence[_Request]) -> list[Append]:
        hour = int(self._clock() // 3600)
        records: dict[int, list[bytes]] = defaultdict(list)
        rejected: dict[int, int] = defaultdict(int)
        for request in group:
            for partition, some in request.records.items():
                records[partition] += some
            if request.rejected:
                rejected[request.partitions[0]] += request.rejected
        return [
            Append(partition, packs(records[partition]), hour, _counts(len(records[partition]), rejected[partition]))
            for partition in records.keys() | rejected.keys()
        ]

    async def _watch(self) -> None:
        """Keeps `_full` true while the log uses more memory than it may."""
        while True:
            try:
                full = await self._used_bytes() > self._max_bytes
            except Exception as error:  # noqa: BLE001 (an unreachable log answers the appends itself)
                _log.debug("log size unknown", error=type(error).__name__)
            else:
                if full != self._full:
                    _log.warning("log full" if full else "log takes events again", topic=self._topic)
                self._full = full
            await asyncio.sleep(_GAUGE_SECONDS)


def packs(records: Sequence[bytes], most: int | None = None) -> list[tuple[bytes, int]]:
    """Serialised `pmp.log.v1.Record`s as packs of at most 512 KiB and so many messages, with the number of messages in each."""
    result: list[tuple[bytes, int]] = []
    pack: list[bytes] = []
    size = 0
    for record in records:
        length = len(record) + _RECORD_FRAME
        if pack and (size + length > PACK_BYTES or len(pack) == most):
            result.append((pb.PackBytes(records=pack).SerializeToString(), len(pack)))
            pack, size = [], 0
        pack.append(record)
        size += length
    if pack:
        result.append((pb.PackBytes(records=pack).SerializeToString(), len(pack)))
    return result


def _counts(taken: int, rejected: int) -> dict[str, int]:
    return {"received": taken + rejected, "rejected": rejected}


def _fail(request: _Request, error: Exception) -> None:
    if not request.done.done():
        request.done.set_exception(error)


def _answer(error: Exception) -> Exception:
    if isinstance(error, LogFullError):
        return LogFull("the log is full; try again later")
    if is_log_outage(error) or is_transient(error) or isinstance(error, OSError):
        return Unavailable("the log did not confirm; try again with the same id")
    return error
