"""Serves the rpcs of gdpr, follows who is who, erases and exports: `python -m services gdpr`."""

from __future__ import annotations

from pathlib import Path

from pmp.gdpr.v1.gdpr_pb2_grpc import add_GdprServiceServicer_to_server
from pmp.identity.v1 import identity_pb2

import services
from kit.log.leases import Leases
from kit.people.persons import project_identity
from kit.server import run
from kit.service import Subscription, open_runtime
from kit.settings import Settings, WrongSetting
from services.gdpr.archive import Archives
from services.gdpr.calls import Calls
from services.gdpr.deadlines import Deadlines
from services.gdpr.holders import Holders
from services.gdpr.messages import TOPIC
from services.gdpr.personal import HOLDINGS
from services.gdpr.saga import Saga
from services.gdpr.servicer import GdprServicer

_HOLDERS = sorted(path.parent.name for path in Path(services.__path__[0]).glob("*/models.py"))
"""Each folder is a service; one with tables may hold something of persons."""
_IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


async def main(settings: Settings) -> None:
    """Answers, publishes and follows until it is told to stop."""
    _check(settings)
    async with open_runtime(settings, TOPIC) as runtime:
        keys = runtime.keys
        holders = Holders(settings, _HOLDERS)
        calls = Calls(settings)
        saga = Saga(runtime.sessions, runtime.topic, keys, holders, calls=calls, rewrite=runtime.log.rewrite)
        archives = Archives(runtime.sessions, keys, holders, settings.site_name)
        servicer = GdprServicer(runtime.sessions, runtime.topic, runtime.relay, keys, holders, archives=archives, systems=calls.systems)
        await runtime.serve(
            [(add_GdprServiceServicer_to_server, servicer), runtime.subject_data(HOLDINGS)],
            [Subscription("identity", _IDENTITY, project_identity)],
            [
                runtime.retention(HOLDINGS),
                Deadlines(runtime.sessions, keys.vault).run,
                lambda: saga.run(Leases(runtime.log.redis, TOPIC, "saga", 1)),
                archives.sweep,
            ],
        )


def _check(settings: Settings) -> None:
    """Each service knows its own tables; that there is no such service nobody else sees.

    Raises:
        WrongSetting: how long is kept is set for a service that is not there.
    """
    if unknown := {name.partition(".")[0] for name in settings.site_retention_tables} - set(_HOLDERS):
        message = f"PMP_SITE_RETENTION_TABLES: there is no service {min(unknown)} with tables; there are {', '.join(_HOLDERS)}"
        raise WrongSetting(message)


run(main)
