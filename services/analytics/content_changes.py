"""The feed of changes of content: each row of a day has the version of its last change, and versions are in the order of commits.

The transaction that changes a row numbers the change, and holds the row that counts versions until it ends. So whoever has read up to a
version has missed none before it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import rowcount, upsert
from services.analytics.counts import CAMPAIGN, LANDING, NAMES, VIDEO, Content, ContentKey, named
from services.analytics.models import content, content_changes, content_feed, content_removals

LISTED: Final = (LANDING, VIDEO, CAMPAIGN)
"""The kinds of content that are listed unless another one is asked for, and whose changes are."""

_KEY: Final = ("dimension", "day", "course", "value")
_THE_FEED: Final = content_feed.c.id == 1
_OF_CONTENT: Final = and_(*(content_changes.c[name] == content.c[name] for name in _KEY))
_CHANGES: Final = select(content_changes, *(content.c[name] for name in NAMES[Content])).join(content, _OF_CONTENT, isouter=True)


class Change(NamedTuple):
    """The current state of a row of content, or its removal."""

    version: int
    id: int
    key: ContentKey | None
    """None for a row that is gone."""
    figures: Content


class ContentChanges:
    """Numbers the changes of content, and reads them, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, changed: Mapping[ContentKey, Content]) -> None:
        """Numbers what was counted to rows of content."""
        keys = sorted(key for key, figures in changed.items() if key[0] in LISTED and any(named(figures).values()))
        if keys:
            first = await self._take(len(keys))
            rows = [
                {**dict(zip(_KEY, key, strict=True)), "id": version, "version": version} for version, key in enumerate(keys, start=first)
            ]
            await upsert(self._session, content_changes, rows, ["version"])

    async def remove(self, keys: Iterable[ContentKey]) -> None:
        """Numbers the removal of those rows of content that no longer exist."""
        ids: list[int] = []
        for key in keys:
            of_key = [content_changes.c[name] == value for name, value in zip(_KEY, key, strict=True)]
            gone = select(content_changes.c.id).join(content, _OF_CONTENT, isouter=True).where(*of_key, content.c.day.is_(None))
            if (known := await self._session.scalar(gone)) is not None:
                ids.append(known)
                await self._session.execute(delete(content_changes).where(*of_key))
        if ids:
            first = await self._take(len(ids))
            rows = [{"id": known, "version": version} for version, known in enumerate(ids, start=first)]
            await self._session.execute(insert(content_removals), rows)

    async def head(self) -> tuple[str, int]:
        """Returns the epoch of the feed, and the version of the last change; an empty epoch if there was none yet."""
        row = (await self._session.execute(select(content_feed.c.epoch, content_feed.c.version).where(_THE_FEED))).one_or_none()
        return (row.epoch, row.version) if row else ("", 0)

    async def since(self, version: int, most: int) -> Sequence[Change]:
        """Returns the first changes after a version, in order."""
        changed: Any = await self._session.execute(
            _CHANGES.where(content_changes.c.version > version).order_by(content_changes.c.version).limit(most)
        )
        query = select(content_removals).where(content_removals.c.version > version).order_by(content_removals.c.version).limit(most)
        removed = await self._session.execute(query)
        found = [_change(row) for row in changed] + [Change(row.version, row.id, None, Content()) for row in removed]
        return sorted(found, key=itemgetter(0))[:most]

    async def _take(self, count: int) -> int:
        """Returns the first of so many new versions, and holds the feed until the transaction ends."""
        counted = update(content_feed).where(_THE_FEED).values(version=content_feed.c.version + count)
        if not await rowcount(self._session, counted):
            await self._session.execute(insert(content_feed).values(id=1, epoch=secrets.token_hex(8), version=count))
        last = await self._session.scalar(select(content_feed.c.version).where(_THE_FEED))
        return (last or 0) - count + 1


def _change(row: Any) -> Change:
    figures = Content(**{name: int(getattr(row, name) or 0) for name in NAMES[Content]})
    return Change(row.version, row.id, (row.dimension, row.day, row.course, row.value), figures)
