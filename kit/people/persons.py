"""Resolves identifiers to persons. Each service projects the links and merges of the topic `identity` into its own database.

A row about a person stores one identifier, its strongest, in a column called `subject`. The person is resolved when the row is
read: when identity links, merges or separates users later, a person's sessions follow, and no row has to change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from pmp.identity.v1 import change_pb2 as pb
from sqlalchemy import Column, MetaData, Table, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import Id, UtcDateTime
from kit.database.transactions import chunks, lock_rows, upsert
from kit.log.streams import Delivery

SHARED: Final = 5
"""A session, anonymous id or visitor that more persons than this share, as in a library, leads to none of them."""

_WEAK: Final = ("session:", "anonymous:", "visitor:")
_USER: Final = "user:"

_metadata = MetaData()

person_links = Table(
    "person_aliases",
    _metadata,
    Column("subject", Id(280), primary_key=True),
    Column("user_id", Id, primary_key=True),
    Column("linked_at", UtcDateTime),
)
"""Links: identifiers, and the users they were seen with."""

users = Table("person_users", _metadata, Column("user_id", Id, primary_key=True), Column("merged_into", Id))
"""Users, and the user each was merged into; NULL for none."""

persons = Table("persons", _metadata, Column("subject", Id(280), primary_key=True), Column("person_id", Id))
"""Derived from both: the person an identifier leads to; NULL for none. A person is named by the user that all others merged into."""

_PERSON: Final = select(persons.c.person_id).where(persons.c.subject == bindparam("identifier"))


class PersonKey(NamedTuple):
    """One person, by whose identifiers rows are found."""

    identifier: str
    """The identifier that was asked for."""
    person_id: str = ""
    """Empty for a person that identity does not know."""


class Persons:
    """Persons and their identifiers, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def person(self, identifier: str) -> str:
        """Returns the person an identifier leads to; empty if none is known."""
        return await self._session.scalar(_PERSON, {"identifier": identifier}) or ""

    async def resolve(self, identifier: str) -> PersonKey:
        """Returns an identifier with the person it leads to."""
        return PersonKey(identifier, await self.person(identifier))

    async def people(self, identifiers: Collection[str]) -> Mapping[str, str]:
        """Returns persons by identifier, of those identifiers that lead to one."""
        found: dict[str, str] = {}
        for some in chunks(identifiers):
            query = select(persons.c.subject, persons.c.person_id).where(persons.c.subject.in_(some), persons.c.person_id.is_not(None))
            found |= {row.subject: row.person_id for row in await self._session.execute(query)}
        return found

    async def identifiers(self, person_id: str) -> Sequence[str]:
        """Returns all identifiers that lead to a person."""
        return (await self._session.scalars(select(persons.c.subject).where(persons.c.person_id == person_id))).all()

    async def people_by_identifier(self, person_ids: Collection[str]) -> Mapping[str, str]:
        """Returns all identifiers that lead to some persons, each with its person."""
        found: dict[str, str] = {}
        for some in chunks(person_ids):
            rows = await self._session.execute(select(persons.c.subject, persons.c.person_id).where(persons.c.person_id.in_(some)))
            found |= {row.subject: row.person_id for row in rows}
        return found

    async def members(self, user_ids: Collection[str]) -> set[str]:
        """Returns these users and all that were merged into them, directly or not."""
        found = newest = set(user_ids)
        while newest:
            newest = set(await self._session.scalars(select(users.c.user_id).where(users.c.merged_into.in_(sorted(newest))))) - found
            found = found | newest
        return found

    async def apply(self, changes: Iterable[pb.IdentityChanged]) -> Mapping[str, tuple[str | None, str | None]]:
        """Applies changes of the topic `identity`. Applying one again changes nothing.

        Returns:
            The person before and the person now, by identifier, of those identifiers that lead to another person now.
        """
        newest = _Changes()
        for change in changes:
            newest.add(change)
        await self._lock_users(newest.users)
        moved = await self._lock_members(newest.merges)
        await upsert(self._session, users, [{"user_id": user, "merged_into": into} for user, into in sorted(newest.merges.items())])
        identifiers = {identifier for identifier, _ in newest.links} | {f"{_USER}{user}" for user in newest.users | moved}
        if moved:
            identifiers |= set(await self._session.scalars(select(person_links.c.subject).where(person_links.c.user_id.in_(sorted(moved)))))
        for some in chunks(identifiers):
            await lock_rows(self._session, persons, [{"subject": identifier} for identifier in some])
        await self._write_links(newest.links)
        return await self._resolve(identifiers)

    async def _write_links(self, links: Mapping[tuple[str, str], Timestamp | None]) -> None:
        in_order = sorted(links.items())
        for (identifier, user), linked_at in in_order:
            if linked_at is None:
                await self._session.execute(
                    delete(person_links).where(person_links.c.subject == identifier, person_links.c.user_id == user)
                )
        linked = [{"subject": each, "user_id": user, "linked_at": at.ToDatetime(UTC)} for (each, user), at in in_order if at is not None]
        await upsert(self._session, person_links, linked)

    async def _lock_members(self, user_ids: Collection[str]) -> set[str]:
        """Locks users with all that were merged into them. A transaction that merges another meanwhile holds a lock on one of them."""
        locked: set[str] = set()
        while (members := await self.members(user_ids)) != locked:
            await self._lock_users(members)
            locked = members
        return locked

    async def _lock_users(self, user_ids: Collection[str]) -> None:
        await lock_rows(self._session, users, [{"user_id": user} for user in sorted(user_ids)])

    async def _resolve(self, identifiers: Collection[str]) -> Mapping[str, tuple[str | None, str | None]]:
        """Stores the persons that identifiers lead to; returns those that changed, as `apply` does."""
        moved: dict[str, tuple[str | None, str | None]] = {}
        for some in chunks(identifiers):
            candidates: dict[str, list[str]] = defaultdict(list)
            order = (person_links.c.subject, person_links.c.linked_at, person_links.c.user_id)
            own = {each: each.removeprefix(_USER) for each in some if each.startswith(_USER)}
            linked = [each for each in some if each not in own]
            rows = await self._session.execute(
                select(person_links.c.subject, person_links.c.user_id).where(person_links.c.subject.in_(linked)).order_by(*order)
            )
            for row in rows:
                candidates[row.subject].append(row.user_id)
            candidates |= {identifier: [user] for identifier, user in own.items()}
            roots = await self._roots({user for several in candidates.values() for user in several})
            after = {each: _owner(each, [roots[user] for user in candidates[each]]) for each in some}
            before = await self.people(some)
            changed = {each: (before.get(each), after[each]) for each in some if before.get(each) != after[each]}
            await upsert(self._session, persons, [{"subject": each, "person_id": now} for each, (_, now) in changed.items()])
            moved |= changed
        return moved

    async def _roots(self, user_ids: set[str]) -> Mapping[str, str]:
        """Returns the user that each was merged into, directly or not; of one that was not merged, itself."""
        above: dict[str, str | None] = {}
        newest = user_ids
        while newest:
            # Most were never merged, and take no row.
            own = (users.c.user_id.in_(sorted(newest)), users.c.merged_into.is_not(None))
            rows = await self._session.execute(select(users.c.user_id, users.c.merged_into).where(*own))
            above |= dict.fromkeys(newest) | {row.user_id: row.merged_into for row in rows}
            newest = {into for into in above.values() if into and into not in above}
        roots: dict[str, str] = {}
        for user in user_ids:
            root, seen = user, {user}
            while (into := above.get(root)) and into not in seen:
                root = into
                seen.add(root)
            roots[user] = root
        return roots


