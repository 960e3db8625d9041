"""Follows other topics: their messages become facts and totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any, Final, NamedTuple

from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.streams import Delivery
from kit.people.hashing import KeyedHasher
from kit.people.persons import Persons
from kit.people.suppression import Screening, Suppressions, screen
from services.analytics.affiliates import AffiliateProgram
from services.analytics.days import Calendar
from services.analytics.messages import Seen, SeenOrder, may_move, micros, seen, seen_order, single, titles_of
from services.analytics.orders import Order
from services.analytics.projection import Totals, merged
from services.analytics.repository import Orders, Sessions, Stored, moment
from services.analytics.sessions import Event, anonymous, split

_PSEUDONYM: Final = "erased:"
"""How pseudonyms of erased persons begin."""


class _Changes(NamedTuple):
    """What messages change in sessions, by carrier."""

    added: Mapping[str, Mapping[str, Event]]
    """Events by key."""
    removed: Mapping[str, Collection[str]]
    """Keys of events that are counted elsewhere now, or not at all."""
    firsts: Collection[str]
    """Keys of those added that are no repetitions."""
    first: int
    """The time of the first event, in microseconds since 1970."""


class FollowEvents:
    """Handler of the topic `events`: each event becomes part of a session, or counts by itself.

    Args:
        hasher: recognises the identifiers of erased persons.
        calendar: assigns times to days.
        program: credits orders to affiliates.
    """

    def __init__(self, hasher: KeyedHasher, calendar: Calendar, program: AffiliateProgram) -> None:
        self._hasher = hasher
        self._calendar = calendar
        self._program = program

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Counts events, except those of bots. An event of an erased person counts without its person."""
        stored = [EventStored.FromString(delivery.record.payload) for delivery in deliveries]
        kept = await self._screened(session, stored)
        totals, facts = Totals(session, self._calendar), Sessions(session)
        await totals.lock()
        added: dict[str, dict[str, Event]] = defaultdict(dict)
        removed: dict[str, set[str]] = defaultdict(set)
        firsts: set[str] = set()
        titles: dict[str, str] = {}
        replaced = await self._replaced(facts, stored, kept)
        for message, (carrier, event) in zip(stored, kept, strict=True):
            if event.key in replaced and not message.is_update:
                continue
            titles |= titles_of(message, event)
            if message.is_update and may_move(carrier):
                for known in await self._carriers(facts, event, added):
                    removed[known].add(event.key)
                    added[known].pop(event.key, None)
            if message.enrichment.is_bot:
                if message.is_update:
                    removed[carrier].add(event.key)
                    added[carrier].pop(event.key, None)
            elif carrier:
                added[carrier][event.key] = event
                if not message.is_update:
                    firsts.add(event.key)
            else:
                totals.count(carrier, [event], 1)
        if added or removed:
            await self._change(facts, totals, _Changes(added, removed, firsts, min(event.at for _, event in kept)))
            await self._follow_sources(session, totals, {each for each in added.keys() | removed.keys() if not may_move(each)})
        await Orders(session).name_courses(titles)
        await totals.write()

    async def _screened(self, session: AsyncSession, stored: Sequence[EventStored]) -> list[Seen]:
        """Returns events as they may be kept: those of erased persons, and in their sessions, without their carrier."""
        found = [seen(message) for message in stored]
        suppressed = await Suppressions(session).of(self._hasher, {each for carrier, event in found for each in (event.subject, carrier)})
        if not suppressed:
            return found
        return [
            Seen("", anonymous(event))
            if _is_erased(screen((event.subject, carrier), moment(event.at), suppressed))
            else Seen(carrier, event)
            for carrier, event in found
        ]

    @staticmethod
    async def _replaced(facts: Sessions, stored: Sequence[EventStored], kept: Sequence[Seen]) -> set[str]:
        """Returns the keys of events whose repetition is stored, or is among these: in another partition, it may arrive first."""
        repeated = {event.key for message, (_, event) in zip(stored, kept, strict=True) if message.is_update}
        singles = {single(event.key): event.key for carrier, event in kept if carrier and may_move(carrier)}
        return repeated | {singles[each] for each in await facts.singles(singles)}

    async def _carriers(self, facts: Sessions, event: Event, added: Mapping[str, Mapping[str, Event]]) -> set[str]:
        """Returns the carriers under which an event that may have moved was stored, or is about to be."""
        about_to_be = {carrier for carrier, events in added.items() if event.key in events}
        return about_to_be | set(await facts.with_event(event.key, single(event.key), event.at))

    async def _change(self, facts: Sessions, totals: Totals, changes: _Changes) -> None:
        added, removed = changes.added, changes.removed
        carriers = added.keys() | removed.keys()
        stored = await facts.since(carriers, changes.first)
        writes: list[tuple[str, int | None, Sequence[Event]]] = []
        outdated: list[int] = []
        for carrier in carriers:
            known = stored.get(carrier, ())
            events = merged((each.session for each in known), added.get(carrier, {}), removed.get(carrier, ()), changes.firsts)
            now = list(split(events))
            for position, after in enumerate(now):
                before = known[position] if position < len(known) else None
                if before is None or before.session != after:
                    writes.append((carrier, before.id if before else None, after))
                    self._replace(totals, carrier, before, after)
            for before in known[len(now) :]:
                outdated.append(before.id)
                self._replace(totals, carrier, before, ())
        await facts.write(writes)
        await facts.remove(outdated)

    async def _follow_sources(self, session: AsyncSession, totals: Totals, carriers: Collection[str]) -> None:
        """Counts orders for the sources that the sessions in which they were bought have now."""
        facts = Orders(session)
        bought = await facts.bought_in(carriers)
        sessions = await Sessions(session).all({row["carrier"] for row in bought})
        changed: list[dict[str, Any]] = []
        for row in bought:
            known = SeenOrder(row["purchase_id"], row["subject"], row["carrier"], Order.loads(row["payload"]), row["visitor"] or "")
            found = known.bought_in(sessions.get(row["carrier"], ()))
            payload = self._program.credited(found.order).dumps()
            if (found.visitor, payload) != (known.visitor, row["payload"]):
                totals.count_order(row["subject"], row["visitor"], row["payload"], -1)
                totals.count_order(row["subject"], found.visitor, payload, 1)
                changed.append({**row, "visitor": found.visitor or None, "payload": payload})
        await facts.put(changed)

    @staticmethod
    def _replace(totals: Totals, carrier: str, before: Stored | None, after: Sequence[Event]) -> None:
        if before is not None:
            totals.count(carrier, before.session, -1)
        if after:
            totals.count(carrier, after, 1)


