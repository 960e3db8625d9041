"""Persons' keys in a database of their own: made when a name is first sealed for, kept wrapped, destroyed by an erasure."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

from cachetools import TTLCache
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Column, LargeBinary, MetaData, SmallInteger, Table, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import Id, UtcDateTime
from kit.database.engine import Database, open_database
from kit.database.group_commit import GroupCommit
from kit.database.transactions import rowcount, transact
from kit.errors import Unavailable
from kit.people.keys.seals import KEY_BYTES, Decryptor, KeyId, Seal, key_id
from kit.people.keys.wrapping import EnvironmentKeys, Wrapping
from kit.people.vault import Vault
from kit.settings import Settings
from kit.telemetry.instrumentation import instrument

keys = Table(
    "subject_keys",
    MetaData(),
    Column("owner", Id(32), primary_key=True),
    Column("generation", SmallInteger, primary_key=True),
    Column("wrapped", LargeBinary),
    Column("wrapped_by", Id(16)),
    Column("created_at", UtcDateTime),
    Column("destroyed_at", UtcDateTime),
)
"""A keyed digest of the name in hex, the key as it was wrapped, and by which. Of an erased person, the time of that is all there is."""

_CACHED_FOR: Final = timedelta(seconds=10)
"""How long another process may still use a key that was destroyed."""
_CACHED: Final = 10_000
_AT_ONCE: Final = 500
_CONNECTIONS: Final = 2
# Days behind the keeping of an intake key on which it is looked for; a mesh that stood still for longer keeps it.
_LOOKED_BACK: Final = 90


def _now() -> datetime:
    return datetime.now(UTC)


class _Key(NamedTuple):
    """A generation of an owner's key."""

    generation: int
    cipher: AESGCM | None
    """None when it was destroyed."""


@dataclass(frozen=True, slots=True)
class _NewKey:
    """A key that is wanted for an owner who has none."""

    owner: bytes
    wrapped: bytes
    returned_at: datetime | None
    """When somebody came back: an owner whose key was destroyed before gets one as well."""


@dataclass(frozen=True, slots=True)
class _Intake:
    """The key of a day."""

    day: date
    seal: Seal