async def project_identity(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
    """Handler of the topic `identity` for services that only resolve identifiers to persons."""
    await Persons(session).apply(pb.IdentityChanged.FromString(delivery.record.payload) for delivery in deliveries)


class _Changes:
    """Several changes as one: the last change of each link and each merge. Kinds of change that this version does not know are skipped."""

    def __init__(self) -> None:
        self.links: dict[tuple[str, str], Timestamp | None] = {}
        """When an identifier was linked to a user; None for a link that was withdrawn."""
        self.merges: dict[str, str | None] = {}
        """The user that a user was merged into; None for a merge that was undone."""
        self.users: set[str] = set()
        """All users that are named."""

    def add(self, change: pb.IdentityChanged) -> None:
        link, merge, user = change.alias, change.merge, change.user
        if change.HasField("alias"):
            self.links[link.subject, link.user_id] = None if link.withdrawn else link.linked_at
            self.users.add(link.user_id)
        elif change.HasField("merge"):
            self.merges[merge.merged_user_id] = None if merge.undone else merge.user_id
            self.users |= {merge.merged_user_id, merge.user_id}
        elif change.HasField("user"):
            self.users.add(user.user_id)


def _owner(identifier: str, roots: Sequence[str]) -> str | None:
    """Returns the person an identifier leads to: the first it was linked to; None if too many share it."""
    if not roots or (identifier.startswith(_WEAK) and len(set(roots)) > SHARED):
        return None
    return roots[0]
