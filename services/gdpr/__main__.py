"""Serves the rpcs of gdpr, and follows who is who: `python -m services gdpr`."""

from __future__ import annotations

from pmp.gdpr.v1.gdpr_pb2_grpc import add_GdprServiceServicer_to_server
from pmp.identity.v1 import identity_pb2

from kit.log.publisher import Feed, open_publisher
from kit.persons import learn
from kit.server import run
from kit.settings import Settings
from kit.vault import Vault
from services.gdpr.messages import TOPIC
from services.gdpr.personal import HOLDINGS
from services.gdpr.servicer import GdprServicer

_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


async def main(settings: Settings) -> None:
    """Answers, publishes and follows until it is told to stop."""
    async with open_publisher(settings, TOPIC) as publisher:
        vault = Vault.from_settings(settings)
        servicer = GdprServicer(publisher.sessions, publisher.topic, vault)
        await publisher.serve(
            [(add_GdprServiceServicer_to_server, servicer), publisher.subject_data(vault, HOLDINGS)],
            [Feed("identity", _IDENTITY, learn)],
        )


run(main)
