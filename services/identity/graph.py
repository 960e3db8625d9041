"""The identity graph while one transaction changes it: gathers what changes, then settles what follows for the persons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from google.protobuf.message import Message
from pmp.identity.v1.change_pb2 import IdentityChanged
from uuid6 import uuid7

from kit.boundary.nobody import names_nobody
from kit.people.persons import Persons, subject_of
from services.identity import rules
from services.identity.messages import alias_changed, merge_changed, user_changed
from services.identity.models import MergeRow, UserRow
from services.identity.repository import Identities

_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class _Edge:
    linked_at: datetime
    evidence: str
    withdrawn: bool


class NotBatchable(Exception):
    """Persons are joined or separated by one change at a time: what was made in the same transaction is not looked up yet."""


class Graph:
    """Names, users and persons within one transaction. Changes need its `lock` first, and `settle` last.

    Args:
        shared: several changes are made that do not know of each other.
    """

    def __init__(self, identities: Identities, persons: Persons, now: datetime, *, shared: bool = False) -> None:
        self.identities = identities
        self._shared = shared
        self.now = now
        self._persons = persons
        self._edges: dict[str, dict[str, _Edge]] = {}
        self._rows: dict[str, UserRow] = {}
        self._before: dict[str, IdentityChanged | None] = {}
        self._people: dict[str, str] = {}
        self._joined: dict[str, str] = {}
        self._told: dict[str, IdentityChanged] = {}
        self._links: dict[tuple[str, str], dict[str, Any]] = {}
        self._campaigns: dict[str, rules.Campaign] = {}
        self._orders: dict[str, Mapping[str, Any]] = {}
        self._lists: dict[tuple[str, str], tuple[datetime, bool]] = {}
        self._concerned: set[str] = set()

    async def lock(self) -> None:
        """Waits until nobody else changes the graph; what was read before is read again."""
        await self.identities.lock()
        self._edges.clear()
        self._people.clear()
        self._rows.clear()
        self._before.clear()

    async def know(self, subjects: Collection[str]) -> None:
        """Reads the edges of names and the users that `user:` names, so that the other methods can answer for them."""
        await self.users({subject.removeprefix("user:") for subject in subjects if subject.startswith("user:")})
        new = {subject for subject in subjects if subject and not subject.startswith("user:")} - self._edges.keys()
        self._edges |= {subject: {} for subject in new}
        for subject, user_id, linked_at, evidence, withdrawn in await self.identities.links(new):
            self._edges[subject][user_id] = _Edge(linked_at, evidence, withdrawn)

    def owner(self, subject: str) -> str:
        """The user that a name leads to, the first it was seen with; empty for none."""
        kind, _, name = subject.partition(":")
        if kind == "user":
            return name if name in self._rows else ""
        return next(iter(self.owners(subject)), "")

    def owners(self, subject: str) -> Sequence[str]:
        """The users that were seen under a name, in the order of time."""
        edges = self._edges.get(subject, {})
        seen = [(edge.linked_at, user_id) for user_id, edge in edges.items() if not edge.withdrawn]
        return [user_id for _, user_id in sorted(seen)]

    def knows(self, subject: str, user_id: str, at: datetime) -> bool:
        """True when a name is linked with a user since a time or longer, or never may be."""
        edge = self._edges.get(subject, {}).get(user_id)
        return names_nobody(subject.partition(":")[2]) or (edge is not None and not edge.withdrawn and edge.linked_at <= at)

    async def resolve(self, subject: str) -> str:
        """The user that a name leads to; empty for none."""
        await self.know([subject])
        return self.owner(subject)

    async def users(self, user_ids: Collection[str]) -> Sequence[UserRow]:
        """Users by their ids; those that are not there are left out."""
        for user_id, row in (await self.identities.users(set(user_ids) - self._rows.keys())).items():
            self._rows[user_id] = row
            self._before[user_id] = user_changed(row)
        return [self._rows[user_id] for user_id in user_ids if user_id in self._rows]

    async def user(self, user_id: str) -> UserRow:
        """A user that is there."""
        [row] = await self.users([user_id])
        return row

    async def person(self, user_id: str) -> str:
        """The user that stands for a user."""
        subject = f"user:{user_id}"
        if subject not in self._people:
            self._people[subject] = await self._persons.person(subject) or user_id
        root = self._people[subject]
        return self._joined.get(root, root)

    async def wordpress_ids(self, person_id: str) -> Mapping[str, int | None]:
        """The users of a person that was there before this transaction, each with its WordPress id."""
        members = await self.identities.members([person_id])
        return {row.id: row.wordpress_id for row in await self.users(members.get(person_id, [person_id]))}

    def create(self, subject: str, at: datetime, evidence: str) -> UserRow:
        """A new user under a first name."""
        row = UserRow(
            id=str(uuid7()),
            wordpress_id=rules.wordpress_id(subject),
            user_type="prospect",
            lifetime_value=_NOTHING,
            preferences={},
            field_times={},
            created_at=self.now,
            updated_at=self.now,
        )
        self._rows[row.id] = row
        self._before[row.id] = None
        self._people[f"user:{row.id}"] = row.id
        self.identities.add(row)
        self.link(subject, row.id, at, evidence)
        return row

    def link(self, subject: str, user_id: str, at: datetime, evidence: str) -> None:
        """A name was seen with a user. It leads to the first it was seen with; what names nobody leads to nobody."""
        if not self.knows(subject, user_id, at):
            self._set(subject, user_id, _Edge(at, evidence, withdrawn=False))

    def withdraw(self, subject: str, user_id: str) -> None:
        """A name does not lead to a user any more."""
        edge = self._edges[subject][user_id]
        self._set(subject, user_id, _Edge(edge.linked_at, edge.evidence, withdrawn=True))

    async def join(self, person_id: str, merged: str, evidence: str, reason: str = "") -> None:
        """Makes one person part of another.

        Raises:
            NotBatchable: other changes share the graph.
        """
        self._alone()
        await self.identities.write_merge(
            merged_user_id=merged, user_id=person_id, reason=reason, evidence=evidence, merged_at=self.now, undone_at=None
        )
        await self._rearranged(merged, [person_id, merged])
        self._told[f"merge {merged}"] = merge_changed(merged, person_id, self.now, undone=False)
        self._joined[merged] = person_id

    async def separate(self, merge: MergeRow) -> None:
        """Makes a user that was merged stand for itself again.

        Raises:
            NotBatchable: other changes share the graph.
        """
        self._alone()
        merged = merge.merged_user_id
        await self._rearranged(merged, [await self.person(merged)])
        merge.undone_at = self.now
        self._told[f"merge {merged}"] = merge_changed(merged, merge.user_id, merge.merged_at, undone=True)

    def concern(self, subject: str) -> None:
        """Something about whom this name leads to has changed that may move how far the person has come."""
        self._concerned.add(subject)

    def campaign(self, subject: str, at: datetime, utm: Mapping[str, Any]) -> None:
        """A campaign was seen with a subject; the first one known is kept."""
        known = self._campaigns.get(subject)
        if known is None or at < known.at:
            self._campaigns[subject] = rules.Campaign(at, utm)

    def order(self, fields: Mapping[str, Any]) -> None:
        """An order stands so now."""
        self._orders[fields["purchase_id"]] = fields
        self.concern(fields["subject"])

    def subscribe(self, user_id: str, name: str, at: datetime, *, subscribed: bool) -> None:
        """A user chose a mailing list or left it; the last word counts."""
        known = self._lists.get((user_id, name))
        if known is None or at >= known[0]:
            self._lists[user_id, name] = (at, subscribed)

    async def settle(self) -> Sequence[tuple[str, Message]]:
        """Writes the changes and what follows for the persons they concern; answers what to tell, each with its key."""
        await self._write()
        before = await self._persons.people(self._concerned)
        if self._told:
            await self._persons.learn(self._told.values())
        after = await self._persons.people(self._concerned)
        self._people, self._joined = dict(after), {}
        await self._derive({*before.values(), *after.values()})
        await self.identities.flush(self.now)
        known = {user_id: user_changed(row) for user_id, row in self._rows.items()}
        users = [(f"user {user_id}", message) for user_id, message in sorted(known.items()) if message != self._before[user_id]]
        return [*self._told.items(), *users]

    def _alone(self) -> None:
        if self._shared:
            raise NotBatchable

    def _set(self, subject: str, user_id: str, edge: _Edge) -> None:
        self._edges.setdefault(subject, {})[user_id] = edge
        kind = subject.partition(":")[0]
        self._links[subject, user_id] = {
            "subject": subject,
            "user_id": user_id,
            "kind": kind,
            "evidence": edge.evidence,
            "linked_at": edge.linked_at,
            "withdrawn": edge.withdrawn,
        }
        self._told[f"alias {subject} {user_id}"] = alias_changed(subject, user_id, edge.linked_at, withdrawn=edge.withdrawn)
        self._concerned |= {subject, f"user:{user_id}"}

    async def _rearranged(self, merged: str, person_ids: Collection[str]) -> None:
        """A name that several persons share may lead elsewhere when two of them become one, or two again."""
        users = {user for ids in (await self.identities.members(person_ids)).values() for user in ids} | {merged}
        self._concerned |= {f"user:{user}" for user in users} | set(await self.identities.names_of(users))

    async def _write(self) -> None:
        await self.identities.write_links(self._links.values())
        await self.identities.write_orders(self._orders.values())
        seen = await self.identities.campaigns(self._campaigns)
        first = {subject: known for subject, known in self._campaigns.items() if subject not in seen or known.at < seen[subject]}
        await self.identities.write_campaigns({"subject": subject, "at": it.at, "utm": dict(it.utm)} for subject, it in first.items())
        self._concerned |= first.keys()
        await self._write_lists()

    async def _write_lists(self) -> None:
        rows = await self.identities.subscriptions({user_id for user_id, _ in self._lists})
        known = {(row.user_id, row.list): row for row in rows}
        new: list[dict[str, Any]] = []
        for (user_id, name), (at, subscribed) in self._lists.items():
            row = known.get((user_id, name))
            if row is None or at > row.changed_at or (at == row.changed_at and subscribed != row.subscribed):
                new.append({"user_id": user_id, "list": name, "subscribed": subscribed, "changed_at": at})
        await self.identities.write_subscriptions(new)
        for row in await self.users({fields["user_id"] for fields in new}):
            row.updated_at = self.now

    async def _derive(self, person_ids: Collection[str]) -> None:
        """How far persons have come, on each of their users; their value on the one that stands for them."""
        members = await self.identities.members(person_ids)
        await self.users(_all(members.values()))
        orders = await self.identities.orders_of(person_ids)
        campaigns = await self.identities.campaigns_of(person_ids)
        for person_id, user_ids in members.items():
            rows = await self.users(user_ids)
            lead = any(row.lead_at for row in rows)
            standing = rules.standing(lead=lead, orders=orders.get(person_id, ()), campaigns=campaigns.get(person_id, ()))
            for row in rows:
                row.user_type = standing.user_type
                row.lifetime_value = standing.lifetime_value if row.id == person_id else _NOTHING
                row.utm_attribution = dict(standing.utm_attribution) if standing.utm_attribution else None


def _all(several: Iterable[Sequence[str]]) -> set[str]:
    return {each for some in several for each in some}


def weak_subjects(session_id: str, anonymous_id: str) -> list[str]:
    """The names of a visit and a visitor, of those that are given."""
    return [subject for subject in (subject_of(session_id=session_id), subject_of(anonymous_id=anonymous_id)) if subject]
