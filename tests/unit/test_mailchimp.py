"""Mailchimp: what is sent of each message, and what its answers mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged
from pydantic import ValidationError

from kit.people.privacy import Consent
from services.destinations.kind import Erasure, Outcome, Outgoing
from services.destinations.mailchimp.destination import KIND
from services.destinations.mailchimp.mapping import member_id, refusal
from services.destinations.mailchimp.options import MailchimpOptions
from tests.mailchimp import KEY, LIST, Mailchimp
from tests.unit.shopper import (
    DENIED,
    EMAIL,
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
    stamp,
    user_changed,
)
from tests.vendor import Reply, serving

ADA = member_id(EMAIL)
PAYLOADS = Path(__file__).parent.parent / "payloads" / "mailchimp"


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailchimp]:
    monkeypatch.setenv("MAILCHIMP_KEY", KEY)
    double = Mailchimp()
    with serving(double):
        yield double


def options(account: Mailchimp, **more: Any) -> dict[str, Any]:
    merge_fields = {"FNAME": "first_name", "LNAME": "last_name", "STAGE": "user_type", "LTV": "lifetime_value"}
    defaults = {"api_key": "MAILCHIMP_KEY", "list_id": LIST, "url": account.url, "store_id": "shop", "merge_fields": merge_fields}
    return {**defaults, **more}


@pytest.fixture
async def mailchimp(account: Mailchimp) -> AsyncGenerator[KIND]:
    async with opened(KIND, options(account)) as destination:
        yield destination


async def test_a_person_becomes_a_member_with_its_stage(mailchimp: KIND, account: Mailchimp) -> None:
    assert outcomes(await send(mailchimp, user_changed(), profile=ada(lifetime_value=49))) == [Outcome.DELIVERED]
    member = account.members[ADA]
    assert (member["email_address"], member["status"], member["language"]) == (EMAIL, "subscribed", "de")
    assert member["merge_fields"] == {"FNAME": "Ada", "LNAME": "Lovelace", "STAGE": "lead", "LTV": "49.00"}
    assert account.tags[ADA] == {"stage:lead"}


async def test_a_stage_replaces_the_one_before(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, user_changed())
    account.tags[ADA].add("by hand")
    await send(mailchimp, user_changed(), profile=ada(user_type="customer"))
    assert account.tags[ADA] == {"stage:customer", "by hand"}


async def test_what_is_empty_stays_as_it_is(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, user_changed())
    nameless = ada()
    nameless.ClearField("first_name")
    await send(mailchimp, user_changed(), profile=nameless)
    assert account.members[ADA]["merge_fields"]["FNAME"] == "Ada"


async def test_with_double_opt_in_new_members_are_asked(account: Mailchimp) -> None:
    async with opened(KIND, options(account, double_opt_in=True)) as mailchimp:
        await send(mailchimp, user_changed())
    assert account.members[ADA]["status"] == "pending"


@pytest.mark.parametrize("status", ["unsubscribed", "cleaned", "archived", "pending"])
async def test_an_update_subscribes_nobody_again(mailchimp: KIND, account: Mailchimp, status: str) -> None:
    await send(mailchimp, user_changed())
    account.members[ADA]["status"] = status
    for message in (user_changed(), order(), conversion("enrollment", course_id=7)):
        assert outcomes(await send(mailchimp, message)) == [Outcome.DELIVERED]
    assert account.members[ADA]["status"] == status


async def test_a_member_that_another_plugin_added_for_its_orders_is_subscribed(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, user_changed())
    account.members[ADA]["status"] = "transactional"
    await send(mailchimp, user_changed())
    assert account.members[ADA]["status"] == "subscribed"


@pytest.mark.parametrize("status", ["unsubscribed", "archived"])
async def test_who_consents_anew_is_asked_to_confirm(mailchimp: KIND, account: Mailchimp, status: str) -> None:
    await send(mailchimp, user_changed())
    account.members[ADA]["status"] = status
    account.left.add(ADA)
    assert outcomes(await send(mailchimp, choice_made(granted=True))) == [Outcome.DELIVERED]
    assert account.members[ADA]["status"] == "pending"


async def test_a_denial_unsubscribes(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, user_changed())
    (wanted,) = mailchimp.wanted(choice_made(granted=False))
    assert not wanted.needs_consent
    assert outcomes(await send(mailchimp, choice_made(granted=False), consent=DENIED)) == [Outcome.DELIVERED]
    assert account.members[ADA]["status"] == "unsubscribed"


def test_a_choice_that_is_published_again_is_not_delivered_again(mailchimp: KIND) -> None:
    first = choice_made(granted=True)
    again = choice_made(granted=True)
    again.consent.analytics_tracking.granted = True
    another_person = choice_made(granted=True)
    another_person.consent.subject = "wordpress:43"
    later = choice_made(granted=True, at=NOW + timedelta(microseconds=1))
    keys = [[each.key for each in mailchimp.wanted(one)] for one in (first, again, choice_made(granted=False), another_person, later)]
    assert keys[0] == keys[1]
    assert len({key for some in keys for key in some}) == 4
    assert "wordpress:42" not in str(keys), "a key outlives an erasure"


async def test_a_denial_makes_nobody_a_member(mailchimp: KIND, account: Mailchimp) -> None:
    assert outcomes(await send(mailchimp, choice_made(granted=False), consent=DENIED)) == [Outcome.DELIVERED]
    assert not account.members
    assert {each.method for each in account.requests} == {"GET"}


async def test_the_choice_in_force_counts_not_the_one_that_was_published(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, choice_made(granted=True), consent=DENIED)
    assert not account.members
    await send(mailchimp, choice_made(granted=False))
    assert account.members[ADA]["status"] == "subscribed"


async def test_a_choice_that_a_visitor_made_is_followed_once_the_person_is_known(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, user_changed())
    link = AliasChanged(subject="session:s-1", user_id="u-ada", linked_at=stamp(NOW))
    (wanted,) = mailchimp.wanted(IdentityChanged(alias=link))
    assert (wanted.name, wanted.needs_consent) == ("link", False)
    assert outcomes(await send(mailchimp, IdentityChanged(alias=link), consent=DENIED)) == [Outcome.DELIVERED]
    assert account.members[ADA]["status"] == "unsubscribed"
    assert outcomes(await send(mailchimp, IdentityChanged(alias=link))) == [Outcome.DELIVERED]
    assert account.members[ADA]["status"] == "unsubscribed", "no new choice of the person"
    assert outcomes(await send(mailchimp, IdentityChanged(alias=link), consent=Consent())) == [Outcome.WITHHELD]
    for other in (AliasChanged(subject="email:aa", user_id="u-ada"), AliasChanged(subject="session:s-1", withdrawn=True)):
        assert list(mailchimp.wanted(IdentityChanged(alias=other))) == []


@pytest.mark.parametrize("consent", [Consent(), DENIED])
async def test_nothing_is_sent_without_consent(mailchimp: KIND, account: Mailchimp, consent: Consent) -> None:
    messages = [user_changed(), order(), conversion("signup"), event("add_to_cart"), event("product_view")]
    for message in messages:
        assert set(outcomes(await send(mailchimp, message, consent=consent))) == {Outcome.WITHHELD}
    assert not account.requests


async def test_nothing_is_sent_of_who_has_no_address(mailchimp: KIND, account: Mailchimp) -> None:
    (wanted,) = mailchimp.wanted(choice_made(granted=False))
    [result] = await mailchimp.send([Outgoing("d1", wanted, choice_made(granted=False), DENIED, None)])
    assert (result.outcome, account.requests) == (Outcome.WITHHELD, [])


async def test_an_order_comes_with_its_products_and_tags(mailchimp: KIND, account: Mailchimp) -> None:
    assert outcomes(await send(mailchimp, order())) == [Outcome.DELIVERED]
    assert account.tags[ADA] == {"stage:customer", "course:pmp-prep"}
    assert account.stores["shop"]["currency_code"] == "EUR"
    assert {id_: each["variants"][0]["price"] for id_, each in account.products.items()} == {"7": 49.0, "9": 10.5}
    assert account.sent("POST", "/orders") == [
        json.loads((PAYLOADS / "order.json").read_text().replace("2026-11-22T10:20:30+00:00", NOW.isoformat()))
    ]


async def test_an_order_that_is_sent_again_is_one_order(mailchimp: KIND, account: Mailchimp) -> None:
    for _ in range(3):
        assert outcomes(await send(mailchimp, order())) == [Outcome.DELIVERED]
    assert len(account.orders) == len(account.sent("POST", "/orders")) == 1
    await send(mailchimp, order(order_id="1017"))
    assert len(account.sent("POST", "/products")) == 2
    assert len([each for each in account.requests if each.method == "GET" and "/products/" in each.path]) == 2, "asked for once"


async def test_a_store_that_was_deleted_is_made_again_with_its_products(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, order())
    for kept in (account.stores, account.products, account.orders):
        kept.clear()
    assert outcomes(await send(mailchimp, order())) == [Outcome.DELIVERED]
    assert (account.products.keys(), account.orders.keys()) == ({"7", "9"}, {"1016"})


async def test_refunds_change_the_order(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, order())
    await send(mailchimp, refunded("10.50"))
    found = account.orders["1016"]
    assert (found["financial_status"], found["order_total"]) == ("partially_refunded", 49.5)
    assert account.tags[ADA] == {"stage:customer", "course:pmp-prep"}
    await send(mailchimp, refunded("60.00"))
    assert (found["financial_status"], found["order_total"]) == ("refunded", 0)
    assert account.tags[ADA] == {"stage:lead"}


async def test_an_older_state_does_not_replace_a_newer_one(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, order())
    await send(mailchimp, refunded("60.00"))
    assert outcomes(await send(mailchimp, order())) == [Outcome.DELIVERED]
    assert account.orders["1016"]["financial_status"] == "refunded"


async def test_a_refund_of_an_order_that_was_never_sent_adds_none(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, refunded("60.00"))
    await send(mailchimp, refunded("10.50", historical=True))
    assert not account.orders


async def test_without_a_store_an_order_is_tags_alone(account: Mailchimp) -> None:
    async with opened(KIND, options(account, store_id="")) as mailchimp:
        await send(mailchimp, order())
    assert account.tags[ADA] == {"stage:customer", "course:pmp-prep"}
    assert not account.stores


def test_of_an_order_only_a_sale_that_counts_is_wanted(account: Mailchimp) -> None:
    mailchimp = KIND("mail", MailchimpOptions.model_validate({"kind": "mailchimp", **options(account)}), httpx.AsyncClient())
    unpaid = order()
    unpaid.ClearField("sold_at")
    assert [*mailchimp.wanted(unpaid), *mailchimp.wanted(order(excluded=True))] == []
    [history] = mailchimp.wanted(order(historical=True, entries=[]))
    [wanted] = mailchimp.wanted(refunded("10.50", historical=True))
    assert (history.is_historical, wanted.is_historical) == (True, False)
    assert (wanted.at, wanted.order_by) == (NOW + timedelta(minutes=1), "wordpress:42")
    [profile], [choice] = mailchimp.wanted(user_changed()), mailchimp.wanted(choice_made(granted=True))
    assert wanted.order_by == profile.order_by == choice.order_by


async def test_an_order_number_that_can_not_stand_in_a_path_is_replaced(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, order(order_id="2017/06/05-123"))
    assert account.orders.keys() == {"p-1"}


async def test_an_enrolment_is_a_tag_and_an_event(mailchimp: KIND, account: Mailchimp) -> None:
    assert outcomes(await send(mailchimp, conversion("enrollment", course_id="pmp-prep"))) == [Outcome.DELIVERED]
    assert account.tags[ADA] == {"stage:lead", "course:pmp-prep"}
    [happened] = account.events[ADA]
    assert happened == json.loads((PAYLOADS / "event.json").read_text().replace("2026-11-22T10:20:30+00:00", NOW.isoformat()))


async def test_registrations_and_views_are_events(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, conversion("signup"))
    await send(mailchimp, event("product_view", product_id=7))
    assert [(each["name"], each["properties"]) for each in account.events[ADA]] == [
        ("registered", {}),
        ("viewed_product", {"product": "7", "course": "pmp-prep", "page": "/courses/pmp"}),
    ]


async def test_what_is_old_starts_no_automation(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, event("product_view", at=NOW - timedelta(days=2)))
    assert account.events[ADA][0]["is_syncing"]
    assert account.sent("POST", "/tags")[0]["is_syncing"]


async def test_a_cart_without_an_order_is_abandoned_once(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, order(at=NOW - timedelta(minutes=1)))
    first, again = (list(mailchimp.wanted(event(type_, id_))) for type_, id_ in (("add_to_cart", "e-1"), ("begin_checkout", "e-2")))
    assert first[0].key == again[0].key, "the queue makes one delivery of a session"
    assert (first[0].not_before, first[0].order_by) == (NOW + timedelta(minutes=60), "")
    assert outcomes(await send(mailchimp, event("add_to_cart"))) == [Outcome.DELIVERED]
    assert [each["name"] for each in account.events[ADA]] == ["abandoned_cart"]


async def test_a_cart_is_as_late_as_it_is_sent_after_it_counted_as_abandoned(account: Mailchimp) -> None:
    async with opened(KIND, options(account, abandoned_cart_minutes=1440)) as mailchimp:
        for hours in (25, 49):
            await send(mailchimp, event("add_to_cart", at=NOW - timedelta(hours=hours)))
    assert [each["is_syncing"] for each in account.events[ADA]] == [False, True]


async def test_a_cart_that_was_bought_is_not_abandoned(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, order(at=NOW + timedelta(minutes=5)))
    assert outcomes(await send(mailchimp, event("add_to_cart"))) == [Outcome.WITHHELD]
    assert account.events[ADA] == []


def test_carts_need_a_store_and_views_a_person(account: Mailchimp) -> None:
    for more in ({"store_id": ""}, {"abandoned_cart_minutes": 0}):
        mailchimp = KIND("mail", MailchimpOptions.model_validate({"kind": "mailchimp", **options(account, **more)}), httpx.AsyncClient())
        assert [*mailchimp.wanted(event("add_to_cart")), *mailchimp.wanted(event("product_view", user_id=""))] == []
    crawler = event("product_view")
    crawler.enrichment.is_bot = True
    assert list(mailchimp.wanted(crawler)) == []


@pytest.mark.parametrize(
    ("reply", "outcome", "detail"),
    [
        (Reply(429, {"title": "Too Many Requests", "status": 429}), Outcome.RETRY, "HTTP 429 Too Many Requests"),
        (Reply(403, "<html>busy</html>"), Outcome.RETRY, "HTTP 403"),
        (Reply(403, {"title": "Forbidden", "status": 403}), Outcome.UNAUTHORIZED, "HTTP 403 Forbidden"),
        (Reply(401, {"title": "API Key Invalid", "status": 401}), Outcome.UNAUTHORIZED, "HTTP 401 API Key Invalid"),
        (Reply(404, {"title": "Resource Not Found", "status": 404}), Outcome.UNAUTHORIZED, "the list is unknown"),
        (Reply(503, "<html>down</html>"), Outcome.RETRY, "HTTP 503"),
        (Reply(302, "", {"location": "https://portal.example/"}), Outcome.RETRY, "HTTP 302"),
        (Reply(200, "<html>portal</html>"), Outcome.RETRY, "an answer without JSON"),
    ],
)
async def test_refusals(mailchimp: KIND, account: Mailchimp, reply: Reply, outcome: Outcome, detail: str) -> None:
    account.next_replies.append(reply)
    [result] = await send(mailchimp, user_changed())
    assert (result.outcome, result.detail) == (outcome, detail)


async def test_an_address_that_mailchimp_refuses_is_not_in_the_result(mailchimp: KIND) -> None:
    [result] = await send(mailchimp, user_changed(), profile=ada(email="ada@@nowhere"))
    assert (result.outcome, result.detail) == (Outcome.REJECTED, "HTTP 400 Invalid Resource")
    assert refusal(400, {"title": "ada@example.org is a title"}).detail == "HTTP 400"


async def test_a_wrong_key_stops_the_destination(account: Mailchimp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILCHIMP_KEY", "wrong-us1")
    async with opened(KIND, options(account)) as mailchimp:
        assert outcomes(await send(mailchimp, user_changed())) == [Outcome.UNAUTHORIZED]
        assert (await mailchimp.test()).outcome is Outcome.UNAUTHORIZED


async def test_as_many_requests_as_are_made_at_once_are_few_enough(mailchimp: KIND, account: Mailchimp) -> None:
    account.slowness = 0.02
    results = await asyncio.gather(*(send(mailchimp, event("product_view", f"e-{number}")) for number in range(KIND.most_requests)))
    assert {result.outcome for each in results for result in each} == {Outcome.DELIVERED}


async def test_the_test_looks_for_the_list(mailchimp: KIND, account: Mailchimp) -> None:
    assert (await mailchimp.test()).outcome is Outcome.DELIVERED
    async with opened(KIND, options(account, list_id="other")) as other:
        assert await other.test() == (Outcome.REJECTED, "the list is unknown", None, False)
    assert {each.method for each in account.requests} == {"GET"}


async def test_an_erased_person_is_deleted_for_good_and_stays_so(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, order())
    person = Erasure(["wordpress:42"], [EMAIL, "never@example.org"])
    for outcome in (Outcome.DELIVERED, Outcome.WITHHELD):
        result = await mailchimp.erase(person)
        assert result is not None
        assert result.outcome is outcome
    assert (account.members, account.orders, account.forgotten) == ({}, {}, {ADA})
    assert outcomes(await send(mailchimp, user_changed())) == [Outcome.WITHHELD]


async def test_an_erasure_is_repeated_when_mailchimp_is_down(mailchimp: KIND, account: Mailchimp) -> None:
    account.next_replies.append(Reply(503))
    result = await mailchimp.erase(Erasure([], [EMAIL]))
    assert result is not None
    assert result.outcome is Outcome.RETRY


async def test_only_an_event_may_not_be_repeated(mailchimp: KIND, account: Mailchimp) -> None:
    assert mailchimp.is_repeatable(next(iter(mailchimp.wanted(order()))))
    [view] = mailchimp.wanted(event("product_view"))
    assert not mailchimp.is_repeatable(view)
    async with opened(KIND, options(account, url="http://127.0.0.1:9")) as unreachable:
        [result] = await send(unreachable, event("product_view"))
    assert (result.outcome, result.is_ambiguous) == (Outcome.RETRY, False), "the event itself was not sent"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"url": None, "api_key": "NO_CENTRE"}, "data centre"),
        ({"merge_fields": {"fname": "first_name"}}, "String should match pattern"),
        ({"merge_fields": {"FNAME": "password"}}, "Input should be"),
        ({"list_id": ""}, "String should match pattern"),
        ({"lists": "a"}, "Extra inputs"),
    ],
)
def test_wrong_options(account: Mailchimp, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], reason: str) -> None:
    monkeypatch.setenv("NO_CENTRE", "0123456789abcdef")
    with pytest.raises(ValidationError, match=reason):
        MailchimpOptions.model_validate({"kind": "mailchimp", **options(account, **more)})


def test_the_address_is_that_of_the_data_centre(account: Mailchimp) -> None:
    found = MailchimpOptions.model_validate({"kind": "mailchimp", **options(account, url=None)})
    assert found.address == "https://us21.api.mailchimp.com/3.0"


NEW = member_id(NEW_EMAIL)


async def test_a_member_follows_its_person_to_another_address(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, order())
    assert outcomes(await send(mailchimp, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])) == [Outcome.DELIVERED]
    assert {id_: (each["email_address"], each["status"]) for id_, each in account.members.items()} == {NEW: (NEW_EMAIL, "subscribed")}
    assert "course:pmp-prep" in account.tags[NEW]
    assert outcomes(await send(mailchimp, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])) == [Outcome.DELIVERED], (
        "it is gone"
    )


@pytest.mark.parametrize(("status", "is_known"), [("subscribed", True), ("cleaned", False), ("archived", False)])
async def test_a_member_that_can_not_follow_is_archived(mailchimp: KIND, account: Mailchimp, status: str, *, is_known: bool) -> None:
    await send(mailchimp, user_changed())
    account.members[ADA]["status"] = status
    if is_known:
        await send(mailchimp, user_changed(), profile=ada(email=NEW_EMAIL))
    assert outcomes(await send(mailchimp, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])) == [Outcome.DELIVERED]
    assert {id_: each["status"] for id_, each in account.members.items()} == {ADA: "archived", NEW: "subscribed"}


async def test_who_unsubscribed_under_a_former_address_is_not_subscribed_under_another(mailchimp: KIND, account: Mailchimp) -> None:
    await send(mailchimp, user_changed())
    account.members[ADA] |= {"status": "unsubscribed", "last_changed": (NOW - timedelta(seconds=1)).isoformat()}
    [result] = await send(mailchimp, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])
    assert (result.outcome, NEW in account.members) == (Outcome.WITHHELD, False)
    assert outcomes(await send(mailchimp, choice_made(granted=True), profile=ada(email=NEW_EMAIL), former=[EMAIL])) == [Outcome.DELIVERED]
    assert {id_: each["status"] for id_, each in account.members.items()} == {ADA: "unsubscribed", NEW: "subscribed"}


async def test_a_vendor_that_is_down_keeps_the_event_after_a_change_of_address(mailchimp: KIND, account: Mailchimp) -> None:
    account.next_replies.append(Reply(503))
    [result] = await send(mailchimp, conversion("signup"), profile=ada(email=NEW_EMAIL), former=[EMAIL])
    assert (result.outcome, account.members) == (Outcome.RETRY, {})


@pytest.mark.parametrize("changed", [{"last_changed": (NOW + timedelta(seconds=1)).isoformat()}, {"last_changed": ""}, {}])
async def test_no_choice_from_before_subscribes_another_address(mailchimp: KIND, account: Mailchimp, changed: dict[str, str]) -> None:
    await send(mailchimp, user_changed())
    account.members[ADA] |= {"status": "unsubscribed", **changed}
    [result] = await send(mailchimp, choice_made(granted=True), profile=ada(email=NEW_EMAIL), former=[EMAIL])
    assert (result.outcome, NEW in account.members) == (Outcome.WITHHELD, False)