class FollowPurchases:
    """Handler of the topic `purchases`: keeps the newest state of each order.

    Args:
        hasher: recognises the identifiers of erased persons.
        calendar: assigns times to days.
        program: credits orders to affiliates.
    """

    def __init__(self, hasher: KeyedHasher, calendar: Calendar, program: AffiliateProgram) -> None:
        self._hasher = hasher
        self._calendar = calendar
        self._program = program

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Counts orders. One of an erased person is not stored until it is published under a pseudonym."""
        totals, facts = Totals(session, self._calendar), Orders(session)
        await totals.lock()
        latest: dict[str, tuple[SeenOrder, PurchaseChanged, Delivery]] = {}
        for delivery in deliveries:
            change = PurchaseChanged.FromString(delivery.record.payload)
            latest[change.purchase_id] = (seen_order(change), change, delivery)
        known = await facts.known(latest)
        identifiers = {identifier for each, _, _ in latest.values() for identifier in (each.subject, each.carrier)}
        suppressed = await Suppressions(session).of(self._hasher, identifiers)
        sessions = await Sessions(session).all({each.carrier for each, _, _ in latest.values()} - {""})
        rows: list[dict[str, Any]] = []
        products: dict[str, str] = {}
        courses: dict[str, str] = {}
        abandoned: set[tuple[str, str]] = set()
        for each, change, delivery in latest.values():
            before, read_at = known.get(each.purchase_id), (delivery.offset.ms, delivery.ordinal)
            is_older = before is not None and read_at < (before.position, before.ordinal)
            screening = screen((each.subject, each.carrier), change.timestamp.ToDatetime(UTC), suppressed)
            if is_older or screening.is_dropped:
                continue
            kept = each._replace(carrier="") if screening.stripped else each
            kept = kept.bought_in(sessions.get(kept.carrier, ()))
            if before is not None:
                totals.count_order(before.subject, before.visitor, before.payload, -1)
                kept = _recognised(kept, before.subject, before.visitor or "", before.payload)
            if not each.subject.startswith(_PSEUDONYM):
                kept = kept._replace(order=self._program.credited(kept.order))
            row = _row(kept, *read_at)
            totals.count_order(row["subject"], row["visitor"], row["payload"], 1)
            rows.append(row)
            if before is not None and before.payload:
                abandoned |= {*Order.loads(before.payload).dimensions()} - {*(() if kept.order.excluded else kept.order.dimensions())}
            titled = [line for line in each.order.lines if line.title]
            products |= {line.product: line.title for line in titled}
            courses |= {line.courses[0]: line.title for line in titled if len(line.courses) == 1}
        await facts.put(rows)
        await facts.name_products(products)
        await facts.name_courses(courses)
        await totals.write()
        # The coupon that an order no longer has may identify its buyer, and an erasure would not find it.
        await totals.remove_zeros(abandoned)


class FollowIdentity:
    """Handler of the topic `identity`: projects persons, with whom the members of audiences change, and registrations.

    Args:
        calendar: assigns times to days.
    """

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Applies changes of persons."""
        totals = Totals(session, self._calendar)
        await totals.lock()
        changes = [IdentityChanged.FromString(delivery.record.payload) for delivery in deliveries]
        moved = await Persons(session).apply(changes)
        await self._register(totals, Orders(session), changes)
        await totals.write(moved)

    async def _register(self, totals: Totals, facts: Orders, changes: Iterable[IdentityChanged]) -> None:
        days = {
            change.user.user_id: self._calendar.day(micros(change.user.registration_date))
            for change in changes
            if change.HasField("user") and change.user.HasField("registration_date")
        }
        known = await facts.registered(days)
        for user, day in days.items():
            before = known.get(user)
            if before == day:
                continue
            if before is not None:
                totals.count_registration(user, before, -1)
            totals.count_registration(user, day, 1)


