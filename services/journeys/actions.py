"""Reads the actions of all people in the order of their time, page by page: what funnels are counted from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Final

import orjson
from sqlalchemy import String, cast, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from kit.people.persons import persons
from services.journeys.models import touchpoints
from services.journeys.repository import BY_TIME, after

_PAGE: Final = 1500
"""So many rows with the longest identifiers stay below the 1 MiB at which MariaDB truncates aggregates (group_concat_max_len)."""


async def steps(
    session: AsyncSession, actions: Collection[str], since: datetime | None, until: datetime
) -> AsyncIterator[Sequence[tuple[str, str, datetime]]]:
    """Yields who did these actions when: (person, action, timestamp), ordered by (timestamp, id), in batches."""
    streams = [_Actions(session, action, since, until) for action in sorted(set(actions))]
    while True:
        for stream in streams:
            await stream.fill()
        # Only up to the first of the pages' ends is the order certain: the next page may have rows that come right after it.
        ends = [stream.rows[-1] for stream in streams if stream.more]
        batch = sorted(row for stream in streams for row in stream.take(min(ends) if ends else None))
        if not batch:
            return
        yield [(person, action, datetime.fromisoformat(f"{at}+00:00")) for at, _, person, action in batch]


class _Actions:
    """All touchpoints of one action ordered by (timestamp, id), read page by page along its index, in constant memory.

    A page is one JSON text, since drivers take longer for a row than databases do.
    """

    def __init__(self, session: AsyncSession, action: str, since: datetime | None, until: datetime) -> None:
        self._session = session
        self._action = action
        self._until = until
        self._from = touchpoints.c.timestamp >= since if since is not None else true()
        self.rows: list[tuple[str, str, str, str]] = []
        """Timestamp, id, person and action of those that were read and not yet taken."""
        self.more = True
        """More pages may follow."""

    async def fill(self) -> None:
        """Reads the next page once all of the last one is taken."""
        if self.rows or not self.more:
            return
        own = (touchpoints.c.action_taken == self._action, touchpoints.c.timestamp < self._until, self._from)
        page = (
            select(touchpoints.c.timestamp, touchpoints.c.id, touchpoints.c.subject).where(*own).order_by(*BY_TIME).limit(_PAGE).subquery()
        )
        person = func.coalesce(persons.c.person_id, page.c.subject)
        entry = func.json_array(cast(page.c.timestamp, String(26)), page.c.id, person)
        is_mysql = self._session.get_bind().dialect.name == "mysql"
        gather = func.json_arrayagg if is_mysql else func.json_group_array
        query = select(gather(entry)).select_from(page.outerjoin(persons, persons.c.subject == page.c.subject))
        found = orjson.loads(await self._session.scalar(query) or "[]")
        self.rows = sorted((at, touchpoint_id, whose, self._action) for at, touchpoint_id, whose in found)
        self.more = len(self.rows) == _PAGE
        if self.more:
            at, last = self.rows[-1][:2]
            self._from = after(datetime.fromisoformat(f"{at}+00:00"), last)

    def take(self, end: tuple[str, ...] | None) -> Sequence[tuple[str, str, str, str]]:
        """Removes and returns the rows up to an end, or all of them."""
        count = len(self.rows) if end is None else bisect_right(self.rows, end)
        taken, self.rows = self.rows[:count], self.rows[count:]
        return taken
