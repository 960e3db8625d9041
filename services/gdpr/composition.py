"""The role of gdpr: serves its rpcs, follows identity, erases and exports."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from pmp.gdpr.v1.connection_pb2_grpc import add_ConnectionServiceServicer_to_server
from pmp.gdpr.v1.gdpr_pb2_grpc import add_GdprServiceServicer_to_server
from pmp.identity.v1 import identity_pb2

from kit.log.leases import Leases
from kit.people.derivation import configured_key
from kit.people.persons import project_identity
from kit.people.signing import Signer
from kit.service.parts import Subscription
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from kit.service.state import PublishedState
from services.gdpr.archive import Archives
from services.gdpr.calls import Calls
from services.gdpr.connection import ConnectionServicer
from services.gdpr.deadlines import Deadlines
from services.gdpr.holders import Holders
from services.gdpr.messages import TOPIC
from services.gdpr.personal import PERSONAL_TABLES
from services.gdpr.saga import Saga
from services.gdpr.servicer import GdprServicer
from services.gdpr.settings import HOLDERS, GdprSettings

_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


def compose(settings: GdprSettings, resources: Resources, *, holders: Collection[str] = HOLDERS) -> ServiceRuntime:
    """Composes gdpr, which asks these services for the personal data they hold."""
    state, log, keys = PublishedState(settings, resources, TOPIC), resources.log, resources.keys
    asked, calls = Holders(settings, holders), Calls(settings)
    signer = Signer(configured_key(settings))
    saga = Saga(state.sessions, state.topic, keys, asked, signer=signer, calls=calls, rewrite=log.rewrite)
    archives = Archives(state.sessions, keys, asked, settings.site_name)
    servicer = GdprServicer(
        state.sessions, state.topic, state.relay, keys, asked, archives=archives, site=settings.site_name, systems=calls.systems
    )
    return state.runtime(
        rpcs=[
            (add_GdprServiceServicer_to_server, servicer),
            (add_ConnectionServiceServicer_to_server, ConnectionServicer(log.redis, settings)),
        ],
        tables=PERSONAL_TABLES,
        subscriptions=[Subscription("identity", _IDENTITY, project_identity)],
        background=[
            Deadlines(state.sessions, keys.hasher).run,
            lambda: saga.run(Leases(log, TOPIC, "saga", 1)),
            archives.sweep,
        ],
    )


ROLE: Final = Role(TOPIC, GdprSettings, compose)
