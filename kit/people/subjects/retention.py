"""Deletes rows after their retention period, in small batches, so that no other transaction waits for long."""

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
from kit.people.subjects.personal_tables import After, Ages, Part, PersonalTable, Publication, Row
from kit.server import run_every
from kit.settings import Settings, WrongSetting

_LOOK_SECONDS: Final = 600.0
_PORTION: Final = 500


@dataclass(frozen=True, slots=True)
class Expiry:
    """A table whose rows expire."""

    table: Table
    ages: Ages
    kept: timedelta | None = None
    """The retention period without a setting; None to keep rows forever."""
    publication: Publication | None = None
    """What the topic published for a row; the key is removed with the row."""
    parts: Sequence[Part] = ()
    """Tables whose rows are deleted with theirs."""


def expiries(tables: Sequence[PersonalTable], kept: Mapping[str, timedelta] | None = None) -> list[Expiry]:
    """Returns those personal tables whose rows expire, with their retention periods by table name."""
    return [Expiry(each.table, each.ages, (kept or {}).get(each.table.name), each.publication, each.parts) for each in tables if each.ages]


class Retention:
    """Deletes expired rows of a service.

    Args:
        settings: `site_retention_tables` overrides the retention periods of the tables.
        topic: The topic that the service publishes, if any.
        after: Callbacks that run in the transaction that deleted rows, by table.

    Raises:
        WrongSetting: The settings name a table of this service that does not exist or does not expire.
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
        """Deletes expired rows every ten minutes, until cancelled."""
        await run_every(lambda: self.look(datetime.now(UTC)), _LOOK_SECONDS, "nothing expired")

    async def look(self, now: datetime) -> Mapping[str, int]:
        """Deletes all expired rows, in batches, each in a transaction of its own; returns the number of rows deleted, by table."""
        deleted: dict[str, int] = {}
        for each, kept in self._kept:

            async def work(session: AsyncSession, each: Expiry = each, before: datetime = now - kept) -> int:
                return await self._expire(session, each, before)

            deleted[each.table.name] = 0
            while some := await transact(self._sessions, work, follows=True):
                deleted[each.table.name] += some
        return deleted

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
        if self._topic is not None and (each.publication is not None or each.ages.key):
            changes = [each.publication(row) for row in rows] if each.publication else [(row[each.ages.key], None) for row in rows]
            await self._topic.forget(session, [change[0] for change in changes if change is not None])
        return len(rows)
