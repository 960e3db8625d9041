"""Derives totals by day from facts, in the transaction that changes a fact.

What the fact counted as before is subtracted, and what it counts as now is added. So totals are always the sum of their facts, whatever
the order of messages, and nothing has to be derived later. Facts that are too old, and those of an erased person, are deleted without
subtracting them: totals stay. But what the erased person saw and came from may identify her, and counts as other before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, CompoundSelect, Integer, bindparam, delete, func, literal, or_, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks, increase, lock_rows, upsert
from kit.people.persons import Persons
from services.analytics import orders, sessions
from services.analytics.cohort_store import change_cohorts, erase_customer
from services.analytics.content_changes import ContentChanges
from services.analytics.counts import HOUR, NAMES, SITE, Content, Counts, Presence, Revenue, Traffic, keys_of_cells, named
from services.analytics.days import Calendar, month_of
from services.analytics.messages import is_session
from services.analytics.models import audiences, content, presences, revenue, traffic
from services.analytics.models import orders as bought
from services.analytics.models import sessions as stored
from services.analytics.sessions import Event, Session

_LOCK: Final = {"audience": "", "day": 0, "previous_day": 0, "members": 0}
"""The row that a transaction locks before it reads facts: of two at once, each would miss the changes of the other."""
_AT_ONCE: Final = 500
_Days: TypeAlias = dict[tuple[str, str], set[int]]
"""The days on which visitors were in audiences."""


def _presences_around(*others: ColumnElement[bool]) -> CompoundSelect[Any, Any, Any, Any, Any]:
    """The presences of visitors from a first to a last day, and of each visitor and audience the day before and the one after these.

    A cell depends on a day and the one before it, so that a change of some days needs no more than that of what may be years.
    """
    day, own = presences.c.day, (presences.c.visitor.in_(bindparam("visitors", expanding=True)), *others)
    first, last = bindparam("first", type_=Integer), bindparam("last", type_=Integer)
    nearest = (
        select(literal("").label("subject"), presences.c.audience, each.label("day"), presences.c.visitor, literal(0).label("count"))
        .where(*own, beyond)
        .group_by(presences.c.audience, presences.c.visitor)
        for each, beyond in ((func.max(day), day < first), (func.min(day), day > last))
    )
    columns = (presences.c.subject, presences.c.audience, day, presences.c.visitor, presences.c.count)
    return union_all(select(*columns).where(*own, day.between(first, last)), *nearest)


_AROUND: Final = _presences_around()
_AROUND_IN: Final = _presences_around(presences.c.audience.in_(bindparam("audiences", expanding=True)))


class Totals:
    """Totals by day, within one transaction.

    Args:
        session: the transaction.
        calendar: assigns times to days.
    """

    def __init__(self, session: AsyncSession, calendar: Calendar) -> None:
        self._session = session
        self.counts = Counts(calendar)
        """What changed facts add, until it is written."""

    async def lock(self) -> None:
        """Waits until no other transaction changes facts and totals."""
        await lock_rows(self._session, audiences, [_LOCK])

    def count(self, carrier: str, events: Session, times: int) -> None:
        """Adds a session, or an event without one, or with -1 subtracts it."""
        if is_session(carrier):
            sessions.count_session(self.counts, carrier, events, times)
            return
        for event in events:
            sessions.count_single(self.counts, event, times)

    def count_order(self, subject: str, visitor: str | None, payload: str, times: int) -> None:
        """Adds an order as it is stored, or with -1 subtracts it, unless it is excluded."""
        order = orders.Order.loads(payload) if payload else None
        if order is not None and not order.excluded:
            orders.count_order(self.counts, order, subject, visitor or "", times)

    def count_registration(self, user_id: str, day: int, times: int) -> None:
        """Adds the registration of a user, or with -1 subtracts it."""
        self.counts.add_traffic(SITE, "", day, Traffic(registrations=1), times)
        self.counts.spending_of(f"user:{user_id}", day).registrations += times

    async def write(self, moved: Collection[str] = ()) -> None:
        """Writes what was counted.

        Args:
            moved: identifiers that lead to another person than before.
        """
        counts = self.counts
        await increase(self._session, traffic, _rows(("dimension", "day", "value"), counts.traffic))
        await increase(self._session, revenue, _rows(("dimension", "day", "value", "currency"), counts.revenue))
        await change_cohorts(self._session, counts.spending, moved)
        await increase(self._session, content, _rows(("dimension", "day", "course", "value"), counts.content))
        await ContentChanges(self._session).add(counts.content)
        changes = {presence: count for presence, count in counts.presences.items() if count}
        if changes or moved:
            await self._change_presences(changes, moved)

    async def remove_zeros(self, values: Collection[tuple[str, str]] | None = None) -> None:
        """Deletes totals to which was counted and that are 0 now, with the texts in them.

        Args:
            values: dimensions and their values to which this is limited; None for all, and for audiences as well.
        """
        counts = self.counts
        for table, kind, keys in (
            (traffic, Traffic, counts.traffic),
            (revenue, Revenue, counts.revenue),
            (content, Content, counts.content),
        ):
            names = [column.name for column in table.primary_key]
            zeros = [table.c[name] == 0 for name in NAMES[kind]]
            value_at = 3 if table is content else 2
            for key in keys:
                if key[0] == HOUR or not (values is None or (key[0], key[value_at]) in values):
                    continue
                of_key = [table.c[name] == value for name, value in zip(names, key, strict=True) if name != "day"]
                days = table.c.day.in_([key[1], month_of(key[1])])
                await self._session.execute(delete(table).where(*of_key, days, *zeros))
        await ContentChanges(self._session).remove(key for key in counts.content if values is None or (key[0], key[3]) in values)
        for some in chunks({audience for audience, _, _ in counts.presences} if values is None else ()):
            await self._session.execute(delete(audiences).where(audiences.c.audience.in_(some), audiences.c.members == 0))

    async def _change_presences(self, changes: Mapping[Presence, int], moved: Collection[str]) -> None:
        subjects = {subject for _, subject, _ in changes} | set(moved)
        people = await Persons(self._session).people(subjects)
        visitor_of = {subject: f"user:{people[subject]}" if subject in people else subject for subject in subjects}
        affected, days = set(visitor_of.values()), {day for _, _, day in changes}
        for visitor, first, last in await self._spans(moved):
            affected.add(visitor)
            days |= {first, last}
        if not days:
            return
        known, nearest = await self._around(affected, None if moved else {audience for audience, _, _ in changes}, min(days), max(days))
        before, after = _days_of([*known.values(), *nearest]), dict(known)
        for (audience, subject, day), change in changes.items():
            row = after.get((subject, audience, day))
            after[subject, audience, day] = _presence(audience, subject, day, visitor_of[subject], (row["count"] if row else 0) + change)
        for key, row in after.items():
            if row["subject"] in visitor_of:
                after[key] = {**row, "visitor": visitor_of[row["subject"]]}
        left = {key: row for key, row in after.items() if row["count"] > 0}
        await self._change_audiences(before, _days_of([*left.values(), *nearest]))
        for some in chunks(known.keys() - left.keys()):
            key = tuple_(presences.c.subject, presences.c.audience, presences.c.day)
            await self._session.execute(delete(presences).where(key.in_(some)))
        await upsert(self._session, presences, [row for key, row in sorted(left.items()) if row != known.get(key)])

    async def _spans(self, subjects: Collection[str]) -> list[tuple[str, int, int]]:
        """Returns the visitors that identifiers stood for so far, with the first and the last day of each as such."""
        found: list[tuple[str, int, int]] = []
        day = presences.c.day
        for some in chunks(subjects):
            query = select(presences.c.visitor, func.min(day), func.max(day)).where(presences.c.subject.in_(some))
            rows: Any = await self._session.execute(query.group_by(presences.c.visitor))
            found += [(visitor, earliest, latest) for visitor, earliest, latest in rows]
        return found

    async def _around(
        self, visitors: Collection[str], audiences_: Collection[str] | None, first: int, last: int
    ) -> tuple[dict[tuple[str, str, int], dict[str, Any]], list[dict[str, Any]]]:
        """Reads presences of visitors in audiences, or with None in all.

        Returns:
            Those from the first to the last day, by primary key; and the nearest ones before and after, without their identifiers.
        """
        found: dict[tuple[str, str, int], dict[str, Any]] = {}
        nearest: list[dict[str, Any]] = []
        query = _AROUND if audiences_ is None else _AROUND_IN
        for some in chunks(visitors):
            parameters = {"visitors": some, "audiences": [*(audiences_ or ())], "first": first, "last": last}
            rows: Any = await self._session.execute(query, parameters)
            for subject, audience, day, visitor, count in rows:
                presence = _presence(audience, subject, day, visitor, count)
                if subject:
                    found[subject, audience, day] = presence
                else:
                    nearest.append(presence)
        return found, nearest

    async def _change_audiences(self, before: _Days, after: _Days) -> None:
        changes: dict[tuple[str, int, int], int] = defaultdict(int)
        changed = [each for each in before.keys() | after.keys() if before.get(each) != after.get(each)]
        for audience, visitor in changed:
            for days, times in ((before, -1), (after, 1)):
                for day, previous in keys_of_cells(days.get((audience, visitor), ())):
                    changes[audience, day, previous] += times
        rows = [
            {"audience": audience, "day": day, "previous_day": previous, "members": change}
            for (audience, day, previous), change in sorted(changes.items())
            if change
        ]
        await increase(self._session, audiences, rows)


async def erase_sessions(calendar: Calendar, session: AsyncSession, identifiers: Sequence[str], _pseudonym: str) -> int:
    """Deletes up to 500 sessions of a person, whose pages and campaigns count as others from then on; returns their number."""
    totals = Totals(session, calendar)
    await totals.lock()
    own = or_(stored.c.carrier.in_(identifiers), stored.c.subject.in_(identifiers))
    rows = (await session.execute(select(stored.c.id, stored.c.carrier, stored.c.payload).where(own).limit(_AT_ONCE))).all()
    for row in rows:
        events = sessions.loads(row.payload)
        totals.count(row.carrier, events, -1)
        totals.count(row.carrier, [sessions.anonymous(event) for event in events], 1)
    await totals.write()
    await totals.remove_zeros()
    await session.execute(delete(stored).where(stored.c.id.in_([row.id for row in rows])))
    return len(rows)


async def erase_orders(calendar: Calendar, session: AsyncSession, identifiers: Sequence[str], pseudonym: str) -> int:
    """Takes a person from up to 500 orders; returns their number. Their campaigns count as others from then on."""
    totals = Totals(session, calendar)
    await totals.lock()
    own = or_(*(bought.c[name].in_(identifiers) for name in ("subject", "carrier", "visitor")))
    rows = [dict(row) for row in (await session.execute(select(bought).where(own).limit(_AT_ONCE))).mappings()]
    for row in rows:
        if row["subject"] in identifiers:
            payload = row["payload"] and orders.Order.loads(row["payload"]).anonymous().dumps()
            totals.count_order(row["subject"], row["visitor"], row["payload"], -1)
            totals.count_order(row["subject"], row["visitor"], payload, 1)
            row |= {"subject": pseudonym, "payload": payload}
        row |= {"carrier": None, "visitor": None}
    await totals.write()
    await totals.remove_zeros()
    await upsert(session, bought, rows)
    return len(rows)


async def erase_customer_months(calendar: Calendar, session: AsyncSession, identifiers: Sequence[str], pseudonym: str) -> int:
    """Takes a person from what she bought by month; returns the number of rows. Cohorts stay."""
    await Totals(session, calendar).lock()
    return await erase_customer(session, identifiers, pseudonym)


def merged(known: Iterable[Session], added: Mapping[str, Event], removed: Collection[str], firsts: Collection[str]) -> list[Event]:
    """Returns the events of sessions by their keys, without those removed and with these added.

    Args:
        known: the sessions.
        added: events by key: each replaces the known one with its key.
        removed: keys.
        firsts: keys of those added that are no repetitions: what is known under them is one, and stays.
    """
    events = {event.key: event for session in known for event in session if event.key not in removed}
    return [*{**events, **{key: event for key, event in added.items() if key not in firsts or key not in events}}.values()]


def _rows(names: Sequence[str], figures: Mapping[tuple[Any, ...], Traffic | Revenue | Content]) -> list[dict[str, Any]]:
    """Returns the rows of figures that are not all 0, by primary key: those of hours, of days and of their months."""
    rows = [(key, values) for key, each in figures.items() if any((values := named(each)).values())]
    rows += [((dimension, month_of(day), *others), values) for (dimension, day, *others), values in rows if dimension != HOUR]
    return [{**dict(zip(names, key, strict=True)), **values} for key, values in sorted(rows, key=itemgetter(0))]


def _days_of(rows: Iterable[Mapping[str, Any]]) -> _Days:
    days: _Days = defaultdict(set)
    for row in rows:
        days[row["audience"], row["visitor"]].add(row["day"])
    return days


def _presence(audience: str, subject: str, day: int, visitor: str, count: int) -> dict[str, Any]:
    return {"subject": subject, "audience": audience, "day": day, "visitor": visitor, "count": count}
