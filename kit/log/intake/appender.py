"""Group-committed append: requests that arrive together share one round trip and one disk sync."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from opentelemetry.trace import SpanKind

from kit.errors import LogFull, Unavailable
from kit.log.intake.account import NO_SENDER, Account, Sender, Share
from kit.log.intake.disk import LogDisk
from kit.log.packs import PACK_BYTES, packs
from kit.log.streams import Append, OutOfTurnError, StreamLog, partition_of
from kit.outages import LOG_FULL, refusal_of
from kit.telemetry.names import SpanName
from kit.telemetry.tracing import span

_log = structlog.get_logger(__name__)
_GAUGE_SECONDS = 0.5
# A group's round trip stays short, and no caller waits for more than a few of them.
_GROUP_BYTES = 4 * PACK_BYTES
_DISK_FULL = "the disk of the log is nearly full; try again later"


@dataclass(slots=True)
class _Request:
    records: Mapping[int, Sequence[bytes]]
    ids: Mapping[int, Sequence[str]]
    sender: Sender
    rejected: int
    size: int
    done: asyncio.Future[None]

    @property
    def partitions(self) -> list[int]:
        """The partitions it is written to; what is only counted has to be written to one as well."""
        return list(self.records) or [0]


class Appender:
    """Appends messages to the raw log; once the caller is answered they survive the loss of any process.

    The books of the log move with the entries: `received` counts what callers sent, `rejected` what was refused.

    Args:
        account: records what this process appended, so that it is known even when the log loses it.
    """

    def __init__(
        self,
        log: StreamLog,
        topic: str,
        partitions: int,
        account: Account,
        *,
        max_bytes: int,
        used_bytes: Callable[[], Awaitable[int]],
        disk: LogDisk | None = None,
        linger: float = 0.002,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._topic = topic
        self._partitions = partitions
        self._account = account
        self._max_bytes = max_bytes
        self._used_bytes = used_bytes
        self._disk = disk
        self._linger = linger
        self._clock = clock
        self._waiting: list[_Request] = []
        self._arrived = asyncio.Event()
        self._full = ""

    async def append(
        self, records: Sequence[tuple[str, bytes]], *, rejected: int = 0, ids: Sequence[str] = (), sender: Sender = NO_SENDER
    ) -> None:
        """Appends messages; returns when they are durable.

        Args:
            records: serialised `pmp.log.v1.Record`s, each with the key that chooses its partition.
            rejected: messages of the same call that are only counted.
            ids: the sender's ids of the records.
            sender: the caller.

        Raises:
            LogFull: the log accepts nothing now; nothing was kept.
            Unavailable: the log did not confirm; the caller retries with the same ids.
        """
        if self._full and records:
            raise LogFull(self._full)
        of_partitions: dict[int, list[bytes]] = defaultdict(list)
        ids_of_partitions: dict[int, list[str]] = defaultdict(list)
        size = 0
        for index, (key, record) in enumerate(records):
            partition = partition_of(key, self._partitions)
            of_partitions[partition].append(record)
            if ids:
                ids_of_partitions[partition].append(ids[index])
            size += len(record)
        request = _Request(of_partitions, ids_of_partitions, sender, rejected, size, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._arrived.set()
        with span(SpanName.APPEND, kind=SpanKind.PRODUCER):
            await request.done

    async def run(self) -> None:
        """Commits group after group until cancelled; a group under way is finished first."""
        gauge = asyncio.create_task(self._watch())
        account = asyncio.create_task(self._account.run())
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
            account.cancel()
            await asyncio.wait([account])

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
        # The events of a caller that went away are still appended: its own log may have them as sent.
        failed = await self._write(self._shares(group))
        for error in {type(e): e for e in failed.values()}.values():
            _log.warning("append refused", topic=self._topic, error=type(error).__name__, partitions=len(failed))
        for request in group:
            broken = next((failed[partition] for partition in request.partitions if partition in failed), None)
            if broken is None:
                if not request.done.done():
                    request.done.set_result(None)
            else:
                _fail(request, _answer(broken))

    async def _write(self, shares: Sequence[Share]) -> Mapping[int, Exception]:
        """Appends, and returns the errors by partition. An append that finds another one before it is repeated once."""
        failed = await self._once(shares)
        again = [share for share in shares if isinstance(failed.get(share.partition), OutOfTurnError)]
        if again:
            for share in again:
                del failed[share.partition]
            failed |= await self._once(again)
        return failed

    async def _once(self, shares: Sequence[Share]) -> dict[int, Exception]:
        try:
            await self._account.look_up()
        except Exception as error:  # noqa: BLE001 (every failure is an answer to the callers)
            return {share.partition: error for share in shares}
        appends = [self._append(share) for share in shares]
        try:
            verdicts = await self._log.append(self._topic, appends)
        except Exception as error:  # noqa: BLE001 (the same)
            verdicts = [error] * len(shares)
        for share, verdict in zip(shares, verdicts, strict=True):
            self._account.settle(share, verdict)
        return {share.partition: verdict for share, verdict in zip(shares, verdicts, strict=True) if verdict is not None}

    def _append(self, share: Share) -> Append:
        turn = self._account.turn(share)
        return Append(share.partition, packs(share.records), share.hour, share.counters, turn)

    def _shares(self, group: Sequence[_Request]) -> Sequence[Share]:
        hour = int(self._clock() // 3600)
        shares: dict[int, Share] = {}
        for request in group:
            for partition, records in request.records.items():
                share = shares.setdefault(partition, Share(partition, hour))
                share.records += records
                if request.ids:
                    share.ids.append((request.sender, request.ids[partition]))
            if request.rejected:
                partition = request.partitions[0]
                shares.setdefault(partition, Share(partition, hour)).rejected += request.rejected
        return list(shares.values())

    async def _watch(self) -> None:
        """Keeps in `_full` why the log accepts nothing: it uses more memory than it may, or its disk is nearly full."""
        while True:
            try:
                full = await self._why_full()
            except Exception as error:  # noqa: BLE001 (an unreachable log answers the appends itself)
                _log.debug("log size unknown", error=type(error).__name__)
            else:
                if full != self._full:
                    _log.warning("log full" if full else "log takes events again", topic=self._topic, reason=full)
                self._full = full
            await asyncio.sleep(_GAUGE_SECONDS)

    async def _why_full(self) -> str:
        """The message for callers; empty while the log accepts events."""
        if self._disk is not None and self._disk.is_low():
            return _DISK_FULL
        return LOG_FULL if await self._used_bytes() > self._max_bytes else ""


def _fail(request: _Request, error: Exception) -> None:
    if not request.done.done():
        request.done.set_exception(error)


def _answer(error: Exception) -> Exception:
    return refusal_of(error, "the log did not confirm; try again with the same id") or error
