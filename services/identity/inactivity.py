"""Finds persons who become inactive: nothing is reported when nothing happens, so that somebody has to look."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.log.leases import Leases
from kit.log.publish.state_topic import StateTopic
from kit.log.runner import LeasedRunner, unless, wait_until_set
from services.identity.links import user_identifier
from services.identity.repository import Identities
from services.identity.unit_of_work import change_graph

_LOOK_SECONDS: Final = 86400.0
_PORTION: Final = 500
"""Users that one transaction changes: other writers of the graph wait for it."""


class Inactivity:
    """Marks users whose person was last active long ago, and publishes them. What a person does afterwards takes the mark away.

    Args:
        topic: on which changed users are published.
        after: how long ago that is.
    """

    def __init__(self, sessions: Sessions, topic: StateTopic, after: timedelta) -> None:
        self._sessions = sessions
        self._topic = topic
        self._after = after

    async def run(self, leases: Leases) -> None:
        """Looks once a day and at each start until cancelled, in the process that holds the lease."""
        await LeasedRunner(leases).run(self._work)

    async def _work(self, _partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        await unless(stop, self.look(datetime.now(UTC)))
        await wait_until_set(stop, _LOOK_SECONDS)
        return {}

    async def look(self, now: datetime) -> int:
        """Brings all marks up to date, in batches, each in a transaction of its own; returns how many users were looked at."""
        looked_at = 0
        while some := await transact(self._sessions, lambda session: self._mark(session, now - self._after), follows=True):
            self._topic.wake()
            looked_at += some
        return looked_at

    async def _mark(self, session: AsyncSession, since: datetime) -> int:
        if not await Identities(session).wrongly_active(since, 1):
            return 0  # without the lock of the graph, as on most days
        async with change_graph(session, self._topic) as graph:
            rows = await graph.users.load([row.id for row in await graph.identities.wrongly_active(since, _PORTION)])
            if unknown := [row for row in rows if row.last_active_at is None]:
                for row in unknown:
                    graph.affect(user_identifier(row.id))
                await graph.settle()
            for row in rows:
                row.inactive = row.last_active_at is not None and row.last_active_at < since
            await graph.settle()
        return len(rows)
