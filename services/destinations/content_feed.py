"""Follows the feed of content, for destinations that want to know when it changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from pmp.analytics.v1.courses_pb2 import ListContentChangesResponse
from pmp.destinations.v1.notice_pb2 import ContentPerformanceUpdated
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from services.destinations.consumers import Decisions
from services.destinations.mesh_client import MeshClient
from services.destinations.notice_store import ContentCursor


class ContentFeed:
    """Makes a notice of each row of content that has changed, in the transaction that stores how far the feed was read.

    What changed before a destination first wanted it, and what is only computed anew, makes none.
    """

    def __init__(self, sessions: Sessions, decisions: Decisions, mesh: MeshClient) -> None:
        self._sessions = sessions
        self._decisions = decisions
        self._mesh = mesh

    async def look(self, now: datetime) -> None:
        """Reads what has changed.

        Raises:
            Unavailable: analytics does not answer.
        """
        async with self._sessions.reading() as session:
            cursor = await ContentCursor(session).get()
        is_new, has_more = not cursor, True
        while has_more:
            answer = await self._mesh.content_changes(cursor)
            is_new, has_more = is_new or answer.restarted, answer.has_more
            # What is passed over is passed over as a whole: after a crash it is again.
            if answer.cursor != cursor and not (is_new and has_more):
                await self._store(answer.cursor, [] if is_new else _notices(answer, now))
            cursor = answer.cursor

    async def _store(self, cursor: str, notices: Sequence[tuple[str, ContentPerformanceUpdated]]) -> None:
        async def store(session: AsyncSession) -> None:
            await ContentCursor(session).set(cursor)
            await self._decisions.add(session, notices)

        await transact(self._sessions, store, follows=True)


def _notices(answer: ListContentChangesResponse, now: datetime) -> Sequence[tuple[str, ContentPerformanceUpdated]]:
    at = Timestamp()
    at.FromDatetime(now)
    return [
        (
            f"content:{answer.cursor}:{number}",
            ContentPerformanceUpdated(at=at, day=change.day, performance=change.performance, currency=answer.currency),
        )
        for number, change in enumerate(answer.changes)
        if not change.removed
    ]
