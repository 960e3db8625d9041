"""Deliveries to kinds that need a person's profile wait for what is not known yet of the person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from kit.people.privacy import Choice, Consent
from services.destinations.clearance import consent_for, waits_until
from services.destinations.kind import Wanted
from services.destinations.mailchimp.destination import KIND
from services.destinations.queue import Claimed
from services.destinations.webhook.destination import WebhookDestination, WebhookOptions
from services.destinations.wordpress.destination import WordPress
from services.destinations.wordpress.options import WordPressOptions
from tests.webhooks import SECRET

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GRANTED, DENIED = (Choice(granted=granted, decided_at=NOW) for granted in (True, False))


@pytest.fixture
def mailchimp(monkeypatch: pytest.MonkeyPatch) -> KIND:
    monkeypatch.setenv("MAILCHIMP_KEY", "0123456789abcdef-us21")
    options = KIND.options_type.model_validate({"kind": "mailchimp", "api_key": "MAILCHIMP_KEY", "list_id": "a1"})
    return KIND("newsletter", options, httpx.AsyncClient())


def claimed(age: float, *, needs_consent: bool = True) -> Claimed:
    decided_at = NOW - timedelta(seconds=age)
    return Claimed(1, Wanted("order", "k", decided_at, needs_consent=needs_consent), "m", 1, was_interrupted=False, decided_at=decided_at)


@pytest.mark.parametrize("choice", [GRANTED, DENIED])
def test_a_known_person_who_chose_is_not_waited_for(mailchimp: KIND, choice: Choice) -> None:
    assert waits_until(mailchimp, claimed(0), Consent(marketing_emails=choice, person_id="u-1"), NOW) is None


@pytest.mark.parametrize("consent", [Consent(person_id="u-1"), Consent(marketing_emails=GRANTED), Consent()])
def test_what_is_not_known_is_waited_for_a_minute(mailchimp: KIND, consent: Consent) -> None:
    waits = [waits_until(mailchimp, claimed(age), consent, NOW) for age in (0, 1.9, 2, 59, 60, 3600)]
    seconds = [at and (at - NOW).total_seconds() for at in waits]
    assert seconds == [2, pytest.approx(0.1), 58, 1, None, None]


def test_a_delivery_that_needs_no_consent_waits_for_the_person_alone(mailchimp: KIND) -> None:
    assert waits_until(mailchimp, claimed(0, needs_consent=False), Consent(person_id="u-1"), NOW) is None
    assert waits_until(mailchimp, claimed(0, needs_consent=False), Consent(), NOW) == NOW + timedelta(seconds=2)


def test_kinds_that_need_no_profile_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    options = {"kind": "webhook", "url": "https://crm.example/", "secrets": ["HOOK_SECRET"], "types": ["order.*"]}
    webhook = WebhookDestination("crm", WebhookOptions.model_validate(options), httpx.AsyncClient())
    assert waits_until(webhook, claimed(0), Consent(), NOW) is None


def test_a_site_gets_the_persons_own_choices_and_not_those_of_another_in_the_same_browser(
    mailchimp: KIND, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_SECRET", SECRET)
    options = {"kind": "wordpress", "url": "https://shop.example/users", "secret": "SITE_SECRET"}
    site = WordPress("shop", WordPressOptions.model_validate(options), httpx.AsyncClient())
    own, other = Consent(marketing_emails=GRANTED, person_id="u-1"), Consent(marketing_emails=DENIED, person_id="u-2")
    visitor = Consent(third_party_sharing=DENIED)
    stated = consent_for(site, [own, other, visitor])
    assert stated == Consent(marketing_emails=GRANTED, third_party_sharing=DENIED, person_id="u-1")
    assert consent_for(site, [Consent(person_id="u-1"), other]) == Consent(person_id="u-1")
    assert consent_for(site, []) == Consent()
    assert consent_for(mailchimp, [own, other]) == Consent(marketing_emails=DENIED, person_id="u-1")
