"""Stores a key for each identifier: created when a value is first sealed under it, stored wrapped, destroyed by an erasure."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

from cachetools import TTLCache
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database, open_database
from kit.database.group_commit import GroupCommit
from kit.database.transactions import chunks, rowcount, transact
from kit.errors import Unavailable
from kit.people.derivation import configured_key
from kit.people.hashing import KeyedHasher
from kit.people.keys.seals import KEY_BYTES, Decryptor, KeyId, Seal, key_id
from kit.people.keys.table import keys, outages
from kit.people.keys.wrapping import Wrapped, Wrapping, configured_wrapping
from kit.settings import Settings
from kit.telemetry.instrumentation import instrument

_CACHED_FOR: Final = timedelta(seconds=10)
"""How long another process may still use a destroyed key."""
_CACHED: Final = 10_000
_CONNECTIONS: Final = 2
# Expired intake keys are looked up for this many days before the retention period; a mesh that was down for longer keeps them.
_LOOKED_BACK: Final = 90


def _now() -> datetime:
    return datetime.now(UTC)


class _Key(NamedTuple):
    """A generation of an owner's key."""

    generation: int
    cipher: AESGCM | None
    """None if it was destroyed."""


@dataclass(frozen=True, slots=True)
class _NewKey:
    """A key to create for an owner without one."""

    owner: bytes
    wrapped: Wrapped
    returned_at: datetime | None
    """When the person registered again: an owner whose key was destroyed before that gets a new one."""


@dataclass(frozen=True, slots=True)
class _Intake:
    """The intake key of a day."""

    day: date
    seal: Seal


