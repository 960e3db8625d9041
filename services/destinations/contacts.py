"""The SQL of contacts: under which addresses a destination keeps persons."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

from sqlalchemy import Table, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact, upsert
from kit.people.identifiers import identifier_of
from kit.people.keys.seals import EMAIL_CONTEXT
from kit.people.keys.store import Keys
from kit.people.persons import Persons
from kit.people.suppression import Suppressions, screen
from services.destinations.models import ContactRow

_contacts: Final = cast("Table", ContactRow.__table__)


class _Known(NamedTuple):
    subject: str
    email: bytes


class Contacts:
    """The contacts of one destination.

    Args:
        destination: its name.
    """

    def __init__(self, destination: str, sessions: Sessions, keys: Keys) -> None:
        self._destination = destination
        self._sessions = sessions
        self._keys = keys

    async def remember(self, person_id: str, email: str) -> Sequence[str]:
        """Remembers an address under which the destination keeps a person from now on, unless the person is being erased.

        Returns:
            The other addresses under which it keeps the person still.

        Raises:
            Unavailable: the database of keys does not answer.
        """
        subject = self._subject(email)
        known = await self._known(person_id)
        if subject not in {each.subject for each in known}:
            sealed = (await self._keys.seals({subject}))[subject].seal(email, context=EMAIL_CONTEXT)
            if sealed:
                await transact(self._sessions, lambda session: self._add(session, subject, person_id, sealed))
        return await self._opened([each.email for each in known if each.subject != subject])

    async def others(self, person_id: str, email: str) -> Sequence[str]:
        """Returns the addresses under which the destination keeps a person still, other than this one, which may be empty.

        Raises:
            Unavailable: the database of keys does not answer.
        """
        subject = self._subject(email) if email else ""
        return await self._opened([each.email for each in await self._known(person_id) if each.subject != subject])

    async def leave(self, emails: Collection[str]) -> None:
        """Notes that the destination keeps nobody under these addresses any more. They are kept, for an erasure."""
        own = (_contacts.c.destination == self._destination, _contacts.c.subject.in_(sorted(map(self._subject, emails))))

        async def work(session: AsyncSession) -> None:
            await session.execute(update(_contacts).where(*own).values(is_former=True))

        await transact(self._sessions, work)

    async def _known(self, person_id: str) -> Sequence[_Known]:
        """The addresses of all users that are one person."""
        async with self._sessions.reading() as session:
            members = sorted(await Persons(session).members({person_id}))
            own = (_contacts.c.user_id.in_(members), _contacts.c.destination == self._destination, _contacts.c.is_former.is_(False))
            return [_Known(*row) for row in await session.execute(select(_contacts.c.subject, _contacts.c.email).where(*own))]

    async def _opened(self, sealed: Sequence[bytes]) -> Sequence[str]:
        decryptor = await self._keys.decryptor(sealed)
        return [address for each in sealed if (address := decryptor.open(each, context=EMAIL_CONTEXT))]

    async def _add(self, session: AsyncSession, subject: str, person_id: str, sealed: bytes) -> None:
        now, identifiers = datetime.now(UTC), (subject, f"user:{person_id}")
        screened = screen(identifiers, now, await Suppressions(session).of(self._keys.hasher, identifiers))
        if screened.is_dropped or screened.stripped:
            return
        row = {"destination": self._destination, "subject": subject, "user_id": person_id, "email": sealed, "is_former": False}
        await upsert(session, _contacts, [{**row, "sent_at": now}])

    def _subject(self, email: str) -> str:
        return identifier_of(email_hash=self._keys.hasher.fingerprint(email))
