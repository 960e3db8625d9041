"""The role of journeys: serves its rpcs, and follows what journeys are made of."""

from __future__ import annotations

from functools import partial
from typing import Final

from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.ingestion.v1 import ingestion_pb2
from pmp.journeys.v1.journeys_pb2_grpc import add_JourneysServiceServicer_to_server
from pmp.purchases.v1 import purchases_pb2

from kit.people.privacy import project_consent
from kit.service.parts import Subscription
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from kit.service.state import PublishedState
from kit.settings import Settings
from services.journeys.attribution_store import AttributionStore, splitter_of
from services.journeys.consumers import FollowEvents, FollowPurchases, follow_identity
from services.journeys.messages import TOPIC
from services.journeys.models import SessionRow
from services.journeys.personal import personal_tables, session_pseudonym
from services.journeys.projection import erase_paths, mark_expired
from services.journeys.repository import erase_sessions
from services.journeys.servicer import JourneysServicer

_GDPR = gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"]
_EVENTS = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["ListEvents"]
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]
_PURCHASES = purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["ListPurchaseChanges"]


def compose(settings: Settings, resources: Resources) -> ServiceRuntime:
    """Composes journeys."""
    state, hasher = PublishedState(settings, resources, TOPIC), resources.keys.hasher
    splitter = splitter_of(settings, hasher)
    store = AttributionStore(state.sessions, splitter)
    servicer = JourneysServicer(settings, state.sessions, state.topic, hasher, store)
    return state.runtime(
        rpcs=[(add_JourneysServiceServicer_to_server, servicer)],
        tables=personal_tables(
            hasher, partial(erase_sessions, pseudonym_of=partial(session_pseudonym, hasher)), partial(erase_paths, splitter)
        ),
        after_expiry={SessionRow.__tablename__: mark_expired},
        subscriptions=[
            Subscription("events", _EVENTS, FollowEvents(hasher)),
            Subscription("gdpr", _GDPR, project_consent),
            Subscription("identity", _IDENTITY, follow_identity),
            Subscription("purchases", _PURCHASES, FollowPurchases(hasher)),
        ],
        background=[store.run],
    )


ROLE: Final = Role(TOPIC, Settings, compose)
