"""Klaviyo: what is sent of each message, whom it subscribes, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pmp.purchases.v1 import change_pb2 as purchases

from kit.people.privacy import Choice, Consent
from services.destinations.kind import Erasure, Outcome, Outgoing
from services.destinations.klaviyo.answers import Marketing, Subscription, refusal, subscription_wanted
from services.destinations.klaviyo.destination import KIND
from tests.klaviyo import KEY, LIST, Klaviyo
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
    stamp,
    user_changed,
)
from tests.vendor import Reply, serving

PAYLOADS = Path(__file__).parent.parent / "payloads" / "klaviyo"
HOUR = timedelta(hours=1)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Klaviyo]:
    monkeypatch.setenv("KLAVIYO_KEY", KEY)
    double = Klaviyo()
    with serving(double):
        yield double


@pytest.fixture
async def klaviyo(account: Klaviyo) -> AsyncGenerator[KIND]:
    async with opened(KIND, {"api_key": "KLAVIYO_KEY", "list_id": LIST, "url": account.url}) as destination:
        yield destination


def golden(name: str) -> Any:
    return json.loads((PAYLOADS / f"{name}.json").read_text().replace("2026-11-22T10:20:30+00:00", NOW.isoformat()))


async def test_a_person_becomes_a_profile_and_is_subscribed(klaviyo: KIND, account: Klaviyo) -> None:
    assert outcomes(await send(klaviyo, user_changed(), profile=ada(lifetime_value=49))) == [Outcome.DELIVERED]
    assert account.sent("POST", "/profile-import") == [golden("profile")]
    assert (account.marketing[EMAIL]["consent"], account.listed) == ("SUBSCRIBED", {EMAIL})


async def test_who_is_subscribed_is_not_subscribed_again(klaviyo: KIND, account: Klaviyo) -> None:
    for message in (user_changed(), choice_made(granted=True), order(), conversion("signup")):
        await send(klaviyo, message)
    assert len(account.sent("POST", "/profile-subscription-bulk-create-jobs")) == 1


async def test_without_a_list_the_account_is_subscribed_to(account: Klaviyo) -> None:
    async with opened(KIND, {"api_key": "KLAVIYO_KEY", "url": account.url}) as klaviyo:
        await send(klaviyo, user_changed())
    assert (account.marketing[EMAIL]["consent"], account.listed) == ("SUBSCRIBED", set())


async def test_who_unsubscribed_there_later_stays_so(klaviyo: KIND, account: Klaviyo) -> None:
    account.withdraw(EMAIL, "UNSUBSCRIBE", NOW + HOUR)
    [result] = await send(klaviyo, choice_made(granted=True))
    assert (result.outcome, result.detail) == (Outcome.WITHHELD, Subscription.WITHDRAWN.value)
    assert outcomes(await send(klaviyo, order())) == [Outcome.DELIVERED], "the profile is current nevertheless"
    assert account.marketing[EMAIL]["consent"] == "UNSUBSCRIBED"


async def test_a_newer_choice_subscribes_again(klaviyo: KIND, account: Klaviyo) -> None:
    account.withdraw(EMAIL, "UNSUBSCRIBE", NOW - HOUR)
    assert outcomes(await send(klaviyo, choice_made(granted=True))) == [Outcome.DELIVERED]
    assert account.marketing[EMAIL]["consent"] == "SUBSCRIBED"


@pytest.mark.parametrize(
    ("marketing", "wanted"),
    [
        ({"consent": "NEVER_SUBSCRIBED"}, Subscription.SUBSCRIBE),
        ({}, Subscription.SUBSCRIBE),
        ({"consent": "SUBSCRIBED", "suppression": []}, Subscription.NOTHING),
        ({"consent": "SUBSCRIBED", "suppression": [("USER_SUPPRESSED", -1)]}, Subscription.SUBSCRIBE),
        ({"consent": "SUBSCRIBED", "suppression": [("USER_SUPPRESSED", 1)]}, Subscription.WITHDRAWN),
        ({"consent": "SUBSCRIBED", "suppression": [("USER_SUPPRESSED", -1), ("UNSUBSCRIBE", 1)]}, Subscription.WITHDRAWN),
        ({"consent": "NEVER_SUBSCRIBED", "suppression": [("SPAM_COMPLAINT", -1)]}, Subscription.WITHDRAWN),
        ({"consent": "NEVER_SUBSCRIBED", "suppression": [("HARD_BOUNCE", -1)]}, Subscription.WITHDRAWN),
        ({"consent": "UNSUBSCRIBED"}, Subscription.WITHDRAWN),
        ({"consent": "UNSUBSCRIBED", "consent_timestamp": (NOW - HOUR).replace(tzinfo=None).isoformat()}, Subscription.SUBSCRIBE),
        ({"consent": "UNSUBSCRIBED", "last_updated": (NOW + HOUR).isoformat()}, Subscription.WITHDRAWN),
        ({"consent": "UNSUBSCRIBED", "last_updated": NOW.isoformat()}, Subscription.WITHDRAWN),
    ],
)
def test_suppressions_are_lifted_only_by_a_newer_choice(marketing: dict[str, Any], wanted: Subscription) -> None:
    suppression = [{"reason": reason, "timestamp": NOW + hours * HOUR} for reason, hours in marketing.get("suppression", ())]
    found = Marketing.model_validate({**marketing, "suppression": suppression or None})
    assert subscription_wanted(found, Choice(granted=True, decided_at=NOW)) is wanted


async def test_a_denial_unsubscribes_a_profile_and_makes_none(klaviyo: KIND, account: Klaviyo) -> None:
    assert outcomes(await send(klaviyo, choice_made(granted=False), consent=DENIED)) == [Outcome.DELIVERED]
    assert account.profiles == {}
    assert [each.method for each in account.requests] == ["GET"]
    await send(klaviyo, user_changed())
    for _ in range(2):
        assert outcomes(await send(klaviyo, choice_made(granted=False), consent=DENIED)) == [Outcome.DELIVERED]
    assert account.marketing[EMAIL]["consent"] == "UNSUBSCRIBED"
    assert len(account.sent("POST", "/profile-subscription-bulk-delete-jobs")) == 1


async def test_the_choice_in_force_counts_not_the_one_that_was_published(klaviyo: KIND, account: Klaviyo) -> None:
    await send(klaviyo, choice_made(granted=True), consent=DENIED)
    assert account.profiles == {}
    await send(klaviyo, choice_made(granted=False))
    assert account.marketing[EMAIL]["consent"] == "SUBSCRIBED"


@pytest.mark.parametrize("consent", [Consent(), DENIED])
async def test_nothing_is_sent_without_consent(klaviyo: KIND, account: Klaviyo, consent: Consent) -> None:
    for message in (user_changed(), order(), conversion("signup"), event("add_to_cart"), event("product_view")):
        assert set(outcomes(await send(klaviyo, message, consent=consent))) == {Outcome.WITHHELD}
    assert not account.requests


async def test_nothing_is_sent_of_who_has_no_address(klaviyo: KIND, account: Klaviyo) -> None:
    (wanted,) = klaviyo.wanted(user_changed())
    [result] = await klaviyo.send([Outgoing("d1", wanted, user_changed(), GRANTED, None)])
    assert (result.outcome, account.requests) == (Outcome.WITHHELD, [])


async def test_an_order_is_an_event_and_one_for_each_line(klaviyo: KIND, account: Klaviyo) -> None:
    for _ in range(2):
        assert outcomes(await send(klaviyo, order())) == [Outcome.DELIVERED]
    assert account.metrics(EMAIL) == ["Placed Order", *["Ordered Product"] * 2], "a repetition has the same unique ids"
    assert account.sent("POST", "/event-bulk-create-jobs")[0] == golden("order")
    properties = account.profiles[EMAIL]["properties"]
    assert (properties["stage"], properties["course:pmp-prep"]) == ("customer", True)


async def test_an_order_of_a_thousand_lines_is_one_request(klaviyo: KIND, account: Klaviyo) -> None:
    lines = [purchases.PurchasedLine(product_id=str(number), quantity=1, amount="1") for number in range(1000)]
    assert outcomes(await send(klaviyo, order(lines=lines))) == [Outcome.DELIVERED]
    assert len(account.metrics(EMAIL)) == 1000


async def test_each_refund_is_an_event(klaviyo: KIND, account: Klaviyo) -> None:
    await send(klaviyo, order())
    await send(klaviyo, refunded("60.00"))
    [happened] = [each for (_, metric, _), each in account.events.items() if metric == "Refunded Order"]
    assert (happened["value"], happened["unique_id"]) == (60.0, "p-1:1")
    properties = account.profiles[EMAIL]["properties"]
    assert (properties["stage"], properties["course:pmp-prep"]) == ("lead", False)


async def test_a_cancellation_is_an_event(klaviyo: KIND, account: Klaviyo) -> None:
    cancelled = order(payment_status=purchases.PAYMENT_STATUS_FAILED)
    for reason, amount in ((purchases.ENTRY_REASON_CANCELLED, "-60"), (purchases.ENTRY_REASON_EDITED, "-1"), (1, "5")):
        cancelled.entries.add(kind=purchases.ENTRY_KIND_CORRECTION, reason=reason, amount=amount, timestamp=stamp(NOW))
    await send(klaviyo, cancelled)
    metrics = [metric for metric in account.metrics(EMAIL) if metric != "Ordered Product"]
    assert metrics == ["Placed Order", "Cancelled Order", "Refunded Order"], "an order that is edited goes on"


async def test_of_an_order_what_is_history_is_marked(klaviyo: KIND) -> None:
    imported = refunded("10.50", historical=True)
    imported.entries.add(kind=purchases.ENTRY_KIND_REFUND, amount="-1", historical=True, timestamp=stamp(NOW))
    marks = [(each.key, each.is_historical) for each in klaviyo.wanted(imported)]
    assert marks == [("placed_order:p-1", None), ("refunded_order:p-1:1", False), ("refunded_order:p-1:2", True)]
    assert list(klaviyo.wanted(order(excluded=True))) == []


async def test_steps_of_shopping_are_events(klaviyo: KIND, account: Klaviyo) -> None:
    await send(klaviyo, user_changed())
    for number, type_ in enumerate(("product_view", "add_to_cart", "begin_checkout")):
        for _ in range(2):
            assert outcomes(await send(klaviyo, event(type_, f"e-{number}", product_id=7))) == [Outcome.DELIVERED]
    assert account.metrics(EMAIL) == ["Viewed Product", "Added to Cart", "Started Checkout"]
    assert account.sent("POST", "/events")[0] == golden("event")


async def test_registrations_and_enrolments_are_events(klaviyo: KIND, account: Klaviyo) -> None:
    await send(klaviyo, conversion("signup"))
    await send(klaviyo, conversion("enrollment", "c-2", course_id=7))
    assert account.metrics(EMAIL) == ["Registered", "Enrolled in Course"]
    assert account.profiles[EMAIL]["properties"]["course:7"] is True
    assert list(klaviyo.wanted(conversion("enrollment"))) == [], "a course that is not named"


async def test_a_view_of_nobody_is_not_wanted(klaviyo: KIND) -> None:
    assert list(klaviyo.wanted(event("product_view", user_id=""))) == []
    [cart] = klaviyo.wanted(event("add_to_cart", user_id=""))
    assert cart.order_by == "session:s-1"


async def test_what_is_old_starts_no_flow(klaviyo: KIND, account: Klaviyo) -> None:
    await send(klaviyo, event("add_to_cart", at=NOW - timedelta(days=2)))
    await send(klaviyo, order(NOW - timedelta(days=2)))
    assert account.sent("POST", "/events")[0]["data"]["attributes"]["backfill"]
    [job] = account.sent("POST", "/event-bulk-create-jobs")
    assert job["data"]["attributes"]["events-bulk-create"]["data"][0]["attributes"]["backfill"]


@pytest.mark.parametrize(
    ("reply", "outcome", "detail"),
    [
        (Reply(429, {"errors": [{"code": "throttled"}]}, {"retry-after": "30"}), Outcome.RETRY, "HTTP 429 throttled"),
        (Reply(503, "<html>down</html>"), Outcome.RETRY, "HTTP 503"),
        (Reply(401, {"errors": [{"code": "not_authenticated"}]}), Outcome.UNAUTHORIZED, "HTTP 401 not_authenticated"),
        (Reply(403, {"errors": [{"code": "permission_denied"}]}), Outcome.UNAUTHORIZED, "HTTP 403 permission_denied"),
        (Reply(400, {"errors": []}), Outcome.REJECTED, "HTTP 400"),
        (Reply(302, "", {"location": "https://portal.example/"}), Outcome.RETRY, "HTTP 302"),
        (Reply(200, {"data": {"attributes": {}}}), Outcome.REJECTED, "an answer without the subscription of a profile"),
    ],
)
async def test_refusals(klaviyo: KIND, account: Klaviyo, reply: Reply, outcome: Outcome, detail: str) -> None:
    account.next_replies.append(reply)
    [result] = await send(klaviyo, user_changed())
    assert (result.outcome, result.detail) == (outcome, detail)
    assert result.retry_after == (timedelta(seconds=30) if reply.headers.get("retry-after") else None)
    assert account.marketing == {}


async def test_an_address_that_klaviyo_refuses_is_not_in_the_result(klaviyo: KIND) -> None:
    [result] = await send(klaviyo, user_changed(), profile=ada(email="ada@@nowhere"))
    assert (result.outcome, result.detail) == (Outcome.REJECTED, "HTTP 400 invalid")
    assert refusal(400, b'{"errors": [{"code": "Ada@example.org"}]}', None).detail == "HTTP 400"


async def test_the_test_reads_nobody(klaviyo: KIND, account: Klaviyo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await klaviyo.test()).outcome is Outcome.DELIVERED
    assert account.requests[0].query["fields[profile]"] == "created"
    monkeypatch.setenv("KLAVIYO_KEY", "wrong")
    async with opened(KIND, {"api_key": "KLAVIYO_KEY", "url": account.url}) as refused:
        assert (await refused.test()).outcome is Outcome.UNAUTHORIZED


async def test_an_erased_person_is_deleted(klaviyo: KIND, account: Klaviyo) -> None:
    await send(klaviyo, order())
    result = await klaviyo.erase(Erasure(["wordpress:42"], [EMAIL, "old@example.org"]))
    assert result is not None
    assert result.outcome is Outcome.DELIVERED
    assert (account.profiles, account.deleted) == ({}, [EMAIL, "old@example.org"])
    account.next_replies.append(Reply(503))
    failed = await klaviyo.erase(Erasure([], [EMAIL]))
    assert failed is not None
    assert failed.outcome is Outcome.RETRY


async def test_all_may_be_repeated(klaviyo: KIND) -> None:
    messages = [user_changed(), order(), conversion("signup"), event("add_to_cart")]
    assert all(klaviyo.is_repeatable(wanted) for message in messages for wanted in klaviyo.wanted(message))


async def test_a_profile_follows_its_person_to_another_address(klaviyo: KIND, account: Klaviyo) -> None:
    await send(klaviyo, order())
    assert outcomes(await send(klaviyo, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])) == [Outcome.DELIVERED]
    assert account.profiles.keys() == {NEW_EMAIL}
    assert account.profiles[NEW_EMAIL]["properties"]["course:pmp-prep"] is True
    assert account.marketing[NEW_EMAIL]["consent"] == "SUBSCRIBED"


async def test_a_profile_that_can_not_follow_is_unsubscribed(klaviyo: KIND, account: Klaviyo) -> None:
    for address in (EMAIL, NEW_EMAIL):
        await send(klaviyo, user_changed(), profile=ada(email=address))
    assert outcomes(await send(klaviyo, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])) == [Outcome.DELIVERED]
    assert {email: each["consent"] for email, each in account.marketing.items()} == {EMAIL: "UNSUBSCRIBED", NEW_EMAIL: "SUBSCRIBED"}


@pytest.mark.parametrize(("reason", "stays"), [("UNSUBSCRIBE", True), ("SPAM_COMPLAINT", True), ("HARD_BOUNCE", False)])
async def test_who_left_under_a_former_address_is_not_subscribed_under_another(
    klaviyo: KIND, account: Klaviyo, reason: str, *, stays: bool
) -> None:
    await send(klaviyo, user_changed())
    account.withdraw(EMAIL, reason, NOW - HOUR)
    [result] = await send(klaviyo, user_changed(), profile=ada(email=NEW_EMAIL), former=[EMAIL])
    assert (result.outcome, NEW_EMAIL in account.profiles) == ((Outcome.WITHHELD, False) if stays else (Outcome.DELIVERED, True))
    assert outcomes(await send(klaviyo, choice_made(granted=True), profile=ada(email=NEW_EMAIL), former=[EMAIL])) != [Outcome.RETRY]
    assert NEW_EMAIL in account.profiles


@pytest.mark.parametrize("reason", ["UNSUBSCRIBE", "SPAM_COMPLAINT"])
async def test_no_choice_from_before_subscribes_another_address(klaviyo: KIND, account: Klaviyo, reason: str) -> None:
    await send(klaviyo, user_changed())
    account.withdraw(EMAIL, reason, NOW + HOUR)
    [result] = await send(klaviyo, choice_made(granted=True), profile=ada(email=NEW_EMAIL), former=[EMAIL])
    assert (result.outcome, NEW_EMAIL in account.profiles) == (Outcome.WITHHELD, False)
