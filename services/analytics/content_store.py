"""SQL of what leads to courses, and of their titles."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks
from services.analytics.counts import COURSE, NAMES, Content
from services.analytics.days import Period
from services.analytics.models import content, courses, revenue, traffic
from services.analytics.repository import BY_KEYS

_OF_ALL: Final = (
    select(content.c.dimension, content.c.course, content.c.value, *(func.sum(content.c[name]) for name in NAMES[Content]))
    .where(content.c.dimension.in_(bindparam("dimensions", expanding=True)), content.c.day.in_(bindparam("keys", expanding=True)))
    .group_by(content.c.dimension, content.c.course, content.c.value)
    .with_hint(content, BY_KEYS, "mysql")
)
_OF_ONE: Final = _OF_ALL.where(content.c.course == bindparam("course"))


class ContentOf(NamedTuple):
    """What led to a course."""

    dimension: str
    course: str
    value: str


class ContentReading:
    """Reads totals of content, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def content(self, period: Period, dimensions: Sequence[str], course: str = "") -> Mapping[ContentOf, Content]:
        """Returns what led to courses in a period; of one course only, unless that is empty."""
        query = _OF_ONE if course else _OF_ALL
        rows: Any = await self._session.execute(query, {"dimensions": dimensions, "keys": period.keys_of_totals(), "course": course})
        return {ContentOf(*row[:3]): Content(*map(int, figures)) for row in rows if any(figures := row[3:])}

    async def titles(self, ids: Collection[str]) -> Mapping[str, str]:
        """Returns the titles of courses."""
        found: dict[str, str] = {}
        for some in chunks(ids):
            rows = await self._session.execute(select(courses).where(courses.c.course_id.in_(some)))
            found |= {row.course_id: row.title for row in rows}
        return found

    async def is_known(self, course: str) -> bool:
        """True if anything ever happened to a course. Months are read, of which there are few."""
        for table in (traffic, revenue):
            months = select(table.c.day).where(table.c.dimension == COURSE, table.c.day < 0, table.c.value == course)
            if await self._session.scalar(months.limit(1)) is not None:
                return True
        return False
