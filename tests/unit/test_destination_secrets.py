"""Secrets of destinations that change while deliveries go on."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from kit.credentials.files import FOLDER
from services.destinations.configuration import load
from services.destinations.kind import Outcome
from tests.authority import LOOK_SECONDS, LOOKED, LOOKS, MountedSecrets
from tests.holder import answered, repeated
from tests.webhooks import SECOND_SECRET, SECRET

KEYS = {"old": "the-old-key-us1", "new": "the-new-key-us1"}
SIGNING = {"old": SECRET, "new": SECOND_SECRET}
TABLES = """
[brevo]
kind = "brevo"
api_key = "API_KEY"
list_id = 7
url = "{url}"
[ga4]
kind = "ga4"
measurement_id = "G-TEST1234"
api_secret = "API_KEY"
endpoint = "{url}"
[klaviyo]
kind = "klaviyo"
api_key = "API_KEY"
url = "{url}"
[mailchimp]
kind = "mailchimp"
api_key = "API_KEY"
list_id = "a1"
url = "{url}"
[webhook]
kind = "webhook"
url = "{url}"
secrets = ["SIGNING_SECRET"]
types = ["order.paid"]
allow_private_networks = true
[wordpress]
kind = "wordpress"
url = "{url}"
secret = "SIGNING_SECRET"
"""


class System:
    """Takes requests with one of the keys that it knows, and webhooks with its one secret."""

    def __init__(self) -> None:
        self.keys = {"old"}
        self.signing = "old"

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[str]:
        """Listens on loopback; yields its address."""
        connections: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._answer(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        for writer in connections:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.splitlines()[1:])}
        body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
        status = 200 if self._accepts(head, headers, body) else 401
        answer = b'{"id": "a1", "success": true}'
        writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: {len(answer)}\r\n\r\n".encode() + answer)

    def _accepts(self, head: str, headers: dict[str, str], body: str) -> bool:
        if "webhook-signature" in headers:
            try:
                Webhook(SIGNING[self.signing]).verify(body, headers)
            except WebhookVerificationError:
                return False
            return True
        known = [KEYS[name] for name in self.keys]
        return any(key in head or base64.b64encode(f"pmp-mesh:{key}".encode()).decode() in head for key in known)


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MountedSecrets:
    monkeypatch.setattr(LOOKS, LOOK_SECONDS)
    monkeypatch.setenv(FOLDER, str(tmp_path / "secrets"))
    return MountedSecrets(tmp_path / "secrets", API_KEY=KEYS["old"], SIGNING_SECRET=SIGNING["old"])


async def test_secrets_of_every_kind_rotate_without_a_refused_delivery(secrets: MountedSecrets, tmp_path: Path) -> None:
    system = System()
    async with system.listening() as url:
        (tmp_path / "destinations.toml").write_text(TABLES.replace("{url}", url))
        destinations = load(tmp_path / "destinations.toml").values()

        async def refused() -> list[str]:
            results = [(each.name, await each.test()) for each in destinations]
            return [f"{name}: {result}" for name, result in results if result.outcome is not Outcome.DELIVERED]

        async with repeated(refused) as answers:
            system.keys = {"old", "new"}
            secrets.put(API_KEY=KEYS["new"], SIGNING_SECRET=f"{SIGNING['old']},{SIGNING['new']}")
            await asyncio.sleep(LOOKED)
            await answered(answers, 5)
            system.keys, system.signing = {"new"}, "new"
            before = len(answers)
            secrets.put(SIGNING_SECRET=SIGNING["new"])
            await asyncio.sleep(LOOKED)
            await answered(answers, 5)
        assert before < len(answers)
        assert [each for each in answers if each] == []
        system.keys, system.signing = {"old"}, "old"
        assert len(await refused()) == len(destinations)
        for each in destinations:
            await each.http.aclose()


async def test_a_changed_secret_of_no_use_is_not_taken(secrets: MountedSecrets, tmp_path: Path) -> None:
    system = System()
    async with system.listening() as url:
        (tmp_path / "destinations.toml").write_text(TABLES.replace("{url}", url))
        destinations = load(tmp_path / "destinations.toml").values()
        secrets.put(API_KEY="", SIGNING_SECRET="whsec_short")
        await asyncio.sleep(LOOKED)
        assert {(await each.test()).outcome for each in destinations} == {Outcome.DELIVERED}
        for each in destinations:
            await each.http.aclose()
