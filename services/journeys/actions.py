"""Reads who did what when, page by page: what funnels are counted from."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, String, func, select, true, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession

from kit.people.persons import persons
from services.journeys.funnel import Actions
from services.journeys.models import touchpoints

PAGE: Final = 1000
"""Identifiers per page."""
_LONGEST: Final = 1_000_000
"""Characters from which a text of moments may have been truncated by MySQL (group_concat_max_len)."""
HELD: Final = 64_000_000
"""Characters of moments that are held at once."""
_MOMENT: Final = type_coerce(touchpoints.c.timestamp, String) + touchpoints.c.id
_PERSON: Final = select(persons.c.person_id).where(persons.c.subject == touchpoints.c.subject).scalar_subquery()


class _Group(NamedTuple):
    """What was done under one identifier: one action, as often as it was done."""

    identifier: str
    person_id: str | None
    """None for an identifier that leads to no person and so stands for itself."""
    moments: str
    """As in `Actions`, separated by commas, in any order."""


async def people(
    session: AsyncSession, actions: Collection[str], since: datetime | None, until: datetime, *, page: int = PAGE, hold: int = HELD
) -> AsyncIterator[Iterable[Actions]]:
    """Yields what each person did, each person once.

    An identifier that leads to no person is complete within a page. The identifiers of a person may lie far apart, so persons are
    held until all is read. If they are too many, half of them is left to another pass, and so on.

    Args:
        session: the transaction.
        actions: the actions that count.
        since: the start of the period; None for none.
        until: its end.
        page: identifiers per page.
        hold: characters of moments that are held at once.
    """
    passes = [(1, 0)]
    while passes:
        modulus, residue = passes.pop()
        is_first = modulus == 1
        held: dict[str, list[tuple[str, str]]] = {}
        size = 0
        async for groups in _pages(session, actions, since, until, page):
            alone: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
            for action, group in groups:
                if group.person_id is None:
                    alone[group.identifier].append((action, group.moments))
                elif hash(group.person_id) % modulus == residue:
                    held.setdefault(group.person_id, []).append((action, group.moments))
                    size += len(group.moments)
            if is_first:
                yield map(_actions, alone.values())
            while size > hold and len(held) > 1:
                passes.append((2 * modulus, residue + modulus))
                modulus *= 2
                held = {person: done for person, done in held.items() if hash(person) % modulus == residue}
                size = sum(len(moments) for done in held.values() for _, moments in done)
        yield map(_actions, held.values())


def _actions(done: Iterable[tuple[str, str]]) -> Actions:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for action, moments in done:
        found[action] += moments.split(",")
    for moments in found.values():
        moments.sort()
    return found


async def _pages(
    session: AsyncSession, actions: Collection[str], since: datetime | None, until: datetime, size: int
) -> AsyncIterator[Sequence[tuple[str, _Group]]]:
    """Yields groups with their actions. All groups of one identifier are in the same page."""
    streams = {action: _Stream(session, action, since, until, size) for action in sorted(set(actions))}
    more = True
    while more:
        for stream in streams.values():
            await stream.fill()
        # Only up to the first of the ends are all groups of an identifier there: the next page may have one right after it.
        ends = [stream.groups[-1].identifier for stream in streams.values() if stream.more]
        end = min(ends) if ends else None
        yield [(action, group) for action, stream in streams.items() for group in stream.take(end)]
        more = bool(ends)


class _Stream:
    """The groups of one action, ordered by identifier, read page by page along its index.

    A group is one row, since drivers take longer for a row than databases do.
    """

    def __init__(self, session: AsyncSession, action: str, since: datetime | None, until: datetime, size: int) -> None:
        self._session = session
        self._size = size
        self._own: list[ColumnElement[bool]] = [touchpoints.c.action_taken == action, touchpoints.c.timestamp < until]
        if since is not None:
            self._own.append(touchpoints.c.timestamp >= since)
        self._rest: ColumnElement[bool] = true()
        """Selects what was not read yet."""
        self.groups: list[_Group] = []
        """Those that were read and not yet taken."""
        self.more = True
        """More pages may follow."""

    async def fill(self) -> None:
        """Reads the next page once all of the last one is taken."""
        if self.groups or not self.more:
            return
        query = (
            select(touchpoints.c.subject, _PERSON, func.aggregate_strings(_MOMENT, ","))
            .where(*self._own, self._rest)
            .group_by(touchpoints.c.subject)
            .order_by(touchpoints.c.subject)
            .limit(self._size)
        )
        found = [_Group(*row) for row in await self._session.execute(query)]
        self.groups = [group if len(group.moments) < _LONGEST else await self._whole(group) for group in found]
        self.more = len(found) == self._size
        if found:
            self._rest = touchpoints.c.subject > found[-1].identifier

    def take(self, end: str | None) -> Sequence[_Group]:
        """Removes and returns the groups of identifiers up to an end, or all of them."""
        count = len(self.groups) if end is None else bisect_right(self.groups, end, key=lambda group: group.identifier)
        taken, self.groups = self.groups[:count], self.groups[count:]
        return taken

    async def _whole(self, group: _Group) -> _Group:
        moments = await self._session.scalars(select(_MOMENT).where(*self._own, touchpoints.c.subject == group.identifier))
        return group._replace(moments=",".join(moments))
