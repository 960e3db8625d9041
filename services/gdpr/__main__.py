"""Serves the rpcs of gdpr, follows who is who, erases and exports: `python -m services gdpr`."""

from __future__ import annotations

from pathlib import Path

from pmp.gdpr.v1.gdpr_pb2_grpc import add_GdprServiceServicer_to_server
from pmp.identity.v1 import identity_pb2

import services
from kit.log.leases import Leases
from kit.log.publisher import Feed, open_publisher
from kit.persons import learn
from kit.server import run
from kit.settings import Settings
from services.gdpr.archive import Archives
from services.gdpr.calls import Calls
from services.gdpr.messages import TOPIC
from services.gdpr.personal import HOLDINGS
from services.gdpr.saga import Holders, Saga
from services.gdpr.servicer import GdprServicer

_HOLDERS = sorted(path.parent.name for path in Path(services.__path__[0]).glob("*/models.py"))
"""Each folder is a service; one with tables may hold something of persons."""
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


async def main(settings: Settings) -> None:
    """Answers, publishes and follows until it is told to stop."""
    async with open_publisher(settings, TOPIC) as publisher:
        keys = publisher.keys
        holders = Holders(settings, _HOLDERS)
        calls = Calls(settings)
        saga = Saga(publisher.sessions, publisher.topic, keys, holders, calls=calls, rewrite=publisher.log.rewrite)
        archives = Archives(publisher.sessions, keys, holders, settings.site_name)
        servicer = GdprServicer(publisher.sessions, publisher.topic, keys, holders, archives=archives, systems=calls.systems)
        await publisher.serve(
            [(add_GdprServiceServicer_to_server, servicer), publisher.subject_data(HOLDINGS)],
            [Feed("identity", _IDENTITY, learn)],
            [lambda: saga.run(Leases(publisher.log.redis, TOPIC, "saga", 1)), archives.sweep],
        )


run(main)
