"""Handlers of the topics `events` and `purchases`: what others saw of persons joins what identity knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.publish.state_topic import StateTopic
from kit.log.streams import Delivery
from kit.people.persons import Persons
from kit.people.vault import Vault
from services.identity.graph import Graph
from services.identity.observations import IdentityObservation, PurchaseObservation, bought, may_be_made, observation_of
from services.identity.profiles import fill_in, take_address
from services.identity.repository import Identities


class FollowEvents:
    """Handler of `events`: leads, logins, mailing lists, campaigns, and the visits of known users."""

    def __init__(self, topic: StateTopic, vault: Vault) -> None:
        self._topic = topic
        self._vault = vault

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Takes in what is new; most events tell nothing new, and are done with two queries for all of them."""
        told = [observation_of(EventStored.FromString(delivery.record.payload)) for delivery in deliveries]
        graph = Graph(Identities(session), Persons(session), datetime.now(UTC))
        seen = [observation for observation in told if observation]
        suppressed = await graph.identities.suppressed(self._vault, {name for each in seen for name in each.all_names})
        seen = [left for each in seen if (left := each.unsuppressed(suppressed))]
        observations = await _new(graph, seen)
        if observations:
            await graph.lock()
            await _apply(graph, observations)
            await self._topic.publish(session, await graph.settle())


class FollowPurchases:
    """Handler of `purchases`: what persons have paid, and the visits they paid in."""

    def __init__(self, topic: StateTopic, vault: Vault) -> None:
        self._topic = topic
        self._vault = vault

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Takes in how orders stand."""
        told = [bought(PurchaseChanged.FromString(delivery.record.payload)) for delivery in deliveries]
        names = {name for each in told for name in (each.order["subject"], *each.observation.all_names)}
        graph = Graph(Identities(session), Persons(session), datetime.now(UTC))
        suppressed = await graph.identities.suppressed(self._vault, names)
        told = [left for each in told if (left := each.unsuppressed(suppressed))]
        if await _new(graph, [each.observation for each in told]) or await _moved(graph, told):
            await graph.lock()
            await _apply(graph, [each.observation for each in told])
            for before, order in await _moved(graph, told):
                graph.order(order)
                graph.concern(before["subject"])
            await self._topic.publish(session, await graph.settle())


async def _moved(graph: Graph, told: Sequence[PurchaseObservation]) -> Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The orders that stand otherwise than before: how they stood, and how they stand. A new one stood as it stands."""
    newest = {each.order["purchase_id"]: each.order for each in told}
    known = await graph.identities.orders(newest)
    return [(known.get(key, order), order) for key, order in newest.items() if known.get(key) != order]


async def _new(graph: Graph, observations: Sequence[IdentityObservation]) -> Sequence[IdentityObservation]:
    """Those that may change something."""
    await graph.know({subject for observation in observations for subject in (*observation.names, observation.session)})
    campaigns = await graph.identities.campaigns({observation.campaign[0] for observation in observations if observation.campaign})
    return [each for each in observations if each.is_news or not _is_known(graph, each) or _is_first(each, campaigns)]


def _is_known(graph: Graph, observation: IdentityObservation) -> bool:
    """True when the names of an observation are linked already, or make nobody known."""
    name = _name(graph, observation)
    owner = graph.owner(name)
    return not name or (owner != "" and (not observation.session or graph.knows(observation.session, owner, observation.at)))


def _name(graph: Graph, observation: IdentityObservation) -> str:
    """The strongest name that leads to a user, or may make one known; empty for none."""
    return next((name for name in observation.names if graph.owner(name) or may_be_made(name)), "")


def _is_first(observation: IdentityObservation, campaigns: Mapping[str, datetime]) -> bool:
    if observation.campaign is None:
        return False
    known = campaigns.get(observation.campaign[0])
    return known is None or observation.at < known


async def _apply(graph: Graph, observations: Sequence[IdentityObservation]) -> None:
    await graph.know({subject for observation in observations for subject in (*observation.names, observation.session)})
    await graph.users({graph.owner(name) for observation in observations for name in observation.names})
    for observation in observations:
        if observation.campaign:
            subject, campaign = observation.campaign
            graph.campaign(subject, campaign.at, campaign.utm)
        name = _name(graph, observation)
        if name:
            await _note(graph, observation, name)


async def _note(graph: Graph, observation: IdentityObservation, name: str) -> None:
    """Takes in what is told of the user of a name, who is made known if nobody is yet."""
    at, owner = observation.at, graph.owner(name)
    row = await graph.user(owner) if owner else graph.create(name, at, observation.evidence)
    user_id = row.id
    if observation.address and observation.address.subject == name:
        if owner:
            fill_in(row, observation.address)
        else:
            await take_address(graph, row, observation.address, at, observation.evidence)
    if observation.session:
        graph.link(observation.session, user_id, at, observation.evidence)
    if observation.lead and (row.lead_at is None or at < row.lead_at):
        row.lead_at = at
        graph.concern(f"user:{user_id}")
    if observation.login and (row.last_login is None or at > row.last_login):
        row.last_login = at
    if observation.subscription:
        graph.subscribe(user_id, observation.subscription.list, at, subscribed=observation.subscription.subscribed)
