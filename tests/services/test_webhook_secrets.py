"""Secrets of received webhooks that change while webhooks arrive."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from pmp.destinations.v1 import webhooks_pb2 as pb
from pmp.destinations.v1.webhooks_pb2_grpc import WebhooksServiceStub

from kit.credentials.files import FOLDER
from kit.errors import Unavailable
from kit.migrate import migrate
from kit.people.keys.store import open_keys
from kit.registry import Part
from kit.server import Server
from kit.settings import KEYS_DATABASE
from services.destinations.received.composition import reception
from services.destinations.received.senders.paypal import PayPal
from services.destinations.received.settings import WebhookSettings
from tests.authority import LOOK_SECONDS, LOOKED, LOOKS, MountedSecrets
from tests.databases import newest_database
from tests.holder import answered, repeated
from tests.paypal import running_paypal
from tests.received_webhooks import Call, brevo, charge, klaviyo, klaviyo_event, mailchimp, stripe_event, woocommerce, woocommerce_order
from tests.servers import free_port

SENDERS = ("stripe", "woocommerce", "mailchimp", "klaviyo", "brevo")
OLD, NEW = "the-old-secret-of-the-tests", "the-new-secret-of-the-tests"


def calls(secret: str) -> Sequence[Call]:
    """A webhook of each sender, signed at this moment."""
    now = datetime.now(UTC).replace(microsecond=0)
    return [
        stripe_event("charge.refunded", charge("1", 3000), now, secret=secret),
        woocommerce("order.updated", woocommerce_order(2, now, now), secret=secret),
        mailchimp("unsubscribe", "ada@example.org", now, secret=secret),
        klaviyo(klaviyo_event("unsubscribed_from_email_marketing", "ada@example.org", now), secret=secret),
        brevo("unsubscribe", "ada@example.org", now, secret=secret),
    ]


def accepting(*secrets: str) -> dict[str, str]:
    return {f"PMP_WEBHOOKS_{sender.upper()}_SECRETS": json.dumps(secrets) for sender in SENDERS}


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MountedSecrets:
    monkeypatch.setattr(LOOKS, LOOK_SECONDS)
    monkeypatch.setenv(FOLDER, str(tmp_path / "secrets"))
    key = b64encode(bytes(32)).decode()
    shared = {
        "PMP_MESH_TOKEN": "the mesh's own",
        "PMP_VAULT_KEY": key,
        "PMP_KEY_ENCRYPTION_KEYS": key,
        "PMP_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/{{service}}.db",
        "PMP_REDIS_URL": "redis://nobody",
    }
    return MountedSecrets(tmp_path / "secrets", **shared, **accepting(OLD))


def settings() -> WebhookSettings:
    return WebhookSettings()  # pyright: ignore[reportCallIssue]  (from the folder)


async def test_secrets_of_every_sender_rotate_without_a_refused_webhook(secrets: MountedSecrets) -> None:
    own, address = settings(), f"127.0.0.1:{free_port()}"
    await migrate(KEYS_DATABASE, own.keys_database_url)
    async with open_keys(own) as keys, newest_database(own, "destinations") as database, grpc.aio.insecure_channel(address) as channel:
        server = Server(own, [Part("destinations", reception(own, database.sessions, keys).rpcs)])
        server.listen(address)
        await server.start()
        stub: Any = WebhooksServiceStub(channel)

        async def receive(call: Call) -> None:
            request = pb.ReceiveWebhookRequest(sender=call.sender, body=HttpBody(data=call.body))
            client = (("x-pmp-client", "signed"), ("x-pmp-scope", "signed"))
            await stub.ReceiveWebhook(request, metadata=(*own.mesh_metadata, *client, *call.headers.items()))

        signing = [OLD]
        turns: Iterator[int] = cycle(range(len(SENDERS)))

        async with repeated(lambda: receive(calls(signing[-1])[next(turns)])) as answers:
            secrets.put(**accepting(OLD, NEW))
            await asyncio.sleep(LOOKED)
            await answered(answers)
            signing.append(NEW)
            await answered(answers)  # those that were signed with the old one before
            before = len(answers)
            secrets.put(**accepting(NEW))
            await asyncio.sleep(LOOKED)
            await answered(answers)
        assert len(answers) > before
        for call in calls(OLD):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await receive(call)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await server.drain(0, 0)


async def test_the_secret_of_the_app_at_paypal_follows_its_file(
    secrets: MountedSecrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, now = b'{"id": "WH-1"}', datetime.now(UTC)
    with running_paypal(tmp_path) as paypal:
        monkeypatch.setenv("PMP_WEBHOOKS_PAYPAL_IDS", json.dumps([paypal.webhook_id]))
        monkeypatch.setenv("PMP_WEBHOOKS_PAYPAL_CLIENT_ID", "app")
        monkeypatch.setenv("PMP_WEBHOOKS_PAYPAL_API", f"https://{paypal.host}")
        secrets.put(PMP_WEBHOOKS_PAYPAL_CLIENT_SECRET="another")
        sender, headers = PayPal(settings(), roots=paypal.roots), paypal.sign(body, now)
        with pytest.raises(Unavailable):
            await sender.verify(headers, body, now)
        secrets.put(PMP_WEBHOOKS_PAYPAL_CLIENT_SECRET="secret")
        await asyncio.sleep(LOOKED)
        await sender.verify(headers, body, now)