class Keys:
    """The keys of all persons.

    Args:
        hasher: Hashes identifiers to owners.
        wrapping: Encrypts keys.
        intake_keep: Retention period of intake keys.
        clock: Returns the current time.
    """

    def __init__(
        self,
        database: Database,
        hasher: KeyedHasher,
        wrapping: Wrapping,
        *,
        intake_keep: timedelta = timedelta(days=30),
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._database = database
        self.hasher = hasher
        self._wrapping = wrapping
        self._intake_keep = intake_keep
        self._clock = clock
        self._cache: TTLCache[bytes, Sequence[_Key], datetime] = TTLCache(_CACHED, _CACHED_FOR, clock)
        self._create: GroupCommit[Sequence[_NewKey], Sequence[Mapping[str, Any]]] = GroupCommit(database.sessions, self._created)
        self._intake: _Intake | None = None

    async def seals(self, identifiers: Collection[str], returned: Mapping[str, datetime] | None = None) -> Mapping[str, Seal]:
        """Returns the keys of identifiers, and creates those that don't exist. An erased person's key stays destroyed.

        Args:
            identifiers: Identifiers with their kinds.
            returned: Those of them that a registration has, with its time: a person who was erased before has returned.

        Raises:
            Unavailable: The database of keys does not answer.
        """
        owners = {identifier: self._owner(identifier) for identifier in identifiers}
        returned_at = {self._owner(identifier): at for identifier, at in (returned or {}).items()}
        # A person who registers has hardly ever a key: that saves the lookup.
        known = await self._known({*owners.values()} - returned_at.keys())
        missing = [owner for owner in dict.fromkeys(owners.values()) if not known.get(owner)]
        if missing:
            new = [_NewKey(owner, await self._wrapping.wrap(secrets.token_bytes(KEY_BYTES)), returned_at.get(owner)) for owner in missing]
            with outages():
                rows = await self._create(new)
            known |= await self._unwrapped(rows)
        newest = {identifier: known[owner][-1] for identifier, owner in owners.items()}
        return {identifier: Seal(KeyId(owners[identifier], key.generation), key.cipher) for identifier, key in newest.items()}

    async def decryptor(self, sealed: Iterable[bytes | None]) -> Decryptor:
        """Returns the keys of sealed values; empty ones are skipped.

        Raises:
            Unsealable: One is not a sealed value.
            Unavailable: The database of keys does not answer.
        """
        wanted = {key_id(each) for each in sealed if each}
        known = await self._known({each.owner for each in wanted})
        found = {KeyId(owner, key.generation): key.cipher for owner, generations in known.items() for key in generations}
        return Decryptor({each: cipher for each in wanted if (cipher := found.get(each)) is not None})

    async def intake(self) -> Seal:
        """Returns today's key, for values whose person is not resolved yet. While the database of keys is down, yesterday's.

        Raises:
            Unavailable: The database of keys does not answer, and has not since this process started.
        """
        today = self._clock().date()
        if self._intake is None or self._intake.day != today:
            try:
                identifier = _intake_identifier(today)
                seal = (await self.seals([identifier]))[identifier]
                await self._expire(today)
                self._intake = _Intake(today, seal)
            except Unavailable:
                if self._intake is None:
                    raise
        return self._intake.seal

    async def destroy(self, identifiers: Collection[str], at: datetime) -> int:
        """Destroys the keys of identifiers whose person was erased at a time; returns how many. Repeating it changes nothing.

        Raises:
            Unavailable: The database of keys does not answer.
        """
        owners = {self._owner(identifier).hex() for identifier in identifiers}

        async def work(session: AsyncSession) -> int:
            destroyed = 0
            for some in chunks(owners):
                rows = (await session.execute(select(keys).where(keys.c.owner.in_(some)).with_for_update())).all()
                # An owner with a tombstone of this time is done: a newer key belongs to a person who registered again.
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

        with outages():
            destroyed = await transact(self._database.sessions, work)
        self._cache.clear()
        return destroyed

    async def scrub(self) -> bool:
        """Removes destroyed keys from the database's files; False while other transactions prevent that.

        Raises:
            Unavailable: The database of keys does not answer.
        """
        with outages():
            return await self._database.scrub()

    def _owner(self, identifier: str) -> bytes:
        return owner_of(identifier, self.hasher)

    async def _known(self, owners: Collection[bytes]) -> dict[bytes, Sequence[_Key]]:
        """Returns the keys of owners, oldest generation first, from the cache or else the database."""
        known = {owner: found for owner in owners if (found := self._cache.get(owner)) is not None}
        rows: list[Any] = []
        for some in chunks({owner.hex() for owner in owners if owner not in known}):
            query = select(keys).where(keys.c.owner.in_(some)).order_by(keys.c.owner, keys.c.generation)
            with outages():
                async with self._database.sessions.reading() as session:
                    rows += (await session.execute(query)).mappings().all()
        return known | await self._unwrapped(rows)

    async def _unwrapped(self, rows: Iterable[Mapping[str, Any]]) -> dict[bytes, Sequence[_Key]]:
        """Returns the keys of rows by owner, and caches them."""
        read: dict[bytes, list[_Key]] = defaultdict(list)
        for row in rows:
            cipher = AESGCM(await self._wrapping.unwrap(row["wrapped"], row["wrapped_by"])) if row["wrapped"] else None
            read[bytes.fromhex(row["owner"])].append(_Key(row["generation"], cipher))
        self._cache.update(read)
        return dict(read)

    async def _created(self, session: AsyncSession, wanted: Sequence[Sequence[_NewKey]]) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Creates missing keys; returns all generations of each owner. Retried if another process creates one at the same time."""
        by_owner = {new.owner.hex(): new for some in wanted for new in some}
        query = select(keys).where(keys.c.owner.in_(sorted(by_owner))).order_by(keys.c.generation)
        rows: list[Any] = [*(await session.execute(query)).mappings()]
        newest = {row["owner"]: row for row in rows}
        created = [
            {
                "owner": owner,
                "generation": newest[owner]["generation"] + 1 if owner in newest else 1,
                "wrapped": new.wrapped.key,
                "wrapped_by": new.wrapped.by,
                "created_at": self._clock(),
            }
            for owner, new in sorted(by_owner.items())
            if owner not in newest or _has_returned(newest[owner]["destroyed_at"], new.returned_at)
        ]
        if created:
            await session.execute(insert(keys), created)
        rows += created
        return [[row for row in rows if row["owner"] in owners] for owners in ({new.owner.hex() for new in some} for some in wanted)]

    async def _expire(self, today: date) -> None:
        """Deletes expired intake keys: what they sealed on arrival was sealed again under its person's key when it was stored."""
        last = today - self._intake_keep - timedelta(days=1)
        gone = [self._owner(_intake_identifier(last - timedelta(days=back))).hex() for back in range(_LOOKED_BACK)]
        with outages():
            await transact(self._database.sessions, lambda session: session.execute(delete(keys).where(keys.c.owner.in_(gone))))


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncGenerator[Keys]:
    """Opens the database of keys lazily; closes it at the end.

    Raises:
        InvalidKey: A key in the settings is invalid.
    """
    hasher, wrapping = KeyedHasher(configured_key(settings)), configured_wrapping(settings)
    async with open_database(settings.keys_database_url, _CONNECTIONS, newest_url=lambda: settings.keys_database_url) as database:
        instrument(database.engine)
        yield Keys(database, hasher, wrapping, intake_keep=settings.intake_key_keep)


def owner_of(identifier: str, hasher: KeyedHasher) -> bytes:
    """Returns the digest of an identifier under which its keys are stored, 16 bytes."""
    return hasher.digest(identifier.encode(), purpose="key owner")


def _intake_identifier(day: date) -> str:
    return f"intake:{day.isoformat()}"


def _has_returned(destroyed_at: datetime | None, returned_at: datetime | None) -> bool:
    return destroyed_at is not None and returned_at is not None and destroyed_at < returned_at
