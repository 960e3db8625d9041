"""The kind `wordpress`: what it wants of messages, what it states of a person, and how it takes answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pmp.analytics.v1.analytics_pb2 import GetFirstSourceResponse
from pmp.gdpr.v1.change_pb2 import Choice as ChoiceMessage
from pmp.gdpr.v1.change_pb2 import ConsentChanged, GdprChanged, SuppressionChanged
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged, UserChanged
from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pydantic import HttpUrl, ValidationError

from kit.people.privacy import Choice, Consent
from kit.times import timestamp
from services.destinations.configuration import load
from services.destinations.kind import Erasure, Message, Outcome, Outgoing, Wanted
from services.destinations.settings import DestinationsSettings
from services.destinations.wordpress.destination import CONSENT, LINK, MERGE, USER, WordPress
from services.destinations.wordpress.fields import segment
from services.destinations.wordpress.options import WordPressOptions
from services.destinations.wordpress.payload import user_changed
from tests.webhooks import SECRET, Reply, systems

AT = datetime(2026, 3, 1, 10, tzinfo=UTC)
STAMP = timestamp(AT)
LATER = timestamp(AT + timedelta(seconds=1))


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_SECRET", SECRET)


def options(url: str = "https://shop.example/wp-json/pmp/v1/users") -> WordPressOptions:
    return WordPressOptions.model_validate({"kind": "wordpress", "url": url, "secret": "SITE_SECRET"})


def person(**fields: Any) -> User:
    user = User(user_id="u1", wordpress_id=42, user_type="customer", lifetime_value=199.5, currency="EUR", paid_orders=1, **fields)
    user.updated_at.CopyFrom(STAMP)
    return user


def outgoing(name: str = USER, user: User | None = None, consent: Consent | None = None) -> Outgoing:
    return Outgoing("dlv_1", Wanted(name, "", AT), IdentityChanged(), consent or Consent(person_id="u1"), user)


def choice(granted: bool) -> ChoiceMessage:
    return ChoiceMessage(granted=granted, decided_at=STAMP)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (IdentityChanged(user=UserChanged(user_id="u1", wordpress_id=42, updated_at=STAMP)), (USER, "wordpress:42")),
        (IdentityChanged(user=UserChanged(user_id="u1", email_hash=b"x", created_at=STAMP, historical=True)), (USER, "user:u1")),
        (IdentityChanged(user=UserChanged(user_id="u1", created_at=STAMP)), None),
        (IdentityChanged(alias=AliasChanged(subject="session:s1", user_id="u1", linked_at=STAMP)), (LINK, "user:u1")),
        (IdentityChanged(alias=AliasChanged(subject="session:s1", user_id="u1", withdrawn=True)), None),
        (IdentityChanged(alias=AliasChanged(subject="email:ff", user_id="u1", linked_at=STAMP)), None),
        (IdentityChanged(merge=MergeChanged(user_id="u1", merged_user_id="u2", merged_at=STAMP)), (MERGE, "user:u1")),
        (GdprChanged(consent=ConsentChanged(subject="session:s1", marketing_emails=choice(granted=False))), (CONSENT, "session:s1")),
        (GdprChanged(consent=ConsentChanged(subject="session:s1")), None),
        (GdprChanged(suppression=SuppressionChanged(digest=b"x")), None),
        (EventStored(), None),
    ],
)
def test_what_may_change_an_account_is_wanted(message: Message, wanted: tuple[str, str] | None) -> None:
    found = list(WordPress("shop", options(), httpx.AsyncClient()).wanted(message))
    assert [(each.name, each.order_by) for each in found] == ([wanted] if wanted else [])
    assert all((each.at, each.needs_consent, each.key) == (AT, False, "") for each in found)
    assert all(each.is_historical is False and each.is_state for each in found if each.name == USER), "history and old states, too"


def test_a_call_states_all_that_is_known() -> None:
    user = person(email="ada@example.org", first_name="Ada")
    user.preferences["language"] = "de_DE"
    for field in ("email", "first_name", "preferences.language", "registration_date"):
        user.written_at[field].CopyFrom(STAMP)
    start = 1772359200 * 10**6
    user.lifetime_values.add(currency="EUR", amount=120)
    user.lifetime_values.add(currency="USD", amount=80.5)
    source = GetFirstSourceResponse(source="newsletter", medium="email", session="session:s1")
    assert user_changed(user, source, Consent(marketing_emails=Choice(granted=True, decided_at=AT))) == {
        "wordpress_id": 42,
        "version": start,
        "derived": {
            "user_type": "customer",
            "segment": "customer",
            "paid_orders": "1",
            "lifetime_value": "199.5",
            "currency": "EUR",
            "lifetime_values": "EUR 120, USD 80.5",
            "first_source": "newsletter",
            "first_medium": "email",
            "first_campaign": "",
        },
        "profile": {
            "email": {"value": "ada@example.org", "written_at": start},
            "first_name": {"value": "Ada", "written_at": start},
            "language": {"value": "de_DE", "written_at": start},
        },
        "consent": {"marketing_emails": {"granted": True, "decided_at": start}},
    }


@pytest.mark.parametrize(
    ("user_type", "paid_orders", "expected"),
    [
        ("prospect", 0, "prospect"),
        ("lead", 0, "lead"),
        ("customer", 1, "customer"),
        ("customer", 2, "repeat_customer"),
        ("subscriber", 3, "member"),
    ],
)
def test_a_segment_follows_from_stage_and_orders(user_type: str, paid_orders: int, expected: str) -> None:
    assert segment(User(user_type=user_type, paid_orders=paid_orders)) == expected
    assert segment(User(user_type=user_type, paid_orders=paid_orders, inactive=True)) == "inactive"


async def test_a_person_without_an_account_and_a_visitor_without_a_choice_cost_no_call() -> None:
    async with systems() as site, httpx.AsyncClient() as http:
        shop = WordPress("shop", options(f"http://127.0.0.1:{site.port}/users"), http)
        assert [each.outcome for each in await shop.send([outgoing()])] == [Outcome.WITHHELD]
        assert [each.outcome for each in await shop.send([outgoing(user=User(user_id="u1"))])] == [Outcome.WITHHELD]
        assert [each.outcome for each in await shop.send([outgoing(LINK, person())])] == [Outcome.DELIVERED]
        assert (site.received, site.forged) == ({}, 0)
        denied = Consent(marketing_emails=Choice(granted=False, decided_at=AT), person_id="u1")
        site.replies["/users"] = Reply(body=b'{"success": true}')
        assert [each.outcome for each in await shop.send([outgoing(LINK, person(), denied)])] == [Outcome.DELIVERED]
        assert site.types("/users") == ["user.changed"]
        first = IdentityChanged(alias=AliasChanged(subject="session:s1", user_id="u1"))
        for session in ("session:s1", "session:s2"):
            linked = replace(outgoing(LINK, person()), message=first, first_source=GetFirstSourceResponse(session=session))
            assert [each.outcome for each in await shop.send([linked])] == [Outcome.DELIVERED]
        assert site.types("/users") == ["user.changed"] * 2, "the session that led to the person first"


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(body=b'{"success": true}'), Outcome.DELIVERED),
        (Reply(body=b"<html>Maintenance"), Outcome.RETRY),
        (Reply(body=b"[]"), Outcome.RETRY),
        (Reply(301, {"location": "/elsewhere"}), Outcome.RETRY),
        (Reply(404), Outcome.RETRY),
        (Reply(410), Outcome.WITHHELD),
        (Reply(401), Outcome.UNAUTHORIZED),
        (Reply(400), Outcome.REJECTED),
        (Reply(503, {"retry-after": "30"}), Outcome.RETRY),
    ],
)
async def test_an_answer_decides(reply: Reply, outcome: Outcome) -> None:
    async with systems() as site, httpx.AsyncClient() as http:
        site.replies["/users"] = reply
        shop = WordPress("shop", options(f"http://127.0.0.1:{site.port}/users"), http)
        [result] = await shop.send([outgoing(user=person())])
        assert (result.outcome, (await shop.test()).outcome) == (outcome, outcome)
        assert (result.retry_after == timedelta(seconds=30)) == (reply.status == 503)


async def test_an_erasure_names_the_accounts() -> None:
    async with systems() as site, httpx.AsyncClient() as http:
        site.replies["/users"] = Reply(body=b'{"success": true}')
        shop = WordPress("shop", options(f"http://127.0.0.1:{site.port}/users"), http)
        erased = await shop.erase(Erasure(["wordpress:42", f"wordpress:{'9' * 21}", "user:u1", "session:s"], ["ada@example.org"]))
        unknown = await shop.erase(Erasure(["session:s", f"wordpress:{2**63}"], []))
        assert erased
        assert unknown
        assert (erased.outcome, unknown.outcome) == (Outcome.DELIVERED, Outcome.WITHHELD)
        assert [each.content["data"] for each in site.received["/users"]] == [{"wordpress_ids": [42]}]


def test_a_connected_site_is_a_destination_unless_the_file_has_one_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMP_SITE_ERASURE_SECRET", SECRET)
    connected = DestinationsSettings.model_construct(site_users_url=HttpUrl("https://shop.example/users")).connected
    assert str(load(None, connected)["wordpress"].options.url) == "https://shop.example/users"
    file = tmp_path / "destinations.toml"
    file.write_text('[wordpress]\nkind = "wordpress"\nurl = "https://a.example"\nsecret = "SITE_SECRET"\n')
    assert str(load(file, connected)["wordpress"].options.url) == "https://a.example/"
    assert load(None, DestinationsSettings.model_construct().connected) == {}


@pytest.mark.parametrize("url", ["http://shop.example/users", "ftp://shop.example/users"])
def test_a_site_is_called_by_https_or_in_a_private_network(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        options(url)
    monkeypatch.setenv("SITE_SECRET", "short")
    with pytest.raises(ValidationError):
        options()