def _is_erased(screening: Screening) -> bool:
    """True for an event of an erased person, and for one in the session of an erased person."""
    return screening.is_dropped or bool(screening.stripped)


def _recognised(each: SeenOrder, subject: str, visitor: str, payload: str) -> SeenOrder:
    """Returns an order with what is known of it already.

    One that was published under a pseudonym counts for whom and for what source, coupons and affiliate it counted before; one whose
    session is not stored, or no longer, keeps its source and its session.
    """
    is_erased = each.subject.startswith(_PSEUDONYM)
    if not payload:
        return each._replace(subject=subject) if is_erased else each
    known, order = Order.loads(payload), each.order
    if order.visited_at is None:
        order = order._replace(landing=known.landing, video=known.video, visited_at=known.visited_at)
        each = each._replace(visitor=visitor)
    if is_erased:
        breakdown = order.breakdown._replace(coupons=known.breakdown.coupons, referral=known.breakdown.referral)
        order = order._replace(breakdown=breakdown, credit=known.credit)
    if is_erased or not (order.is_stated or order.source):
        order = order._replace(is_stated=known.is_stated, source=known.source, medium=known.medium, campaign=known.campaign)
    return each._replace(subject=subject if is_erased else each.subject, order=order)


def _row(each: SeenOrder, position: int, ordinal: int) -> dict[str, Any]:
    order = each.order
    return {
        "purchase_id": each.purchase_id,
        "subject": each.subject,
        "carrier": each.carrier or None,
        "visitor": each.visitor or None,
        "sold_at": moment(order.sold_at) if order.sold_at is not None and not order.excluded else None,
        "is_excluded": bool(order.excluded),
        "net": order.net,
        "payload": order.dumps(),
        "position": position,
        "ordinal": ordinal,
    }
