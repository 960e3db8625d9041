"""Deletes rows that are older than they may be kept, a little at a time, so that nobody waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Table, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.log.publish.state_topic import StateTopic
from kit.people.subjects.data import among
from kit.people.subjects.holdings import After, Ages, Part, PersonalTable, Row, Tell
from kit.server import run_every
from kit.settings import Settings, WrongSetting

_LOOK_SECONDS: Final = 600.0
_PORTION: Final = 500


@dataclass(frozen=True, slots=True)
class Expiry:
    """A table whose rows grow old."""

    table: Table
    ages: Ages
    kept: timedelta | None = None
    """How long, where the settings say nothing; None for ever."""
    told: Tell | None = None
    """What the service's topic told of a row, and tells no more once it is gone."""
    parts: Sequence[Part] = ()
    """Tables whose rows go with theirs."""


def expiries(holdings: Sequence[PersonalTable], kept: Mapping[str, timedelta] | None = None) -> list[Expiry]:
    """Those of a service's tables that grow old, with how long they are kept by themselves."""
    return [Expiry(each.table, each.ages, (kept or {}).get(each.table.name), each.told, each.parts) for each in holdings if each.ages]


class Retention:
    """Looks after the tables of a service.

    Args:
        settings: `site_retention_tables` goes before what the tables say themselves.
        topic: what the service publishes, if it keeps its history.
        after: what else follows from deleted rows, by table.

    Raises:
        WrongSetting: they name a table of this service that is not there or does not grow old.
    """

    def __init__(
        self,
        settings: Settings,
        service: str,
        sessions: Sessions,
        tables: Sequence[Expiry],
        topic: StateTopic | None = None,
        *,
        after: Mapping[str, After] | None = None,
    ) -> None:
        set_ = {name.partition(".")[2]: kept for name, kept in settings.site_retention_tables.items() if name.startswith(f"{service}.")}
        if unknown := set_.keys() - {each.table.name for each in tables}:
            known = ", ".join(f"{service}.{each.table.name}" for each in tables) or "none"
            message = f"PMP_SITE_RETENTION_TABLES: {service}.{min(unknown)} does not grow old; of {service} these do: {known}"
            raise WrongSetting(message)
        self._sessions = sessions
        self._topic = topic
        self._after = after or {}
        self._kept = [(each, kept) for each in tables if (kept := set_.get(each.table.name, each.kept)) is not None]

    async def run(self) -> None:
        """Looks every ten minutes, until cancelled."""
        await run_every(lambda: self.look(datetime.now(UTC)), _LOOK_SECONDS, "nothing expired")

    async def look(self, now: datetime) -> Mapping[str, int]:
        """Deletes all that is too old, in portions, each in a transaction of its own; says how many rows by table."""
        gone: dict[str, int] = {}
        for each, kept in self._kept:

            async def work(session: AsyncSession, each: Expiry = each, before: datetime = now - kept) -> int:
                return await self._expire(session, each, before)

            gone[each.table.name] = 0
            while some := await transact(self._sessions, work, follows=True):
                gone[each.table.name] += some
        return gone

    async def _expire(self, session: AsyncSession, each: Expiry, before: datetime) -> int:
        oldest = select(each.table).order_by(each.table.c[each.ages.by or each.ages.column]).limit(_PORTION)
        if not each.ages.by:
            oldest = oldest.where(each.table.c[each.ages.column] < before)
        rows: list[Row] = [dict(row) for row in (await session.execute(oldest)).mappings() if row[each.ages.column] < before]
        if rows:
            for part in each.parts:
                (key,) = each.table.primary_key
                await session.execute(delete(part.table).where(part.table.c[part.key].in_([row[key.name] for row in rows])))
            await session.execute(delete(each.table).where(among(each.table, rows)))
            if each.table.name in self._after:
                await self._after[each.table.name](session, rows)
        if self._topic is not None and (each.told is not None or each.ages.key):
            told = [each.told(row) for row in rows] if each.told else [(row[each.ages.key], None) for row in rows]
            await self._topic.forget(session, [tell[0] for tell in told if tell is not None])
        return len(rows)
