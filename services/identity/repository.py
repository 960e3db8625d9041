"""All SQL of identity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase

from kit.database.columns import UtcDateTime
from kit.database.transactions import chunks, upsert
from kit.people.hashing import KeyedHasher
from kit.people.persons import persons
from kit.people.suppression import Suppressed, Suppressions
from services.identity.lifecycle import Campaign, Order
from services.identity.links import Evidence, Link, Links, user_ids_in
from services.identity.models import CampaignRow, GraphLockRow, LinkRow, MergeRow, OrderRow, SubscriptionRow, UserRow
from services.identity.profiles import Subscription

_MOST_LINKS = 1000


class Identities:
    """The tables of identity, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock(self) -> None:
        """Waits for the lock of the identity graph: what is read afterwards does not change until the transaction ends.

        Which person an identifier leads to may depend on any link, so writers take turns. Readers need no lock.
        """
        await self._session.execute(select(GraphLockRow.id).with_for_update())

    async def suppressed(self, hasher: KeyedHasher, identifiers: Collection[str]) -> Suppressed:
        """Returns which of some identifiers belong to erased persons."""
        return await Suppressions(self._session).of(hasher, identifiers)

    async def users(self, user_ids: Collection[str]) -> Mapping[str, UserRow]:
        """Returns users by their ids, read anew."""
        rows: dict[str, UserRow] = {}
        for some in chunks(user_ids):
            query = select(UserRow).where(UserRow.id.in_(some)).execution_options(populate_existing=True)
            rows |= {row.id: row for row in await self._session.scalars(query)}
        return rows

    def add(self, row: UserRow) -> None:
        """Adds a new user, which the next `flush` writes."""
        self._session.add(row)

    async def flush(self, now: datetime | None = None) -> None:
        """Writes new and changed users; `now`, where given, becomes the time of update of the changed ones (`touch`)."""
        if now is not None:
            for row in self._session.dirty:
                if isinstance(row, UserRow) and self._session.is_modified(row):
                    touch(row, now)
        await self._session.flush()

    async def links(self, identifiers: Collection[str]) -> Sequence[Link]:
        """Returns the links of identifiers, including withdrawn ones."""
        columns = (LinkRow.subject, LinkRow.user_id, LinkRow.linked_at, LinkRow.evidence, LinkRow.withdrawn)
        links: list[Link] = []
        for some in chunks(identifiers):
            rows = await self._session.execute(select(*columns).where(LinkRow.subject.in_(some)))
            links += [Link(row.subject, row.user_id, row.linked_at, Evidence(row.evidence), row.withdrawn) for row in rows]
        return links

    async def committed_links(self, identifiers: Collection[str]) -> Links:
        """Returns the links of identifiers, read without the lock of the graph: another transaction may be changing them."""
        links = Links()
        links.load_users(await self.users(user_ids_in(identifiers)))
        missing = links.missing(identifiers)
        links.load(missing, await self.links(missing))
        return links

    async def links_of(self, user_ids: Collection[str]) -> Sequence[LinkRow]:
        """Returns the links of users without withdrawn ones; the first thousand by time."""
        query = select(LinkRow).where(LinkRow.user_id.in_(sorted(user_ids)), LinkRow.withdrawn.is_(False))
        return (await self._session.scalars(query.order_by(LinkRow.linked_at, LinkRow.subject).limit(_MOST_LINKS))).all()

    async def identifiers_of(self, user_ids: Collection[str]) -> Sequence[str]:
        """Returns all identifiers that are or were linked with users."""
        return (await self._session.scalars(select(LinkRow.subject).where(LinkRow.user_id.in_(sorted(user_ids))))).all()

    async def write_links(self, links: Iterable[Link]) -> None:
        """Writes links, new or changed."""
        await self._write(LinkRow, map(_link_fields, links))

    async def merge(self, merged_user_id: str) -> MergeRow | None:
        """Returns the merge of a user into another, undone or not."""
        query = select(MergeRow).where(MergeRow.merged_user_id == merged_user_id).execution_options(populate_existing=True)
        return await self._session.scalar(query)

    async def write_merge(self, **fields: Any) -> None:
        """Writes a merge, new or changed."""
        await self._write(MergeRow, [fields])

    async def members(self, person_ids: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Returns the users of persons; the user that stands for the person comes first."""
        found: dict[str, list[str]] = defaultdict(list)
        for some in chunks(person_ids):
            query = select(persons.c.person_id, persons.c.subject).where(
                persons.c.person_id.in_(some), persons.c.subject.startswith("user:")
            )
            for row in await self._session.execute(query.order_by(persons.c.subject)):
                found[row.person_id].append(row.subject.removeprefix("user:"))
        return {person: sorted(ids, key=lambda user: user != person) for person, ids in found.items()}

    async def orders_of(self, person_ids: Collection[str]) -> Mapping[str, Sequence[Order]]:
        """Returns the orders of persons that count in figures."""
        found: dict[str, list[Order]] = defaultdict(list)
        about = (OrderRow.base_net_amount, OrderRow.currency, OrderRow.net_amount, OrderRow.paid, OrderRow.membership, OrderRow.sold_at)
        columns = (persons.c.person_id, *about)
        for some in chunks(person_ids):
            query = select(*columns).join_from(persons, OrderRow, OrderRow.subject == persons.c.subject)
            for row in await self._session.execute(query.where(persons.c.person_id.in_(some), OrderRow.excluded.is_(False))):
                found[row.person_id].append(Order(*row[1:]))
        return found

    async def campaigns_of(self, person_ids: Collection[str]) -> Mapping[str, Sequence[Campaign]]:
        """Returns the campaigns of persons."""
        found: dict[str, list[Campaign]] = defaultdict(list)
        columns = (persons.c.person_id, CampaignRow.at, CampaignRow.utm)
        for some in chunks(person_ids):
            query = select(*columns).join_from(persons, CampaignRow, CampaignRow.subject == persons.c.subject)
            for row in await self._session.execute(query.where(persons.c.person_id.in_(some))):
                found[row.person_id].append(Campaign(row.at, row.utm))
        return found

    async def last_visits_of(self, person_ids: Collection[str]) -> Mapping[str, datetime]:
        """Returns when the last session of persons began in which they were recognised."""
        found: dict[str, datetime] = {}
        last = select(persons.c.person_id, func.max(LinkRow.linked_at, type_=UtcDateTime())).join_from(
            persons, LinkRow, LinkRow.subject == persons.c.subject
        )
        own = last.where(LinkRow.kind == "session", LinkRow.withdrawn.is_(False)).group_by(persons.c.person_id)
        for some in chunks(person_ids):
            rows: Any = await self._session.execute(own.where(persons.c.person_id.in_(some)))
            found |= dict(rows.all())
        return found

    async def wrongly_active(self, since: datetime, limit: int) -> Sequence[UserRow]:
        """Returns users whose mark of inactivity is outdated: it is to say whether they were last active before this time."""
        rows: list[UserRow] = []
        for outdated in (
            and_(UserRow.inactive.is_(False), or_(UserRow.last_active_at.is_(None), UserRow.last_active_at < since)),
            and_(UserRow.inactive.is_(True), UserRow.last_active_at >= since),
        ):
            rows += await self._session.scalars(select(UserRow).where(outdated).limit(limit))
        return rows

    async def campaigns(self, identifiers: Collection[str]) -> Mapping[str, datetime]:
        """Returns when the stored campaigns of identifiers were seen."""
        return {row.subject: row.at for row in await self._of(CampaignRow, CampaignRow.subject, identifiers)}

    async def write_campaigns(self, campaigns: Mapping[str, Campaign]) -> None:
        """Writes the first campaigns of identifiers."""
        await self._write(CampaignRow, [{"subject": key, "at": each.at, "utm": dict(each.utm)} for key, each in campaigns.items()])

    async def orders(self, purchase_ids: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """Returns orders as last reported, by their ids."""
        rows = await self._of(OrderRow, OrderRow.purchase_id, purchase_ids)
        return {row.purchase_id: {column.name: getattr(row, column.name) for column in OrderRow.__table__.columns} for row in rows}

    async def write_orders(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes orders, new or changed."""
        await self._write(OrderRow, rows)

    async def subscriptions(self, user_ids: Collection[str]) -> Mapping[tuple[str, str], Subscription]:
        """Returns the mailing lists of users, by user and list."""
        rows = await self._of(SubscriptionRow, SubscriptionRow.user_id, user_ids)
        return {(row.user_id, row.list): Subscription(row.list, row.subscribed, row.changed_at) for row in rows}

    async def write_subscriptions(self, subscriptions: Mapping[tuple[str, str], Subscription]) -> None:
        """Writes mailing lists, new or changed."""
        rows = [
            {"user_id": user_id, "list": each.list, "subscribed": each.subscribed, "changed_at": each.changed_at}
            for (user_id, _), each in subscriptions.items()
        ]
        await self._write(SubscriptionRow, rows)

    async def _of(self, entity: Any, column: Any, values: Collection[str]) -> list[Any]:
        rows: list[Any] = []
        for some in chunks(values):
            rows += await self._session.scalars(select(entity).where(column.in_(some)).execution_options(populate_existing=True))
        return rows

    async def _write(self, entity: type[DeclarativeBase], rows: Iterable[Mapping[str, Any]]) -> None:
        table = cast("Table", entity.__table__)
        names = [column.name for column in table.primary_key]
        await upsert(self._session, table, sorted(rows, key=lambda row: [row[name] for name in names]))


def touch(row: UserRow, now: datetime) -> None:
    """Sets the time of update of a user. It orders its states, so it rises: clocks of processes differ, and are set back.

    It stays where it is the time of this transaction already.
    """
    row.updated_at = now if now >= row.updated_at else row.updated_at + timedelta(microseconds=1)


def _link_fields(link: Link) -> Mapping[str, Any]:
    return {
        "subject": link.identifier,
        "user_id": link.user_id,
        "kind": link.kind,
        "evidence": link.evidence.value,
        "linked_at": link.linked_at,
        "withdrawn": link.withdrawn,
    }
