"""SQL of what leads to courses, and of their titles."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks
from services.analytics.counts import COURSE, NAMES, Content
from services.analytics.days import Period
from services.analytics.models import content, courses, revenue, traffic
from services.analytics.reading import BY_KEYS, read_of, summed, within


@cache
def _content(dialect: str, *, of_one: bool) -> Select[*tuple[Any, ...]]:
    columns = (content.c.dimension, content.c.course, content.c.value)
    query = select(*columns, *(summed(content.c[name], content) for name in NAMES[Content])).group_by(*columns)
    query = query.where(content.c.dimension.in_(bindparam("dimensions", expanding=True)), within(content, dialect))
    query = query.where(content.c.course == bindparam("course")) if of_one else query
    return query.with_hint(content, BY_KEYS, "mysql")


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
        query = _content(self._session.get_bind().dialect.name, of_one=bool(course))
        rows: Any = await self._session.execute(query, {**read_of(period), "dimensions": dimensions, "course": course})
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