class Keys:
    """The keys of all persons.

    Args:
        vault: makes the digests that stand for names; whoever has keys has it as well.
        wrapping: encrypts keys.
        intake_keep: how long a key of the intake is kept.
        clock: says what time it is.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        wrapping: Wrapping,
        *,
        intake_keep: timedelta = timedelta(days=30),
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._database = database
        self.vault = vault
        self._wrapping = wrapping
        self._intake_keep = intake_keep
        self._clock = clock
        self._cache: TTLCache[bytes, Sequence[_Key], datetime] = TTLCache(_CACHED, _CACHED_FOR, clock)
        self._make: GroupCommit[Sequence[_NewKey], Sequence[Mapping[str, Any]]] = GroupCommit(database.sessions, self._made)
        self._intake: _Intake | None = None

    async def seals(self, names: Collection[str], returned: Mapping[str, datetime] | None = None) -> Mapping[str, Seal]:
        """The keys of some names, made where there are none. An erased person's stays destroyed.

        Args:
            names: names with their kinds.
            returned: those of them under which somebody registered, and when: whoever was erased before has come back.

        Raises:
            Unavailable: the database of keys does not answer.
        """
        owners, returned_at = {name: self._owner(name) for name in names}, {self._owner(name): at for name, at in (returned or {}).items()}
        known = await self._known({*owners.values()} - returned_at.keys())
        # Who registers is hardly ever known: that is not looked up first.
        lacking = [owner for owner in dict.fromkeys(owners.values()) if not known.get(owner)]
        if lacking:
            births = [
                _NewKey(owner, await self._wrapping.wrap(secrets.token_bytes(KEY_BYTES)), returned_at.get(owner)) for owner in lacking
            ]
            with _outages():
                rows = await self._make(births)
            known |= await self._opened(rows)
        newest = {name: known[owner][-1] for name, owner in owners.items()}
        return {name: Seal(KeyId(owners[name], key.generation), key.cipher) for name, key in newest.items()}

    async def decryptor(self, sealed: Iterable[bytes | None]) -> Decryptor:
        """The keys of some sealed values; empty ones are passed over.

        Raises:
            Unsealable: one is no sealed value.
            Unavailable: the database of keys does not answer.
        """
        wanted = {key_id(each) for each in sealed if each}
        known = await self._known({each.owner for each in wanted})
        found = {KeyId(owner, key.generation): key.cipher for owner, generations in known.items() for key in generations}
        return Decryptor({each: cipher for each in wanted if (cipher := found.get(each)) is not None})

    async def intake(self) -> Seal:
        """Today's key for whom nobody has looked up yet. While the database of keys is down, yesterday's does.

        Raises:
            Unavailable: the database of keys does not answer, and has not since this process began.
        """
        today = self._clock().date()
        if self._intake is None or self._intake.day != today:
            try:
                name = _intake_name(today)
                seal = (await self.seals([name]))[name]
                await self._expire(today)
                self._intake = _Intake(today, seal)
            except Unavailable:
                if self._intake is None:
                    raise
        return self._intake.seal

    async def destroy(self, names: Collection[str], at: datetime) -> int:
        """Destroys the keys of names whose person was erased at a time; says how many that were. Once done it changes nothing.

        Raises:
            Unavailable: the database of keys does not answer.
        """
        owners = sorted(self._owner(name).hex() for name in names)

        async def work(session: AsyncSession) -> int:
            destroyed = 0
            for start in range(0, len(owners), _AT_ONCE):
                some = owners[start : start + _AT_ONCE]
                rows = (await session.execute(select(keys).where(keys.c.owner.in_(some)).with_for_update())).all()
                # Who was erased at this very time is dealt with: a key that came afterwards is somebody's who has come back.
                left = set(some) - {row.owner for row in rows if row.destroyed_at == at}
                own = keys.c.owner.in_(sorted(left))
                destroyed += await rowcount(
                    session, update(keys).where(own, keys.c.wrapped.is_not(None)).values(wrapped=None, destroyed_at=at)
                )
                unknown = sorted(left - {row.owner for row in rows})
                if unknown:
                    tombstone = {"generation": 1, "created_at": at, "destroyed_at": at}
                    await session.execute(insert(keys), [{"owner": owner, **tombstone} for owner in unknown])
            return destroyed

        with _outages():
            destroyed = await transact(self._database.sessions, work)
        self._cache.clear()
        return destroyed

    async def scrub(self) -> bool:
        """Takes destroyed keys out of the database's files; False while others are at work there.

        Raises:
            Unavailable: the database of keys does not answer.
        """
        with _outages():
            return await self._database.scrub()

    async def stale(self) -> int:
        """How many keys are wrapped by another key than the current one.

        Raises:
            Unavailable: the database of keys does not answer.
        """
        with _outages():
            async with self._database.sessions.reading() as session:
                return await session.scalar(select(func.count()).select_from(keys).where(self._is_stale)) or 0

    async def rewrap(self) -> AsyncIterator[int]:
        """Wraps every key by the current one while all goes on; says after each transaction how many it were.

        Raises:
            Unavailable: the database of keys does not answer, or a key is wrapped by one that is not at hand.
        """

        async def work(session: AsyncSession) -> int:
            rows = (await session.execute(select(keys).where(self._is_stale).limit(_AT_ONCE).with_for_update())).all()
            for row in rows:
                wrapped = await self._wrapping.wrap(await self._wrapping.unwrap(row.wrapped, row.wrapped_by))
                own = (keys.c.owner == row.owner, keys.c.generation == row.generation)
                await session.execute(update(keys).where(*own).values(wrapped=wrapped, wrapped_by=self._wrapping.current))
            return len(rows)

        with _outages():
            while done := await transact(self._database.sessions, work):
                yield done

    @property
    def _is_stale(self) -> Any:
        return keys.c.wrapped.is_not(None) & (keys.c.wrapped_by != self._wrapping.current)

    def _owner(self, name: str) -> bytes:
        """What stands for a name: 16 bytes."""
        return self.vault.digest(name.encode(), purpose="key owner")

    async def _known(self, owners: Collection[bytes]) -> dict[bytes, Sequence[_Key]]:
        """The keys of some owners, oldest generation first; read where they were not lately."""
        known = {owner: found for owner in owners if (found := self._cache.get(owner)) is not None}
        unread = sorted({owner.hex() for owner in owners if owner not in known})
        rows: list[Any] = []
        for start in range(0, len(unread), _AT_ONCE):
            query = select(keys).where(keys.c.owner.in_(unread[start : start + _AT_ONCE])).order_by(keys.c.owner, keys.c.generation)
            with _outages():
                async with self._database.sessions.reading() as session:
                    rows += (await session.execute(query)).mappings().all()
        return known | await self._opened(rows)

    async def _opened(self, rows: Iterable[Mapping[str, Any]]) -> dict[bytes, Sequence[_Key]]:
        """Keys as rows have them, by owner; remembered."""
        read: dict[bytes, list[_Key]] = defaultdict(list)
        for row in rows:
            cipher = AESGCM(await self._wrapping.unwrap(row["wrapped"], row["wrapped_by"])) if row["wrapped"] else None
            read[bytes.fromhex(row["owner"])].append(_Key(row["generation"], cipher))
        self._cache.update(read)
        return dict(read)

    async def _made(self, session: AsyncSession, wanted: Sequence[Sequence[_NewKey]]) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Makes keys that are lacking; answers all generations of each. Done again, and found, when another process makes one meanwhile."""
        births = {birth.owner.hex(): birth for some in wanted for birth in some}
        query = select(keys).where(keys.c.owner.in_(sorted(births))).order_by(keys.c.generation)
        rows: list[Any] = [*(await session.execute(query)).mappings()]
        newest = {row["owner"]: row for row in rows}
        made = [
            {
                "owner": owner,
                "generation": newest[owner]["generation"] + 1 if owner in newest else 1,
                "wrapped": birth.wrapped,
                "wrapped_by": self._wrapping.current,
                "created_at": self._clock(),
            }
            for owner, birth in sorted(births.items())
            if owner not in newest or _is_back(newest[owner]["destroyed_at"], birth.returned_at)
        ]
        if made:
            await session.execute(insert(keys), made)
        rows += made
        return [[row for row in rows if row["owner"] in owners] for owners in ({birth.owner.hex() for birth in some} for some in wanted)]

    async def _expire(self, today: date) -> None:
        """Takes away the keys of days long past: what was sealed under them on arrival is stored, under its person's key, or lost."""
        last = today - self._intake_keep - timedelta(days=1)
        gone = [self._owner(_intake_name(last - timedelta(days=back))).hex() for back in range(_LOOKED_BACK)]
        with _outages():
            await transact(self._database.sessions, lambda session: session.execute(delete(keys).where(keys.c.owner.in_(gone))))


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncGenerator[Keys]:
    """Opens the database of keys lazily; closes it at the end.

    Raises:
        InvalidKey: a key in the settings is none.
    """
    vault, wrapping = Vault.from_settings(settings), EnvironmentKeys.from_settings(settings)
    async with open_database(settings.keys_database_url, _CONNECTIONS) as database:
        instrument(database.engine)
        yield Keys(database, vault, wrapping, intake_keep=settings.intake_key_keep)


def _intake_name(day: date) -> str:
    return f"intake:{day.isoformat()}"


def _is_back(destroyed_at: datetime | None, returned_at: datetime | None) -> bool:
    return destroyed_at is not None and returned_at is not None and destroyed_at < returned_at


@contextmanager
def _outages() -> Generator[None]:
    """Whatever the database of keys fails with: the caller may try again later, and nothing is set aside for it."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        message = "the keys of persons are out of reach"
        raise Unavailable(message) from error
