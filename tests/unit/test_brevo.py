"""Brevo: what is sent of each message, whom it subscribes, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kit.people.privacy import Consent
from services.destinations.brevo.answers import Subscription, refusal
from services.destinations.brevo.destination import KIND
from services.destinations.kind import Erasure, Outcome, Outgoing
from tests.brevo import COURSE_LIST, KEY, LIST, Brevo
from tests.unit.shopper import (
    DENIED,
    EMAIL,
    GRANTED,
    NEW_EMAIL,
    NOW,
    ada,
    choice_made,
    conversion,
    event,
    opened,
    order,
    outcomes,
    refunded,
    send,
    user_changed,
)
from tests.vendor import Reply, serving

ADA = EMAIL.lower()
PAYLOADS = Path(__file__).parent.parent / "payloads" / "brevo"
HOUR = timedelta(hours=1)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Brevo]:
    monkeypatch.setenv("BREVO_KEY", KEY)
    double = Brevo()
    with serving(double):
        yield double


def options(account: Brevo, **more: Any) -> dict[str, Any]:
    attributes = {"FIRSTNAME": "first_name", "LASTNAME": "last_name", "STAGE": "user_type", "LTV": "lifetime_value"}
    own = {"attributes": attributes, "course_lists": {"pmp-prep": COURSE_LIST}, "orders": True}
    return {"api_key": "BREVO_KEY", "list_id": LIST, "url": account.url, **own, **more}


@pytest.fixture
async def brevo(account: Brevo) -> AsyncGenerator[KIND]:
    async with opened(KIND, options(account)) as destination:
        yield destination


def golden(name: str) -> Any:
    at = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.loads((PAYLOADS / f"{name}.json").read_text().replace("2026-11-22T10:20:30Z", at))


async def test_a_person_becomes_a_contact_of_the_list(brevo: KIND, account: Brevo) -> None:
    assert outcomes(await send(brevo, user_changed(), profile=ada(lifetime_value=49))) == [Outcome.DELIVERED]
    assert account.sent("POST", "/contacts") == [golden("contact")]
    assert (account.contacts[ADA]["listIds"], account.contacts[ADA]["emailBlacklisted"]) == ([LIST], False)


async def test_a_change_updates_the_contact_and_what_is_empty_stays(brevo: KIND, account: Brevo) -> None:
    await send(brevo, user_changed())
    nameless = ada(user_type="customer")
    nameless.ClearField("first_name")
    assert outcomes(await send(brevo, user_changed(), profile=nameless)) == [Outcome.DELIVERED]
    kept = account.contacts[ADA]["attributes"]
    assert (kept["FIRSTNAME"], kept["STAGE"], len(account.contacts)) == ("Ada", "customer", 1)


async def test_a_contact_that_another_tool_added_joins_the_list(brevo: KIND, account: Brevo) -> None:
    account.contacts[ADA] = {"id": 9, "email": ADA, "emailBlacklisted": False, "listIds": [COURSE_LIST], "attributes": {}}
    await send(brevo, user_changed())
    assert account.contacts[ADA]["listIds"] == [LIST, COURSE_LIST]


@pytest.mark.parametrize("kind", ["userUnsubscription", "adminUnsubscription", "complaints", "hardBounces"])
async def test_who_left_there_is_not_subscribed_again_by_anything_but_a_newer_choice(brevo: KIND, account: Brevo, kind: str) -> None:
    await send(brevo, user_changed())
    account.leave(EMAIL, kind, NOW - HOUR)
    for message in (user_changed(), order(), conversion("enrollment", course_id=7)):
        assert set(outcomes(await send(brevo, message))) == {Outcome.DELIVERED}, "the contact is current nevertheless"
    assert account.contacts[ADA]["emailBlacklisted"]
    [result] = await send(brevo, choice_made(granted=True))
    can_be_mailed = kind.endswith("Unsubscription")
    assert result.outcome is (Outcome.DELIVERED if can_be_mailed else Outcome.WITHHELD)
    assert account.contacts[ADA]["emailBlacklisted"] is not can_be_mailed


async def test_who_left_after_its_choice_stays_so(brevo: KIND, account: Brevo) -> None:
    await send(brevo, user_changed())
    account.leave(EMAIL, "userUnsubscription", NOW + HOUR)
    [result] = await send(brevo, choice_made(granted=True))
    assert (result.outcome, result.detail) == (Outcome.WITHHELD, Subscription.WITHDRAWN.value)
    assert account.contacts[ADA]["emailBlacklisted"]


async def test_who_unsubscribed_from_the_list_alone_does_not_join_it_again(brevo: KIND, account: Brevo) -> None:
    await send(brevo, user_changed())
    account.contacts[ADA] |= {"listIds": [], "listUnsubscribed": [LIST]}
    await send(brevo, user_changed())
    assert account.contacts[ADA]["listIds"] == []
    await send(brevo, choice_made(granted=True))
    assert account.contacts[ADA]["listIds"] == [LIST]


async def test_a_denial_blocks_a_contact_and_makes_none(brevo: KIND, account: Brevo) -> None:
    assert outcomes(await send(brevo, choice_made(granted=False), consent=DENIED)) == [Outcome.DELIVERED]
    assert (account.contacts, [each.method for each in account.requests]) == ({}, ["GET"])
    await send(brevo, user_changed())
    for _ in range(2):
        assert outcomes(await send(brevo, choice_made(granted=False), consent=DENIED)) == [Outcome.DELIVERED]
    assert account.contacts[ADA]["emailBlacklisted"]
    assert len(account.sent("PUT", "/contacts/1")) == 1


@pytest.mark.parametrize("consent", [Consent(), DENIED])
async def test_nothing_is_sent_without_consent(brevo: KIND, account: Brevo, consent: Consent) -> None:
    for message in (user_changed(), order(), conversion("signup"), event("add_to_cart"), event("product_view")):
        assert set(outcomes(await send(brevo, message, consent=consent))) == {Outcome.WITHHELD}
    assert not account.requests


async def test_nothing_is_sent_of_who_has_no_address(brevo: KIND, account: Brevo) -> None:
    (wanted,) = brevo.wanted(user_changed())
    [result] = await brevo.send([Outgoing("d1", wanted, user_changed(), GRANTED, None)])
    assert (result.outcome, account.requests) == (Outcome.WITHHELD, [])


async def test_an_order_is_a_state_and_an_event(brevo: KIND, account: Brevo) -> None:
    assert outcomes(await send(brevo, order())) == [Outcome.DELIVERED, Outcome.DELIVERED]
    assert account.orders == {"1016": golden("order")}
    assert account.events == [golden("event")]
    contact = account.contacts[ADA]
    assert (contact["attributes"]["STAGE"], contact["listIds"]) == ("customer", [LIST, COURSE_LIST])


async def test_a_refund_changes_the_order_and_the_lists(brevo: KIND, account: Brevo) -> None:
    await send(brevo, order())
    await send(brevo, refunded("10.50"))
    assert (account.orders["1016"]["status"], account.orders["1016"]["amount"]) == ("partially_refunded", 49.5)
    assert account.contacts[ADA]["listIds"] == [LIST, COURSE_LIST]
    await send(brevo, refunded("60.00"))
    assert (account.orders["1016"]["status"], account.orders["1016"]["amount"]) == ("refunded", 0)
    assert account.contacts[ADA]["listIds"] == [LIST]


async def test_an_order_is_announced_once_and_sent_in_each_state(brevo: KIND) -> None:
    placed, again = (list(brevo.wanted(each)) for each in (order(), refunded("60.00")))
    assert [each.key for each in placed] == [each.key for each in again] == ["", "placed:p-1"]
    assert list(brevo.wanted(order(excluded=True))) == []
    marks = [each.is_historical for each in brevo.wanted(refunded("10.50", historical=True))]
    assert marks == [False, None], "the refund of an imported order is none itself"


@pytest.mark.parametrize(("fields", "more"), [({}, {"orders": False}), ({"currency": "USD"}, {}), ({"lines": []}, {})])
async def test_orders_are_sent_where_brevo_can_add_them_up(account: Brevo, fields: dict[str, Any], more: dict[str, Any]) -> None:
    async with opened(KIND, options(account, **more)) as brevo:
        assert outcomes(await send(brevo, order(**fields))) == [Outcome.DELIVERED, Outcome.DELIVERED]
    assert (account.orders, account.names(EMAIL)) == ({}, ["order_placed"])


async def test_steps_of_shopping_are_events(brevo: KIND, account: Brevo) -> None:
    for number, type_ in enumerate(("product_view", "add_to_cart", "begin_checkout")):
        assert outcomes(await send(brevo, event(type_, f"e-{number}", product_id=7))) == [Outcome.DELIVERED]
    assert account.names(EMAIL) == ["product_viewed", "added_to_cart", "checkout_started"]
    assert account.events[0]["event_properties"] == {"product": "7", "course": "pmp-prep", "page": "/courses/pmp"}
    assert list(brevo.wanted(event("product_view", user_id=""))) == []
    [cart] = brevo.wanted(event("add_to_cart", user_id=""))
    assert cart.order_by == "session:s-1"


async def test_registrations_and_enrolments_are_events(brevo: KIND, account: Brevo) -> None:
    await send(brevo, conversion("signup"))
    await send(brevo, conversion("enrollment", "c-2", course_id="pmp-prep"))
    assert account.names(EMAIL) == ["registered", "enrolled"]
    assert account.contacts[ADA]["listIds"] == [LIST, COURSE_LIST]


async def test_what_is_old_starts_no_automation(brevo: KIND, account: Brevo) -> None:
    old = NOW - timedelta(days=2)
    assert outcomes(await send(brevo, event("add_to_cart", at=old))) == [Outcome.EXPIRED]
    assert outcomes(await send(brevo, order(old))) == [Outcome.DELIVERED, Outcome.EXPIRED]
    assert (account.events, list(account.orders)) == ([], ["1016"])


@pytest.mark.parametrize(
    ("reply", "outcome", "detail"),
    [
        (Reply(429, {"code": "too_many_requests"}, {"x-sib-ratelimit-reset": "30"}), Outcome.RETRY, "HTTP 429 too_many_requests"),
        (Reply(503, "<html>down</html>"), Outcome.RETRY, "HTTP 503"),
        (Reply(401, {"code": "unauthorized", "message": "Key not found"}), Outcome.UNAUTHORIZED, "HTTP 401 unauthorized"),
        (Reply(403, {"code": "permission_denied"}), Outcome.UNAUTHORIZED, "HTTP 403 permission_denied"),
        (Reply(400, {"code": "Ada@example.org"}), Outcome.REJECTED, "HTTP 400"),
        (Reply(302, "", {"location": "https://portal.example/"}), Outcome.RETRY, "HTTP 302"),
        (Reply(200, {"email": EMAIL}), Outcome.REJECTED, "an answer without the subscription of a contact"),
    ],
)
async def test_refusals(brevo: KIND, account: Brevo, reply: Reply, outcome: Outcome, detail: str) -> None:
    account.next_replies.append(reply)
    [result] = await send(brevo, user_changed())
    assert (result.outcome, result.detail) == (outcome, detail)
    assert result.retry_after == (timedelta(seconds=30) if reply.status == 429 else None)
    assert account.contacts == {}
    assert refusal(429, b"", {"x-sib-ratelimit-reset": "soon"}).retry_after is None


async def test_an_address_that_brevo_refuses_is_not_in_the_result(brevo: KIND) -> None:
    [result] = await send(brevo, user_changed(), profile=ada(email="ada@@nowhere"))
    assert (result.outcome, result.detail) == (Outcome.REJECTED, "HTTP 400 invalid_parameter")


async def test_what_was_kept_before_an_event_failed_is_repeated_and_the_event_is_not(brevo: KIND, account: Brevo) -> None:
    messages = [user_changed(), order(), conversion("signup"), event("add_to_cart"), choice_made(granted=True)]
    repeatable = {wanted.name: brevo.is_repeatable(wanted) for message in messages for wanted in brevo.wanted(message)}
    assert repeatable == {"profile": True, "order": True, "placed": False, "registration": False, "cart": False, "consent": True}
    account.has_shop = False
    assert outcomes(await send(brevo, order())) == [Outcome.REJECTED, Outcome.DELIVERED], "the eCommerce app is not active"


async def test_the_test_reads_the_list(account: Brevo, brevo: KIND, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await brevo.test()).outcome is Outcome.DELIVERED
    async with opened(KIND, options(account, list_id=99)) as other:
        assert (await other.test()).detail == "the list is unknown"
    monkeypatch.setenv("BREVO_KEY", "wrong")
    async with opened(KIND, options(account)) as refused:
        assert (await refused.test()).outcome is Outcome.UNAUTHORIZED


async def test_an_erased_person_is_deleted(brevo: KIND, account: Brevo) -> None:
    await send(brevo, order())
    person = Erasure(["wordpress:42"], [EMAIL, "old@example.org"])
    for outcome in (Outcome.DELIVERED, Outcome.WITHHELD):
        result = await brevo.erase(person)
        assert result is not None
        assert result.outcome is outcome
    assert account.contacts == {}
    account.next_replies.append(Reply(503))
    failed = await brevo.erase(person)
    assert failed is not None
    assert failed.outcome is Outcome.RETRY


async def test_a_contact_follows_its_person_to_another_address(brevo: KIND, account: Brevo) -> None:
    await send(brevo, order())
    assert outcomes(await send(brevo, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])) == [Outcome.DELIVERED]
    assert account.contacts.keys() == {NEW_EMAIL}
    assert (account.contacts[NEW_EMAIL]["listIds"], account.contacts[NEW_EMAIL]["emailBlacklisted"]) == ([LIST, COURSE_LIST], False)


async def test_a_contact_that_can_not_follow_is_blocked(brevo: KIND, account: Brevo) -> None:
    for address in (EMAIL, NEW_EMAIL):
        await send(brevo, user_changed(), profile=ada(email=address))
    assert outcomes(await send(brevo, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])) == [Outcome.DELIVERED]
    assert {email: each["emailBlacklisted"] for email, each in account.contacts.items()} == {ADA: True, NEW_EMAIL: False}


@pytest.mark.parametrize(("kind", "stays"), [("userUnsubscription", True), ("complaints", True), ("hardBounces", False)])
async def test_who_left_under_a_former_address_is_not_subscribed_under_another(
    brevo: KIND, account: Brevo, kind: str, *, stays: bool
) -> None:
    """A change of the address would subscribe the contact again, by the rules of Brevo."""
    await send(brevo, user_changed())
    account.leave(EMAIL, kind, NOW - HOUR)
    [result] = await send(brevo, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])
    assert result.outcome is (Outcome.WITHHELD if stays else Outcome.DELIVERED)
    assert {email: each["emailBlacklisted"] for email, each in account.contacts.items()} == ({ADA: True} if stays else {NEW_EMAIL: False})
    assert Outcome.RETRY not in outcomes(await send(brevo, choice_made(granted=True), profile=ada(email=NEW_EMAIL), former=[EMAIL]))
    assert NEW_EMAIL in account.contacts


@pytest.mark.parametrize("kind", ["userUnsubscription", "adminUnsubscription", "complaints", ""])
async def test_a_bounce_hides_no_other_reason_to_have_left(brevo: KIND, account: Brevo, kind: str) -> None:
    await send(brevo, user_changed())
    account.leave(EMAIL, "hardBounces", NOW - HOUR)
    bounced = account.contacts[ADA]["statistics"]
    if kind:
        account.leave(EMAIL, kind, NOW - HOUR)
        account.contacts[ADA]["statistics"] |= bounced
    else:
        account.contacts[ADA]["listUnsubscribed"] = [LIST]
    [result] = await send(brevo, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])
    assert (result.outcome, account.contacts.keys()) == (Outcome.WITHHELD, {ADA})


@pytest.mark.parametrize(("hours", "subscribed"), [(-1, True), (1, False)])
async def test_only_a_choice_after_who_left_subscribes_another_address(
    brevo: KIND, account: Brevo, hours: int, *, subscribed: bool
) -> None:
    await send(brevo, user_changed())
    account.leave(EMAIL, "userUnsubscription", NOW + hours * HOUR)
    [result] = await send(brevo, choice_made(granted=True), profile=ada(email=NEW_EMAIL), former=[EMAIL])
    assert (result.outcome is Outcome.DELIVERED, NEW_EMAIL in account.contacts) == (subscribed, subscribed)


async def test_who_consents_anew_under_another_address_is_subscribed(brevo: KIND, account: Brevo) -> None:
    """Brevo does not say when the mesh itself blocked a contact."""
    await send(brevo, user_changed())
    await send(brevo, choice_made(granted=False), consent=DENIED)
    await send(brevo, choice_made(granted=True), profile=ada(email=NEW_EMAIL), former=[EMAIL])
    assert {email: each["emailBlacklisted"] for email, each in account.contacts.items()} == {ADA: True, NEW_EMAIL: False}


async def test_who_withdraws_after_a_change_of_address_is_mailed_at_neither(brevo: KIND, account: Brevo) -> None:
    for address in (EMAIL, NEW_EMAIL):
        await send(brevo, user_changed(), profile=ada(email=address))
    withdrawn = await send(brevo, choice_made(granted=False), profile=ada(email=NEW_EMAIL), consent=DENIED, former=[EMAIL])
    assert outcomes(withdrawn) == [Outcome.DELIVERED]
    assert {email: each["emailBlacklisted"] for email, each in account.contacts.items()} == {ADA: True, NEW_EMAIL: True}


async def test_who_withdraws_and_has_no_address_any_more_is_not_mailed_at_the_former(brevo: KIND, account: Brevo) -> None:
    await send(brevo, user_changed())
    message = choice_made(granted=False)
    (wanted,) = brevo.wanted(message)
    [result] = await brevo.send([Outgoing("d1", wanted, message, DENIED, None, former=[EMAIL])])
    assert (result.outcome, account.contacts[ADA]["emailBlacklisted"]) == (Outcome.DELIVERED, True)
