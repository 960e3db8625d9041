"""Other systems are asked to erase persons, by calls that nobody else can make."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kit.credentials.files import FOLDER
from kit.errors import Unavailable
from services.gdpr.calls import Calls
from services.gdpr.rules import person_to_erase
from services.gdpr.settings import GdprSettings
from tests.authority import LOOK_SECONDS, LOOKED, LOOKS, MountedSecrets
from tests.holder import answered, repeated
from tests.receiver import SECRET, Receiver, receiving
from tests.servers import free_port

ANOTHER = "whsec_YW5vdGhlciBzZWNyZXQgb2YgbW9yZSB0aGFuIDI0IGJ5dGVz"
ADA = person_to_erase(["wordpress:42", "session:s1", "anonymous:a1", "user:u1", "email:00ff"], ["ada@example.org"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def settings(**site: Any) -> GdprSettings:
    needed = {name: "anything" for name, field in GdprSettings.model_fields.items() if field.is_required()}
    return GdprSettings.model_validate({**needed, **site})


def calls(url: str, secret: str = SECRET) -> Calls:
    return Calls(settings(site_erasure_calls={"crm": url}, site_erasure_secret=secret))


async def test_a_system_gets_a_signed_call_under_the_same_id_each_time(receiver: Receiver) -> None:
    for _ in range(2):
        await calls(receiver.url).erase("crm", "r1", ADA)
    assert receiver.ids == ["r1-crm"] * 2
    assert receiver.received[0]["type"] == "person.erased"
    assert receiver.received[0]["data"] == {
        "request": "r1",
        "wordpress_user_ids": ["42"],
        "user_ids": ["u1"],
        "session_ids": ["s1"],
        "anonymous_ids": ["a1"],
        "emails": ["ada@example.org"],
    }


async def test_a_call_with_another_signature_is_refused_and_reported_without_the_person(receiver: Receiver) -> None:
    with pytest.raises(Unavailable, match=r"^crm answers 401$"):
        await calls(receiver.url, ANOTHER).erase("crm", "r1", ADA)
    assert receiver.received == []


async def test_the_secret_rotates_without_a_failed_call(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOOKS, LOOK_SECONDS)
    monkeypatch.setenv(FOLDER, str(tmp_path / "secrets"))
    secrets = MountedSecrets(tmp_path / "secrets", PMP_SITE_ERASURE_SECRET=SECRET)
    asked = calls(receiver.url)
    async with repeated(lambda: asked.erase("crm", "r1", ADA)) as answers:
        secrets.put(PMP_SITE_ERASURE_SECRET=f"{SECRET},{ANOTHER}")
        await asyncio.sleep(LOOKED)
        await answered(answers, 5)
        receiver.secret, before = ANOTHER, len(answers)
        secrets.put(PMP_SITE_ERASURE_SECRET=ANOTHER)
        await asyncio.sleep(LOOKED)
        await answered(answers, 5)
        secrets.put(PMP_SITE_ERASURE_SECRET="whsec_short")
        await asyncio.sleep(LOOKED)
        await answered(answers, 5)
    assert before < len(answers) <= len(receiver.ids)
    receiver.secret = SECRET
    with pytest.raises(Unavailable, match="401"):
        await asked.erase("crm", "r2", ADA)


@pytest.mark.parametrize("status", [302, 404, 500, 503])
async def test_every_answer_but_a_success_is_a_failure(receiver: Receiver, status: int) -> None:
    receiver.status = status
    with pytest.raises(Unavailable, match=f"^crm answers {status}$"):
        await calls(receiver.url).erase("crm", "r1", ADA)


async def test_a_system_that_is_down_or_was_taken_out_of_the_settings_is_named(receiver: Receiver) -> None:
    down = calls(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match=r"^crm does not answer: ConnectError$"):
        await down.erase("crm", "r1", ADA)
    with pytest.raises(Unavailable, match=r"^crm did not answer a moment ago$"):
        await down.erase("crm", "r2", ADA)  # nobody waits for it again and again
    with pytest.raises(Unavailable, match=r"^shop is not in the settings$"):
        await calls(receiver.url).erase("shop", "r1", ADA)


@pytest.mark.parametrize("url", ["https://shop.example/forget", "http://wordpress/forget", "http://10.0.0.7/forget", "http://[::1]:8080/"])
def test_what_is_sent_is_read_by_nobody_on_the_way(url: str) -> None:
    assert settings(site_erasure_calls={"crm": url}, site_erasure_secret=SECRET)


@pytest.mark.parametrize(
    "site",
    [
        {"site_erasure_calls": {"crm": "http://shop.example/forget"}, "site_erasure_secret": SECRET},
        {"site_erasure_calls": {"crm": "http://203.0.114.7/forget"}, "site_erasure_secret": SECRET},
        {"site_erasure_calls": {"crm": "https://shop.example/forget"}},
        {"site_erasure_calls": {"crm": "https://shop.example/forget"}, "site_erasure_secret": "correct horse battery staple correct"},
        {"site_erasure_calls": {"C R M": "https://shop.example/forget"}, "site_erasure_secret": SECRET},
    ],
)
def test_calls_in_clear_unsigned_or_of_nobody_are_refused(site: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**site)
