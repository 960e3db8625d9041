"""Serves the rpcs of purchases and publishes what was sold: `python -m services purchases`."""

from __future__ import annotations

from pmp.identity.v1.identity_pb2 import DESCRIPTOR as IDENTITY
from pmp.purchases.v1.purchases_pb2_grpc import add_PurchasesServiceServicer_to_server

from kit.log.publisher import Feed, open_publisher
from kit.persons import learn
from kit.server import run
from kit.settings import Settings
from kit.vault import Vault
from services.purchases.messages import TOPIC
from services.purchases.servicer import PurchasesServicer


async def main(settings: Settings) -> None:
    """Works until it is told to stop."""
    async with open_publisher(settings, TOPIC) as publisher:
        servicer = PurchasesServicer(settings, publisher.sessions, publisher.topic, Vault.from_settings(settings))
        history = IDENTITY.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]
        await publisher.serve([(add_PurchasesServiceServicer_to_server, servicer)], [Feed("identity", history, learn)])


run(main)
