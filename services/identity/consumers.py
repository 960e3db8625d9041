"""Handlers of the topics `events` and `purchases`: what others saw of persons joins what identity knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.consume import Delivery, Poison
from kit.outbox import StateTopic
from kit.persons import Persons
from services.identity.graph import Graph
from services.identity.profiles import fill_in, take_address
from services.identity.repository import Identities
from services.identity.sightings import Bought, Sighting, bought, may_be_made, sighting_of

_APPLIED = "applied"


class FollowEvents:
    """Handler of `events`: leads, logins, mailing lists, campaigns, and the visits of known users."""

    def __init__(self, topic: StateTopic) -> None:
        self._topic = topic

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[str | Poison]:
        """Takes in what is new; most events tell nothing new, and are done with two queries for all of them."""
        told = [sighting_of(EventStored.FromString(delivery.record.payload)) for delivery in deliveries]
        graph = Graph(Identities(session), Persons(session), datetime.now(UTC))
        sightings = await _new(graph, [sighting for sighting in told if sighting])
        if sightings:
            await graph.lock()
            await _apply(graph, sightings)
            await self._topic.tell(session, await graph.settle())
        return [_APPLIED] * len(deliveries)


class FollowPurchases:
    """Handler of `purchases`: what persons have paid, and the visits they paid in."""

    def __init__(self, topic: StateTopic) -> None:
        self._topic = topic

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[str | Poison]:
        """Takes in how orders stand."""
        told = [bought(PurchaseChanged.FromString(delivery.record.payload)) for delivery in deliveries]
        graph = Graph(Identities(session), Persons(session), datetime.now(UTC))
        if await _new(graph, [each.sighting for each in told]) or await _moved(graph, told):
            await graph.lock()
            await _apply(graph, [each.sighting for each in told])
            for before, order in await _moved(graph, told):
                graph.order(order)
                graph.concern(before["subject"])
            await self._topic.tell(session, await graph.settle())
        return [_APPLIED] * len(deliveries)


async def _moved(graph: Graph, told: Sequence[Bought]) -> Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The orders that stand otherwise than before: how they stood, and how they stand. A new one stood as it stands."""
    newest = {each.order["purchase_id"]: each.order for each in told}
    known = await graph.identities.orders(newest)
    return [(known.get(key, order), order) for key, order in newest.items() if known.get(key) != order]


async def _new(graph: Graph, sightings: Sequence[Sighting]) -> Sequence[Sighting]:
    """Those that may change something."""
    await graph.know({subject for sighting in sightings for subject in sighting.subjects})
    campaigns = await graph.identities.campaigns({sighting.campaign[0] for sighting in sightings if sighting.campaign})
    return [each for each in sightings if each.is_news or not _is_known(graph, each) or _is_first(each, campaigns)]


def _is_known(graph: Graph, sighting: Sighting) -> bool:
    """True when the names of a sighting are linked already, or make nobody known."""
    owner = graph.owner(sighting.name)
    if not owner:
        return not may_be_made(sighting.name)
    return not sighting.session or graph.knows(sighting.session, owner, sighting.at)


def _is_first(sighting: Sighting, campaigns: Mapping[str, datetime]) -> bool:
    if sighting.campaign is None:
        return False
    known = campaigns.get(sighting.campaign[0])
    return known is None or sighting.at < known


async def _apply(graph: Graph, sightings: Sequence[Sighting]) -> None:
    await graph.know({subject for sighting in sightings for subject in sighting.subjects})
    await graph.users({graph.owner(sighting.name) for sighting in sightings})
    for sighting in sightings:
        if sighting.campaign:
            subject, campaign = sighting.campaign
            graph.campaign(subject, campaign.at, campaign.utm)
        user_id = await _seen(graph, sighting)
        if user_id:
            await _note(graph, sighting, user_id)


async def _seen(graph: Graph, sighting: Sighting) -> str:
    """The user that was seen, made known if its name allows; empty for nobody."""
    name = sighting.name
    user_id = graph.owner(name)
    if not user_id and may_be_made(name):
        row = graph.create(name, sighting.at, sighting.evidence)
        user_id = row.id
        if not sighting.user and sighting.address:
            await take_address(graph, row, sighting.address, sighting.at, sighting.evidence)
    return user_id


async def _note(graph: Graph, sighting: Sighting, user_id: str) -> None:
    row = await graph.user(user_id)
    if sighting.session:
        graph.link(sighting.session, user_id, sighting.at, sighting.evidence)
    if sighting.address and not sighting.user:
        fill_in(row, sighting.address)
    if sighting.lead and (row.lead_at is None or sighting.at < row.lead_at):
        row.lead_at = sighting.at
        graph.concern(f"user:{user_id}")
    if sighting.login and (row.last_login is None or sighting.at > row.last_login):
        row.last_login = sighting.at
    if sighting.subscription:
        graph.subscribe(user_id, sighting.subscription.list, sighting.at, subscribed=sighting.subscription.subscribed)
