"""The role of destinations: serves its rpcs, follows the topics, and delivers to other systems."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor
from pmp.destinations.v1.conflicts_pb2_grpc import add_ConflictsServiceServicer_to_server
from pmp.destinations.v1.destinations_pb2_grpc import add_DestinationsServiceServicer_to_server
from pmp.destinations.v1.notice_pb2 import ContentPerformanceUpdated, PeriodEnded
from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.ingestion.v1 import ingestion_pb2
from pmp.journeys.v1 import journeys_pb2
from pmp.purchases.v1 import purchases_pb2

from kit.database.transactions import Sessions
from kit.log.consume.handler import Handler
from kit.people.subjects.data import SubjectData
from kit.people.subjects.retention import Retention, expiries
from kit.people.subjects.servicer import SubjectDataServicer
from kit.service.parts import Subscription
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from services.destinations.alarms import Watch, wants
from services.destinations.configuration import load
from services.destinations.conflicts.consumers import FollowConflicts
from services.destinations.conflicts.personal import CONFLICTS
from services.destinations.conflicts.personal import KEPT as CONFLICTS_KEPT
from services.destinations.conflicts.servicer import ConflictsServicer
from services.destinations.connected import ConnectedSite
from services.destinations.consumers import MESSAGES, PROJECTIONS, Decide, Decisions
from services.destinations.content_feed import ContentFeed
from services.destinations.kind import Destination
from services.destinations.mesh_client import MeshClient
from services.destinations.notices import Notices, Source, is_wanted
from services.destinations.personal import KEPT, PERSONAL_TABLES
from services.destinations.profiles import Profiles
from services.destinations.received.composition import reception
from services.destinations.received.personal import KEPT as RECEIVED_KEPT
from services.destinations.received.personal import RECEIVED
from services.destinations.received.sender import Sender
from services.destinations.received.store import PAYMENTS
from services.destinations.senders import Senders
from services.destinations.servicer import DestinationsServicer
from services.destinations.settings import SERVICE, SITE, DestinationsSettings
from services.destinations.summaries import KINDS, Summaries
from services.destinations.upkeep import Upkeep

_HISTORIES: Final[dict[str, MethodDescriptor]] = {
    "events": ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["ListEvents"],
    "gdpr": gdpr_pb2.DESCRIPTOR.services_by_name["GdprService"].methods_by_name["ListGdprChanges"],
    "identity": identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"],
    "journeys": journeys_pb2.DESCRIPTOR.services_by_name["JourneysService"].methods_by_name["ListJourneyChanges"],
    "purchases": purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["ListPurchaseChanges"],
}


def compose(settings: DestinationsSettings, resources: Resources, *, webhooks_of: Mapping[str, Sender] | None = None) -> ServiceRuntime:
    """Composes destinations.

    Without a configured destination it follows only what an erasure needs, suppressions and the links between identifiers, and what a
    site needs that is connected by a code.

    Args:
        settings: of this service.
        resources: those of its process.
        webhooks_of: the senders of webhooks; by default all.
    """
    database, keys = resources.database(SERVICE, one_writer=True), resources.keys
    destinations = dict(load(settings.destinations, settings.connected))
    tables, kept = (*PERSONAL_TABLES, RECEIVED, CONFLICTS), {**KEPT, **RECEIVED_KEPT, **CONFLICTS_KEPT}
    data = SubjectData(database, keys, None, tables)
    webhooks = reception(settings, database.sessions, keys, webhooks_of)
    make_senders = partial(Senders, sessions=database.sessions, log=resources.log, keys=keys, profiles=Profiles(settings))
    senders = make_senders(dict(destinations))
    site = ConnectedSite(destinations, database.sessions, partial(make_senders, group="site")) if SITE not in destinations else None
    upkeep = Upkeep(database.sessions, destinations)
    started_at = datetime.now(UTC)

    def wake() -> None:
        senders.wake()
        if site is not None:
            site.wake()

    handlers: dict[str, Handler] = {
        topic: Decide(topic, destinations, keys.hasher, started_at, wake) for topic in sorted(MESSAGES if destinations else PROJECTIONS)
    }
    if site is not None:
        handlers |= {topic: site.before(handlers[topic]) for topic in PROJECTIONS}
    handlers["gdpr"] = FollowConflicts(keys, handlers["gdpr"])
    return ServiceRuntime(
        settings,
        resources,
        SERVICE,
        checks={"database": database.check},
        database=database,
        rpcs=[
            (add_DestinationsServiceServicer_to_server, DestinationsServicer(database.sessions, destinations, wake)),
            (add_ConflictsServiceServicer_to_server, ConflictsServicer(database.sessions, keys)),
            *webhooks.rpcs,
        ],
        subject_data=SubjectDataServicer(data, database, resources.log, None, follows=handlers),
        retention=Retention(settings, SERVICE, database.sessions, [*expiries(tables, kept), PAYMENTS]),
        subscriptions=[Subscription(topic, _HISTORIES[topic], handler) for topic, handler in handlers.items()],
        background=[
            *([senders.run] if destinations else []),
            *([site.run] if site is not None else []),
            upkeep.report,
            upkeep.expire,
            *webhooks.background,
            *_notices(settings, resources, dict(destinations), senders, database.sessions),
        ],
    )


def _notices(
    settings: DestinationsSettings,
    resources: Resources,
    destinations: Mapping[str, Destination[Any]],
    senders: Senders,
    sessions: Sessions,
) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
    """Returns what makes notices, if a destination wants some."""
    decisions = Decisions(destinations, resources.keys.hasher, datetime.now(UTC), senders.wake)
    mesh, sources = MeshClient(settings), list[Source]()
    if is_wanted(destinations, ContentPerformanceUpdated()):
        sources.append(ContentFeed(sessions, decisions, mesh))
    if any(is_wanted(destinations, PeriodEnded(period=kind)) for kind in KINDS):
        sources.append(Summaries(destinations, sessions, decisions, mesh, settings.site_timezone))
    if any(is_wanted(destinations, alarm) for alarm in wants()):
        sources.append(Watch(destinations, sessions, decisions, mesh, settings.log_disk))
    return [Notices(sources, resources.log, settings.notices_seconds).run] if sources else []


ROLE: Final = Role(SERVICE, DestinationsSettings, compose)
