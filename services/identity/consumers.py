"""Handlers of the topics `events` and `purchases`: what they state of persons is added to the identity graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.publish.state_topic import StateTopic
from kit.log.streams import Delivery
from kit.people.hashing import KeyedHasher
from services.identity.links import user_identifier
from services.identity.models import UserRow
from services.identity.observations import IdentityObservation, PurchaseObservation, observe_event, observe_purchase
from services.identity.profile_changes import assign_address, complete_address, record_login
from services.identity.repository import Identities
from services.identity.unit_of_work import Graph, change_graph


class FollowEvents:
    """Handler of `events`: leads, logins, mailing lists, campaigns, and the sessions of known users."""

    def __init__(self, topic: StateTopic, hasher: KeyedHasher) -> None:
        self._topic = topic
        self._hasher = hasher

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Applies the events that change something. Most do not, and take a few queries for all of them and no lock."""
        events = [EventStored.FromString(delivery.record.payload) for delivery in deliveries]
        observations = [observation for event in events if (observation := observe_event(event))]
        identities = Identities(session)
        identifiers = {identifier for each in observations for identifier in each.all_identifiers}
        suppressed = await identities.suppressed(self._hasher, identifiers)
        observations = [left for each in observations if (left := each.unsuppressed(suppressed))]
        changing = await _changing(identities, observations)
        if changing:
            async with change_graph(session, self._topic) as graph:
                await _apply(graph, changing)


class FollowPurchases:
    """Handler of `purchases`: what persons have paid, and the sessions they paid in."""

    def __init__(self, topic: StateTopic, hasher: KeyedHasher) -> None:
        self._topic = topic
        self._hasher = hasher

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Applies orders and who was seen with them."""
        purchases = [observe_purchase(PurchaseChanged.FromString(delivery.record.payload)) for delivery in deliveries]
        identities = Identities(session)
        identifiers = {identifier for each in purchases for identifier in each.all_identifiers}
        suppressed = await identities.suppressed(self._hasher, identifiers)
        purchases = [left for each in purchases if (left := each.unsuppressed(suppressed))]
        observations = [each.observation for each in purchases]
        if await _changing(identities, observations) or await _changed_orders(identities, purchases):
            async with change_graph(session, self._topic) as graph:
                await _apply(graph, observations)
                for before, order in await _changed_orders(identities, purchases):
                    graph.facts.add_order(order)
                    graph.affect(before["subject"])
                    graph.affect(order["subject"])


async def _changed_orders(
    identities: Identities, purchases: Sequence[PurchaseObservation]
) -> Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Returns the orders that differ from those stored: each as stored, and as reported. A new order is as reported in both."""
    newest = {each.order["purchase_id"]: each.order for each in purchases}
    stored = await identities.orders(newest)
    return [(stored.get(key, order), order) for key, order in newest.items() if stored.get(key) != order]


async def _changing(identities: Identities, observations: Sequence[IdentityObservation]) -> Sequence[IdentityObservation]:
    """Returns the observations that may change the graph, which is read without its lock."""
    links = await identities.committed_links({identifier for each in observations for identifier in each.linked_identifiers})
    campaigns = await identities.campaigns({each.campaign.identifier for each in observations if each.campaign})
    return [each for each in observations if each.changes_graph(links, campaigns)]


async def _apply(graph: Graph, observations: Sequence[IdentityObservation]) -> None:
    await graph.load({identifier for each in observations for identifier in each.linked_identifiers})
    await graph.users.load({graph.links.owner(identifier) for each in observations for identifier in each.identifiers})
    for observation in observations:
        if observation.campaign:
            graph.facts.add_campaign(*observation.campaign)
        if identifier := observation.resolving_identifier(graph.links):
            row = await _observed_user(graph, observation, identifier)
            _apply_to_user(graph, observation, row)


async def _observed_user(graph: Graph, observation: IdentityObservation, identifier: str) -> UserRow:
    """Returns the user of an identifier with the address that was seen; creates the user if there is none."""
    owner = graph.links.owner(identifier)
    row = await graph.users.get(owner) if owner else _new_user(graph, observation, identifier)
    address = observation.address
    if address and address.identifier == identifier:
        if owner:
            complete_address(row, address)
        else:
            await assign_address(graph, row, address, observation.at, observation.evidence)
    return row


def _new_user(graph: Graph, observation: IdentityObservation, identifier: str) -> UserRow:
    return graph.create_user(identifier, observation.at, observation.evidence, historical=observation.historical)


def _apply_to_user(graph: Graph, observation: IdentityObservation, row: UserRow) -> None:
    at = observation.at
    if observation.session:
        graph.link(observation.session, row.id, at, observation.evidence)
    if observation.lead and (row.lead_at is None or at < row.lead_at):
        row.lead_at = at
        graph.affect(user_identifier(row.id))
    if observation.login:
        record_login(row, at)
        graph.affect(user_identifier(row.id))
    if observation.subscription:
        graph.facts.add_subscription(row.id, observation.subscription)
