"""One sender: what its deliveries are made of, and what is noted of its attempts while others go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx
import pytest
from pmp.identity.v1.identity_pb2 import User
from typing_extensions import override

from kit.database.engine import Database
from kit.service.resources import Resources
from kit.settings import Settings
from services.destinations.clearance import Cleared
from services.destinations.contacts import Contacts
from services.destinations.kind import Outcome, Outgoing, Result
from services.destinations.mailchimp.destination import KIND
from services.destinations.preparing import Preparing
from services.destinations.profiles import Profiles
from services.destinations.queue import Claimed
from services.destinations.sending import Sender
from tests.databases import newest_database
from tests.unit.shopper import DENIED, EMAIL, GRANTED, NEW_EMAIL, NOW, ada, choice_made, user_changed

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class _Identity(Profiles):
    """Knows Ada, under her new address or without one."""

    def __init__(self, settings: Settings, email: str) -> None:
        super().__init__(settings)
        self._email = email

    @override
    async def of(self, user_ids: frozenset[str]) -> dict[str, User]:
        user = ada()
        user.email = self._email
        return dict.fromkeys(user_ids, user)


class _BusySender(Sender):
    """Stores the results of each attempt before the attempt is over, as it does while several are in progress."""

    async def attempt(self, cleared: Sequence[Cleared]) -> None:
        await self._attempts([cleared])

    @override
    async def _leave(self, outgoing: Sequence[Outgoing], sent: Sequence[Result]) -> None:
        self.stored = list(self._done)
        self._done.clear()


@pytest.fixture
async def database(settings: Settings) -> AsyncGenerator[Database]:
    async with newest_database(settings, "destinations") as database:
        yield database


@pytest.fixture
async def mail(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[KIND]:
    monkeypatch.setenv("MAILCHIMP_KEY", "0123456789abcdef-us21")
    options = KIND.options_type.model_validate({"kind": "mailchimp", "api_key": "MAILCHIMP_KEY", "list_id": "a1"})
    async with httpx.AsyncClient() as http:
        yield KIND("mail", options, http)


def cleared(mail: KIND, message: Any, consent: Any) -> Cleared:
    (wanted,) = mail.wanted(message)
    return Cleared(Claimed(1, wanted, "m", 1, was_interrupted=False, decided_at=NOW), message, consent, "")


@ONE_DATABASE
@pytest.mark.parametrize("email", [NEW_EMAIL, ""])
async def test_a_withdrawal_is_sent_for_the_address_from_before_as_well(
    mail: KIND, database: Database, resources: Resources, settings: Settings, email: str
) -> None:
    contacts = Contacts("mail", database.sessions, resources.keys)
    preparing = Preparing(mail, resources.keys, _Identity(settings, email), contacts)
    await contacts.remember("u-ada", EMAIL)
    ([withdrawal], _) = await preparing.outgoing([cleared(mail, choice_made(granted=False), DENIED)])
    assert withdrawal.former == [EMAIL]
    ([profile], _) = await preparing.outgoing([cleared(mail, user_changed(), DENIED)])
    assert profile.former == (), "it unsubscribes nobody"
    assert await contacts.others("u-ada", "") == [EMAIL], "a withdrawal adds no address to those that the tool keeps"


@ONE_DATABASE
async def test_an_attempt_is_over_after_its_results_were_stored(
    mail: KIND, database: Database, resources: Resources, settings: Settings
) -> None:
    sender = _BusySender(mail, database.sessions, resources.keys, _Identity(settings, ""))
    await sender.attempt([cleared(mail, user_changed(), GRANTED)])
    [attempt] = sender.stored
    assert [each.outcome for each in attempt.results if isinstance(each, Result)] == [Outcome.WITHHELD]
