"""Examines the log: whether the books balance, everything that follows it makes progress, and no message waits for a decision."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from time import time
from typing import Any, Final, NamedTuple

from sqlalchemy import select

from cli.doctor.findings import Finding
from cli.doctor.subject import Subject
from cli.pod import ask_for_books
from kit.database.engine import Database
from kit.log.consume import dead_letters as letters
from kit.log.leases import members_key
from kit.log.redis_log import RedisLog
from kit.log.streams import Offset
from kit.log.tables import books as books_table
from kit.log.tables import offsets, outbox_heads

_PROGRESS_SECONDS: Final = 2.0
_MANY: Final = 10_000
_FOLLOWED_SECONDS: Final = 86_400.0
"""A service whose processes have not followed a topic for so long does not follow it any more."""
_TROUBLE: Final = "its log says why: `partition waits` or `partition halted` (docs/operations.md, Troubleshooting)"


class _Stream(NamedTuple):
    """What a service reads of one partition, or publishes to it."""

    service: str
    work: str
    partition: int


class _Waiting(NamedTuple):
    """What waits in it."""

    position: str
    """Where the service is: it moves as long as the service works."""
    messages: int


async def books(subject: Subject) -> AsyncIterator[Finding]:
    """Finds books that do not balance."""
    found = await ask_for_books(subject.settings)
    if not found.balanced:
        what = f"the log lost {found.total.missing:,} events that it had confirmed"
        yield Finding(what=what, action="`pmp books --lost` names their senders: have them sent again with the same ids")


async def dead_letters(subject: Subject) -> AsyncIterator[Finding]:
    """Finds messages that were set aside and wait for a decision."""
    for service, database in subject.databases.items():
        async with database.sessions.reading() as session:
            count = await letters.count(session)
        if count:
            action = f"`pmp dead-letters list {service}` says why; then `pmp dead-letters retry` or `drop` them"
            yield Finding(what=f"{count:,} messages that {service} could not apply wait for a decision", action=action)
    subject.mention_denied()


async def progress(subject: Subject) -> AsyncIterator[Finding]:
    """Finds services that stand still before messages that wait for them, and those that are far from caught up."""
    before = after = await _waiting(subject)
    if before:
        await asyncio.sleep(_PROGRESS_SECONDS)
        after = await _waiting(subject)
    late: dict[tuple[str, str], int] = defaultdict(int)
    still: dict[tuple[str, str], int] = defaultdict(int)
    for stream, waiting in after.items():
        stands = stream in before and before[stream].position == waiting.position
        (still if stands else late)[stream.service, stream.work] += waiting.messages
    for (service, work), count in still.items():
        yield Finding(
            what=f"{service} does not go on {work}: {count:,} wait, and nothing moved for {_PROGRESS_SECONDS:g} s", action=_TROUBLE
        )
    for (service, work), count in late.items():
        if count > _MANY and (service, work) not in still:
            action = "it catches up by itself; if it takes long, give it more processors or replicas (docs/performance.md)"
            yield Finding(what=f"{service} is late {work}: {count:,} wait", action=action)
    subject.mention_denied()


async def _waiting(subject: Subject) -> Mapping[_Stream, _Waiting]:
    """Returns the partitions in which something waits."""
    found: dict[_Stream, _Waiting] = {}
    for service, database in subject.databases.items():
        found |= await _unread(service, database, subject.log)
        found |= await _unpublished(service, database, subject.log)
    return found


async def _unread(service: str, database: Database, log: RedisLog) -> Mapping[_Stream, _Waiting]:
    async with database.sessions.reading() as session:
        raw = set(await session.scalars(select(books_table.c.topic).distinct()))
        rows = (await session.execute(select(offsets))).all()
    followed = {topic for topic in {row.topic for row in rows} if topic in raw or await _is_followed(service, topic, log)}
    found: dict[_Stream, _Waiting] = {}
    for row in rows:
        if row.topic not in followed:
            continue
        offset = Offset.parse(row.position)
        if row.topic in raw:
            count = sum((await log.backlog(row.topic, row.partition, offset)).pending.values())
        else:
            count = (await log.head(row.topic, row.partition)).ms - offset.ms
        if count > 0:
            found[_Stream(service, f"reading {row.topic}", row.partition)] = _Waiting(row.position, count)
    return found


async def _unpublished(service: str, database: Database, log: RedisLog) -> Mapping[_Stream, _Waiting]:
    async with database.sessions.reading() as session:
        rows = (await session.execute(select(outbox_heads))).all()
    found: dict[_Stream, _Waiting] = {}
    for row in rows:
        head = await log.head(row.topic, row.partition)
        if row.position > head.ms:
            found[_Stream(service, f"publishing {row.topic}", row.partition)] = _Waiting(str(head), row.position - head.ms)
    return found


async def _is_followed(service: str, topic: str, log: RedisLog) -> bool:
    redis: Any = log.redis
    return bool(await redis.zcount(members_key(topic, service), time() - _FOLLOWED_SECONDS, "+inf"))
