"""What takes webhooks, as a part of the role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pmp.destinations.v1.webhooks_pb2_grpc import add_WebhooksServiceServicer_to_server

from kit.database.transactions import Sessions
from kit.people.keys.store import Keys
from kit.registry import Background, Registration
from services.destinations.received.calls import Calls
from services.destinations.received.sender import Sender, webhook_senders
from services.destinations.received.servicer import WebhooksServicer
from services.destinations.received.settings import WebhookSettings
from services.destinations.received.worker import Worker


class Reception(NamedTuple):
    """Takes webhooks and works them off."""

    rpcs: Sequence[Registration]
    background: Sequence[Background]


def reception(settings: WebhookSettings, sessions: Sessions, keys: Keys, senders: Mapping[str, Sender] | None = None) -> Reception:
    """Composes it.

    Args:
        settings: of this service.
        sessions: of its database.
        keys: what is personal in webhooks is sealed under.
        senders: the systems that send webhooks, by name; by default all.
    """
    worker = Worker(sessions, Calls(settings), keys, settings.webhooks_wait)
    servicer = WebhooksServicer(sessions, keys, webhook_senders(settings) if senders is None else senders, worker)
    return Reception([(add_WebhooksServiceServicer_to_server, servicer)], [worker.run, worker.report])
