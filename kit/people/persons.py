"""Who is who: what a service knows of persons from the topic `identity`, in its own database.

Rows that tell of somebody keep a *subject*: the one name under which it was told, with its kind, such as `session:abc`
or `wordpress:42`. Whom a subject belongs to is looked up when it is asked for, so that a person's visits join, move
and leave with what identity learns, also afterwards, and no row has to change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from pmp.identity.v1 import change_pb2 as pb
from sqlalchemy import Column, MetaData, Table, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.boundary.nobody import names_nobody
from kit.database.columns import Id, UtcDateTime
from kit.database.transactions import chunks, upsert
from kit.log.streams import Delivery

SHARED: Final = 5
"""More persons than this under one session or anonymous id, as in a library, and it leads to none of them."""

_WEAK: Final = ("session:", "anonymous:", "visitor:")

_metadata = MetaData()

aliases = Table(
    "person_aliases",
    _metadata,
    Column("subject", Id(280), primary_key=True),
    Column("user_id", Id, primary_key=True),
    Column("linked_at", UtcDateTime),
)
"""Names, and the users they were seen with."""

users = Table("person_users", _metadata, Column("user_id", Id, primary_key=True), Column("merged_into", Id))
"""Users, and the one each is part of."""

persons = Table("persons", _metadata, Column("subject", Id(280), primary_key=True), Column("person_id", Id))
"""What follows from both: whom a name leads to; NULL for nobody. A person is the user that stands for all merged into it."""


def subject_of(*, user_id: str = "", email_hash: bytes = b"", session_id: str = "", anonymous_id: str = "", visitor: str = "") -> str:
    """The subject of something told under these names: the strongest that names somebody; empty when none does."""
    if user_id and not names_nobody(user_id):
        return f"wordpress:{int(user_id)}" if user_id.isdecimal() and user_id.isascii() else f"user:{user_id}"
    if email_hash:
        return f"email:{email_hash.hex()}"
    if session_id and not names_nobody(session_id):
        return f"session:{session_id}"
    if anonymous_id and not names_nobody(anonymous_id):
        return f"anonymous:{anonymous_id}"
    return f"visitor:{visitor}" if visitor else ""


class Persons:
    """Who is who, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def person(self, subject: str) -> str:
        """The person a subject leads to; empty for nobody that is known."""
        return await self._session.scalar(select(persons.c.person_id).where(persons.c.subject == subject)) or ""

    async def people(self, subjects: Collection[str]) -> Mapping[str, str]:
        """The persons of those subjects that lead to one."""
        found: dict[str, str] = {}
        for some in chunks(subjects):
            rows = await self._session.execute(select(persons.c.subject, persons.c.person_id).where(persons.c.subject.in_(some)))
            found |= {row.subject: row.person_id for row in rows if row.person_id}
        return found

    async def subjects(self, person_id: str) -> Sequence[str]:
        """All subjects that lead to a person."""
        return (await self._session.scalars(select(persons.c.subject).where(persons.c.person_id == person_id))).all()

    async def members(self, user_ids: Collection[str]) -> set[str]:
        """These users and all that are part of them."""
        found = newest = set(user_ids)
        while newest:
            newest = set(await self._session.scalars(select(users.c.user_id).where(users.c.merged_into.in_(sorted(newest))))) - found
            found = found | newest
        return found

    async def learn(self, changes: Iterable[pb.IdentityChanged]) -> Mapping[str, tuple[str | None, str | None]]:
        """Takes in what identity tells. Applying something again changes nothing.

        Returns:
            Of each subject that leads to another person now: the person before, and the one now.
        """
        told = _Told()
        for change in changes:
            told.take(change)
        await self._lock_users(told.users)
        moved = await self._lock_members(told.merges)
        await upsert(self._session, users, [{"user_id": user, "merged_into": into} for user, into in sorted(told.merges.items())])
        subjects = {subject for subject, _ in told.links} | {f"user:{user}" for user in told.users | moved}
        if moved:
            subjects |= set(await self._session.scalars(select(aliases.c.subject).where(aliases.c.user_id.in_(sorted(moved)))))
        for some in chunks(subjects):
            await upsert(self._session, persons, [{"subject": subject} for subject in some])
        links = sorted(told.links.items())
        for (subject, user), linked_at in links:
            if linked_at is None:
                await self._session.execute(delete(aliases).where(aliases.c.subject == subject, aliases.c.user_id == user))
        seen = [{"subject": subject, "user_id": user, "linked_at": at.ToDatetime(UTC)} for (subject, user), at in links if at is not None]
        await upsert(self._session, aliases, seen)
        return await self._derive(subjects)

    async def _lock_members(self, user_ids: Collection[str]) -> set[str]:
        """Locks users with all that are part of them. Whoever adds one more meanwhile holds a lock on one of them."""
        locked: set[str] = set()
        while (members := await self.members(user_ids)) != locked:
            await self._lock_users(members)
            locked = members
        return locked

    async def _lock_users(self, user_ids: Collection[str]) -> None:
        await upsert(self._session, users, [{"user_id": user} for user in sorted(user_ids)])

    async def _derive(self, subjects: Collection[str]) -> Mapping[str, tuple[str | None, str | None]]:
        """Writes down whom subjects lead to; answers those of whom that changed, as `learn` does."""
        moved: dict[str, tuple[str | None, str | None]] = {}
        for some in chunks(subjects):
            candidates: dict[str, list[str]] = defaultdict(list)
            order = (aliases.c.subject, aliases.c.linked_at, aliases.c.user_id)
            rows = await self._session.execute(
                select(aliases.c.subject, aliases.c.user_id).where(aliases.c.subject.in_(some)).order_by(*order)
            )
            for row in rows:
                candidates[row.subject].append(row.user_id)
            for subject in some:
                if subject.startswith("user:"):
                    candidates[subject] = [subject.removeprefix("user:")]
            roots = await self._roots({user for several in candidates.values() for user in several})
            leads = {subject: _owner(subject, [roots[user] for user in candidates[subject]]) for subject in some}
            known = await self.people(some)
            changed = {subject: (known.get(subject), leads[subject]) for subject in some if known.get(subject) != leads[subject]}
            await upsert(self._session, persons, [{"subject": subject, "person_id": now} for subject, (_, now) in changed.items()])
            moved |= changed
        return moved

    async def _roots(self, user_ids: set[str]) -> Mapping[str, str]:
        """The user that stands for each."""
        above: dict[str, str | None] = {}
        newest = user_ids
        while newest:
            rows = await self._session.execute(select(users.c.user_id, users.c.merged_into).where(users.c.user_id.in_(sorted(newest))))
            above |= {row.user_id: row.merged_into for row in rows}
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
    """Handler of the topic `identity` for services that only look up who is who."""
    await Persons(session).learn(pb.IdentityChanged.FromString(delivery.record.payload) for delivery in deliveries)


class _Told:
    """What several changes come to: of one link or merge, the last word. What a newer identity tells beyond these is passed over."""

    def __init__(self) -> None:
        self.links: dict[tuple[str, str], Timestamp | None] = {}
        self.merges: dict[str, str | None] = {}
        self.users: set[str] = set()

    def take(self, change: pb.IdentityChanged) -> None:
        alias, merge, user = change.alias, change.merge, change.user
        if change.HasField("alias"):
            self.links[alias.subject, alias.user_id] = None if alias.withdrawn else alias.linked_at
            self.users.add(alias.user_id)
        elif change.HasField("merge"):
            self.merges[merge.merged_user_id] = None if merge.undone else merge.user_id
            self.users |= {merge.merged_user_id, merge.user_id}
        elif change.HasField("user"):
            self.users.add(user.user_id)


def _owner(subject: str, roots: Sequence[str]) -> str | None:
    """Whom a name leads to: the first it was seen with; nobody when too many share it."""
    if not roots or (subject.startswith(_WEAK) and len(set(roots)) > SHARED):
        return None
    return roots[0]
