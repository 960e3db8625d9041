"""The unit of work of identity: one transaction that changes the identity graph, from its lock to what is published."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from typing import Final

from pmp.identity.v1.change_pb2 import IdentityChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.publish.state_topic import StateTopic
from kit.people.persons import Persons
from services.identity.facts import PendingFacts
from services.identity.lifecycle import lifecycle_stage
from services.identity.links import Evidence, Link, Links, affected_by_merge, user_identifier, user_ids_in
from services.identity.merges import WordPressIds
from services.identity.messages import change_key, link_changed, merge_changed
from services.identity.models import MergeRow, UserRow
from services.identity.repository import Identities, touch
from services.identity.users import Users

_NOTHING: Final = Decimal(0)


@asynccontextmanager
async def change_graph(session: AsyncSession, topic: StateTopic) -> AsyncGenerator[Graph]:
    """Locks the identity graph until the transaction ends. On exit, what changed is settled and published.

    An exception inside leaves the changes unwritten: the transaction has to be rolled back.
    """
    identities = Identities(session)
    await identities.lock()
    graph = Graph(identities, Persons(session), datetime.now(UTC))
    yield graph
    await graph.settle()
    # Last, since the topic's offsets stay locked until the transaction ends.
    await topic.publish(session, [(change_key(change), change) for change in graph.published()])


class Graph:
    """The identity graph, locked, within one transaction; opened by `change_graph`.

    Changes are gathered and written together when they are settled: at the end, or before something is read that follows from
    them. So changes that share a transaction come out as if each had one of its own.
    """

    def __init__(self, identities: Identities, persons: Persons, now: datetime) -> None:
        self.identities = identities
        self.links = Links()
        self.users = Users(identities)
        self.facts = PendingFacts()
        self._now = now
        self._persons = _PersonLookup(persons)
        self._changed_links: dict[tuple[str, str], Link] = {}
        self._changed_merges: dict[str, IdentityChanged] = {}
        self._affected: set[str] = set()
        """Identifiers whose persons may have reached another stage."""
        self._settled: dict[str, IdentityChanged] = {}
        """Changes of links and merges that have been written, by key."""

    async def load(self, identifiers: Collection[str]) -> None:
        """Reads the links of identifiers, and the users of those of kind `user:`, so that `links` knows their owners."""
        self.links.load_users(row.id for row in await self.users.load(user_ids_in(identifiers)))
        missing = self.links.missing(identifiers)
        self.links.load(missing, await self.identities.links(missing))

    async def person_of(self, user_id: str) -> str:
        """Returns the person that a user belongs to."""
        return await self._persons.of_user(user_id)

    async def wordpress_ids(self, person_id: str) -> WordPressIds:
        """Returns the users of a person, each with its WordPress id."""
        members = await self._members([person_id])
        return {row.id: row.wordpress_id for row in await self.users.load(members.get(person_id, [person_id]))}

    def create_user(self, identifier: str, at: datetime, evidence: Evidence, *, historical: bool = False) -> UserRow:
        """Creates a user with its first identifier; `historical` if a historical report does."""
        row = self.users.create(identifier, self._now, historical=historical)
        self.links.load_users([row.id])
        self._persons.create(row.id)
        self.link(identifier, row.id, at, evidence)
        return row

    def link(self, identifier: str, user_id: str, at: datetime, evidence: Evidence) -> None:
        """Records that an identifier was seen with a user; of the same link, the earliest counts."""
        if self.links.adds(identifier, user_id, at):
            self._put(Link(identifier, user_id, at, evidence))

    def withdraw(self, identifier: str, user_id: str) -> None:
        """Withdraws a link: the identifier does not lead to the user any more."""
        self._put(self.links.withdrawn(identifier, user_id))

    def affect(self, identifier: str) -> None:
        """Marks the person that an identifier leads to: its stage is derived again."""
        self._affected.add(identifier)

    async def merge(self, person_id: str, merged: str, evidence: Evidence, reason: str = "") -> None:
        """Merges one person into another."""
        await self._affect_members([person_id, merged], merged)
        await self.identities.write_merge(
            merged_user_id=merged, user_id=person_id, reason=reason, evidence=evidence.value, merged_at=self._now, undone_at=None
        )
        self._changed_merges[merged] = merge_changed(merged, person_id, self._now, undone=False)
        self._persons.merge(person_id, merged)

    async def unmerge(self, merge: MergeRow) -> None:
        """Makes a merged user stand for itself again."""
        merged = merge.merged_user_id
        await self._affect_members([await self.person_of(merged)], merged)
        merge.undone_at = self._now
        self._changed_merges[merged] = merge_changed(merged, merge.user_id, merge.merged_at, undone=True)
        await self.settle()  # `person_of` anticipates merges, but not that one is undone

    async def settle(self) -> None:
        """Writes the changes gathered so far, and derives the stages of the persons they affect."""
        changes = [*map(link_changed, self._changed_links.values()), *self._changed_merges.values()]
        await self.identities.write_links(self._changed_links.values())
        await self._write_facts()
        before = await self._persons.of_identifiers(self._affected)
        if changes:
            await self._persons.settle(changes)
        after = await self._persons.of_identifiers(self._affected)
        await self._derive_stages({*before.values(), *after.values()})
        await self.identities.flush(self._now)
        self._settled |= {change_key(change): change for change in changes}
        self._changed_links.clear()
        self._changed_merges.clear()
        self._affected.clear()

    def published(self) -> list[IdentityChanged]:
        """Returns the changes to publish: all since the graph was opened."""
        return [*self._settled.values(), *self.users.changes()]

    def _put(self, link: Link) -> None:
        self.links.put(link)
        self._changed_links[link.identifier, link.user_id] = link
        self._affected |= {link.identifier, user_identifier(link.user_id)}

    async def _members(self, person_ids: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Returns the users of persons. Settles merges first, which decide it."""
        if self._changed_merges:
            await self.settle()
        return await self.identities.members(person_ids)

    async def _affect_members(self, person_ids: Collection[str], merged: str) -> None:
        user_ids = {merged, *chain.from_iterable((await self._members(person_ids)).values())}
        self._affected |= affected_by_merge(user_ids, await self.identities.identifiers_of(user_ids))

    async def _write_facts(self) -> None:
        await self.identities.write_orders(self.facts.orders)
        campaigns = self.facts.first_campaigns(await self.identities.campaigns(self.facts.campaign_identifiers))
        await self.identities.write_campaigns(campaigns)
        self._affected |= campaigns.keys()
        subscriptions = self.facts.newer_subscriptions(await self.identities.subscriptions(self.facts.subscribers))
        await self.identities.write_subscriptions(subscriptions)
        for row in await self.users.load({user_id for user_id, _ in subscriptions}):
            touch(row, self._now)
        self.facts.clear()

    async def _derive_stages(self, person_ids: Collection[str]) -> None:
        """Writes the stage of persons to each of their users, and the lifetime value to the one that stands for the person."""
        members = await self.identities.members(person_ids)
        await self.users.load(set(chain.from_iterable(members.values())))
        orders = await self.identities.orders_of(person_ids)
        campaigns = await self.identities.campaigns_of(person_ids)
        visits = await self.identities.last_visits_of(person_ids)
        for person_id, user_ids in members.items():
            rows = await self.users.load(user_ids)
            active_at = [visits.get(person_id), *(at for row in rows for at in (row.last_login, row.registration_date))]
            stage = lifecycle_stage(
                is_lead=any(row.lead_at for row in rows),
                orders=orders.get(person_id, ()),
                campaigns=campaigns.get(person_id, ()),
                active_at=filter(None, active_at),
                known_at=min(row.created_at for row in rows),
            )
            values = {currency: f"{value.normalize():f}" for currency, value in sorted(stage.lifetime_values.items())}
            for row in rows:
                if row.last_active_at is not None and stage.last_active_at > row.last_active_at:
                    row.inactive = False
                row.last_active_at = stage.last_active_at
                row.user_type = stage.user_type
                row.lifetime_value = stage.lifetime_value if row.id == person_id else _NOTHING
                row.lifetime_values = values if values and row.id == person_id else None
                row.utm_attribution = dict(stage.utm_attribution) if stage.utm_attribution else None
                row.paid_orders = stage.paid_orders


class _PersonLookup:
    """Looks up the persons of users, anticipating a merge that has yet to be settled."""

    def __init__(self, persons: Persons) -> None:
        self._persons = persons
        self._person_ids: dict[str, str] = {}
        self._merged_into: dict[str, str] = {}

    async def of_user(self, user_id: str) -> str:
        """Returns the person of a user."""
        identifier = user_identifier(user_id)
        if identifier not in self._person_ids:
            self._person_ids[identifier] = await self._persons.person(identifier) or user_id
        person_id = self._person_ids[identifier]
        return self._merged_into.get(person_id, person_id)

    async def of_identifiers(self, identifiers: Collection[str]) -> Mapping[str, str]:
        """Returns the persons of those identifiers that lead to one, as settled."""
        found = await self._persons.people(identifiers)
        self._person_ids |= found
        return found

    def create(self, user_id: str) -> None:
        """Adds the person of a new user."""
        self._person_ids[user_identifier(user_id)] = user_id

    def merge(self, person_id: str, merged: str) -> None:
        """Anticipates a merge."""
        self._merged_into[merged] = person_id

    async def settle(self, changes: Iterable[IdentityChanged]) -> None:
        """Applies changes of links and merges."""
        await self._persons.apply(changes)
        self._merged_into.clear()
