"""A shop's users and orders through the real gateway: a journey, one sale however often it is reported, and invalid calls."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import Mesh, running
from tests.servers import until

PAYLOADS = Path(__file__).parent.parent / "payloads"
API = "/api/v1"
_numbers = count(1)

Json = dict[str, Any]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


class Shop:
    """The shop's own server, and its calls."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def post(self, path: str, body: Json, *, scope: str = "site") -> Json:
        answer = self._mesh.client.post(f"{self._mesh.url}{API}/{path}", json=body, headers=self._mesh.credentials(scope, "1"))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str, *, scope: str = "site", **query: str) -> Json:
        answer = self._mesh.client.get(f"{self._mesh.url}{API}/{path}", params=query, headers=self._mesh.credentials(scope, "1"))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, method: str, path: str, body: Json | None = None, *, scope: str = "site") -> tuple[int, Json]:
        answer = self._mesh.client.request(method, f"{self._mesh.url}{API}/{path}", json=body, headers=self._mesh.credentials(scope, "1"))
        assert set(answer.json()) == {"code", "message", "details"}, answer.text
        return answer.status_code, answer.json()

    def knows_journey(self, user: str) -> bool:
        headers = self._mesh.credentials("site", "1")
        return self._mesh.client.get(f"{self._mesh.url}{API}/users/{user}/journey", headers=headers).status_code == 200


@pytest.fixture
def shop(mesh: Mesh) -> Shop:
    return Shop(mesh)


def now(seconds: int = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def person() -> tuple[int, str, str]:
    """WordPress id, e-mail and session of a new user."""
    number = next(_numbers)
    return 1000 + number, f"buyer{number}@example.org", f"visit-{number}"


def order(user: int, number: str, **fields: Any) -> Json:
    return {"timestamp": now(), "user_id": str(user), "order_id": number, "amount": 199.0, "currency": "USD", **fields}


def test_the_whole_way_from_an_anonymous_landing_to_a_purchase_is_one_journey(shop: Shop) -> None:
    wordpress_id, email, session = person()

    def seen(seconds: int, event_type: str, page: str, **fields: Any) -> None:
        shop.post(
            "events/track",
            {
                "event_type": event_type,
                "timestamp": now(seconds),
                "session_id": session,
                "page_url": f"https://shop.example{page}",
                **fields,
            },
        )

    seen(-600, "page_view", "/", referrer="https://www.google.com/")
    seen(-500, "lead_capture", "/guide", email=email)
    seen(-400, "page_view", "/pricing")
    registered = shop.post(
        "users/register", {"wordpress_id": str(wordpress_id), "email": email, "session_id": session, "timestamp": now(-300)}
    )
    sold = shop.post("purchases/track", order(wordpress_id, f"way-{wordpress_id}", session_id=session, email=email))
    assert registered["success"]
    assert sold["success"]

    def arrived() -> bool:
        return shop.knows_journey(str(wordpress_id)) and "purchase" in shop.get(f"users/{wordpress_id}/journey").get("stages", [])

    until(arrived)
    until(lambda: len(shop.get(f"users/{wordpress_id}/journey")["touchpoints"]) == 4)
    journey = shop.get(f"users/{wordpress_id}/journey")
    assert journey["stages"] == ["awareness", "interest", "consideration", "purchase"]
    assert journey["user_id"] == registered["user_id"]
    assert journey["first_touch"]["source"] == "google"
    assert [each["session_id"] for each in journey["sessions"]] == [session]
    assert float(journey["time_to_convert"].removesuffix("s")) == pytest.approx(600, abs=30)
    until(lambda: shop.get(f"users/{wordpress_id}")["user"]["user_type"] == "customer")
    user = shop.get(f"users/{registered['user_id']}")["user"]
    assert (user["lifetime_value"], user["currency"], user["email"]) == (199, "USD", email)
    assert {link["kind"] for link in user["links"]} == {"wordpress", "email", "session"}


def test_a_lead_is_the_person_that_registers_later(shop: Shop) -> None:
    wordpress_id, email, session = person()
    shop.post("events/track", {"event_type": "lead_capture", "timestamp": now(-60), "session_id": session, "email": email})

    def lead() -> Json:
        return shop.post("users/identify", {"user_id": str(wordpress_id), "session_id": "unused"})

    registered = shop.post("users/register", {"wordpress_id": str(wordpress_id), "email": email})
    until(lambda: session in json.dumps(shop.get(f"users/{wordpress_id}")["user"].get("links", [])))
    assert lead()["user_id"] == registered["user_id"]


def test_identical_notices_at_the_same_time_are_one_sale(shop: Shop) -> None:
    wordpress_id, _, session = person()
    notice = order(wordpress_id, f"same-{wordpress_id}", id=f"notice-{wordpress_id}", session_id=session)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(partial(shop.post, "purchases/track"), [notice] * 200))
    assert len({answer["purchase_id"] for answer in answers}) == 1
    assert [answer.get("duplicate", False) for answer in answers].count(False) == 1
    sold = shop.get(f"purchases/same-{wordpress_id}")["purchase"]
    assert [(entry["kind"], entry["amount"]) for entry in sold["entries"]] == [("sale", 199)]
    until(lambda: _value(shop, wordpress_id) == 199)


def test_orders_reported_by_three_senders_in_any_order_are_one_sale_each(shop: Shop) -> None:
    wordpress_id, _, session = person()
    shuffle = random.Random(7)  # noqa: S311 (the same order each time)
    placed = now()
    notices = [
        order(
            wordpress_id,
            f"three-{wordpress_id}-{number}",
            timestamp=placed,
            amount=10.01,
            source=source,
            id=f"{source}-{wordpress_id}-{number}",
            session_id=session,
        )
        for number in range(50)
        for source in ("plugin", "page", "webhook")
    ]
    shuffle.shuffle(notices)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(partial(shop.post, "purchases/track"), notices))
    assert [answer.get("duplicate", False) for answer in answers].count(False) == 50
    refunds = [(number, source) for number in range(25) for source in ("plugin", "webhook")]
    shuffle.shuffle(refunds)
    for number, source in refunds:
        refund = {"reference": f"{source}-refund-{number}", "amount": 4.0, "refunded_total": 4.0, "source": source}
        shop.post(f"purchases/three-{wordpress_id}-{number}/refunds", refund)
    until(lambda: _value(shop, wordpress_id) == pytest.approx(50 * 10.01 - 25 * 4))
    listed: list[Json] = []
    token = ""
    while True:
        page = shop.get("purchases", scope="read", user_id=str(wordpress_id), page_size="20", page_token=token)
        listed += page["purchases"]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert len({sold["purchase_id"] for sold in listed}) == len(listed) == 50
    assert sorted(len(sold["entries"]) for sold in listed) == [1] * 25 + [2] * 25
    assert round(sum(sold["paid_amount"] - sold.get("refunded_amount", 0) for sold in listed), 2) == round(50 * 10.01 - 25 * 4, 2)


def test_a_merge_joins_what_two_users_paid_and_an_unmerge_gives_it_back(shop: Shop) -> None:
    (first, *_), (second, email, _) = person(), person()
    shop.post("users/register", {"wordpress_id": str(first)})
    guest = shop.post("users/register", {"email": email})["user_id"]
    shop.post("purchases/track", order(first, f"own-{first}"))
    shop.post("purchases/track", {"timestamp": now(), "email": email, "order_id": f"guest-{second}", "amount": 50, "currency": "USD"})
    until(lambda: (_value(shop, first), _value(shop, guest)) == (199, 50))
    shop.post(f"users/{first}/merge", {"merged_user_id": guest, "reason": "asked for it"}, scope="admin")
    until(lambda: _value(shop, first) == 249)
    assert _value(shop, guest) == 249, "a merged user is the person"
    until(lambda: len(shop.get(f"users/{first}/journey")["touchpoints"]) == 2)
    shop.post(f"users/{first}/unmerge", {"merged_user_id": guest}, scope="admin")
    until(lambda: (_value(shop, first), _value(shop, guest)) == (199, 50))
    until(lambda: len(shop.get(f"users/{first}/journey")["touchpoints"]) == 1)


@pytest.mark.parametrize("service", ["analytics", "identity", "journeys", "purchases"])
def test_a_replay_changes_nothing(mesh: Mesh, shop: Shop, service: str) -> None:
    wordpress_id, email, session = person()
    user = shop.post("users/register", {"wordpress_id": str(wordpress_id), "email": email, "session_id": session})["user_id"]
    shop.post("purchases/track", order(wordpress_id, f"replay-{wordpress_id}", session_id=session))
    until(lambda: _value(shop, wordpress_id) == 199)
    until(lambda: shop.knows_journey(str(wordpress_id)) and "purchase" in shop.get(f"users/{wordpress_id}/journey")["stages"])
    until(lambda: shop.get(f"users/{wordpress_id}/journey")["user_id"] == user)
    before, read = (shop.get(f"users/{wordpress_id}"), shop.get(f"users/{wordpress_id}/journey")), _read_to(mesh, service)
    assert f"{service} reads " in mesh.pmp("replay", service).stdout
    until(lambda: all(position >= read[partition] for partition, position in _read_to(mesh, service).items()))
    assert (shop.get(f"users/{wordpress_id}"), shop.get(f"users/{wordpress_id}/journey")) == before
    assert f"None of {service}'s messages waits" in mesh.pmp("dead-letters", "list", service).stdout


def test_a_replay_of_analytics_gives_the_same_figures_from_the_history(mesh: Mesh, shop: Shop) -> None:
    for number in range(3):
        wordpress_id, email, session = person()
        page = {"session_id": session, "page_url": "https://shop.example/replay", "utm_parameters": {"source": "press"}}
        shop.post("events/track", {"id": f"replay-{wordpress_id}", "event_type": "page_view", "timestamp": now(number), **page})
        shop.post("users/register", {"wordpress_id": str(wordpress_id), "email": email, "session_id": session})
        shop.post("purchases/track", order(wordpress_id, f"figures-{wordpress_id}", session_id=session))
    until(lambda: [row["page_views"] for row in _report(shop, "content", filter="/replay")] == [3])
    until(lambda: [row["orders"] for row in _report(shop, "acquisition", filter="press")] == [3])
    until(lambda: _heads(mesh).items() <= _read_to(mesh, "analytics").items())
    before = shop.get("analytics/dashboard", scope="read")
    assert "analytics reads events from its beginning" in mesh.pmp("replay", "analytics").stdout
    until(lambda: shop.get("analytics/dashboard", scope="read") == before)


def _report(shop: Shop, report: str, **query: str) -> list[Json]:
    return shop.get("analytics/reports", scope="read", report=report, **query).get("rows", [])


def _heads(mesh: Mesh) -> dict[tuple[str, int], int]:
    """The newest positions of the topics that analytics reads, of partitions that have any."""
    heads: dict[tuple[str, int], int] = {}
    for service in ("gdpr", "identity", "ingestion", "purchases"):
        with closing(sqlite3.connect(f"file:{mesh.data}/{service}.db?mode=ro", uri=True)) as database:
            for topic, partition, position in database.execute("SELECT topic, partition, position FROM outbox_heads WHERE position > 0"):
                heads[topic, partition] = position
    return heads


def _read_to(mesh: Mesh, service: str) -> dict[tuple[str, int], int]:
    """The offsets of a service, by topic and partition."""
    with closing(sqlite3.connect(f"file:{mesh.data}/{service}.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT topic, partition, position FROM stream_offsets").fetchall()
    return {(topic, partition): int(position.partition("-")[0]) for topic, partition, position in rows}


def _value(shop: Shop, user: int | str) -> float:
    try:
        return float(shop.get(f"users/{user}")["user"].get("lifetime_value", 0))
    except AssertionError:
        return -1.0


def test_a_batch_of_orders_has_a_verdict_for_each(mesh: Mesh, shop: Shop) -> None:
    wordpress_id, _, _ = person()
    good = order(wordpress_id, f"batch-{wordpress_id}")
    answer = shop.post("purchases/batch", {"purchases": [{**good, "total": 1}, {**good, "amount": "much"}, good, None], "sender": "import"})
    assert [verdict["success"] for verdict in answer["results"]] == [True, False, True, False]
    assert (answer["success"], answer["accepted"], answer["rejected"], answer["ignored_fields"]) == (False, 2, 2, ["sender"])
    first, bad, again, _ = answer["results"]
    assert (first["ignored_fields"], first["duplicate"], again["duplicate"]) == (["total"], False, True)
    assert [violation["field"] for violation in bad["violations"]] == ["amount"]
    assert shop.get(f"purchases/batch-{wordpress_id}")["purchase"]["purchase_id"] == first["purchase_id"] == again["purchase_id"]
    for count_ in (0, 501):
        status, refusal = shop.refused("POST", "purchases/batch", {"purchases": [good] * count_})
        assert (status, "purchases" in json.dumps(refusal)) == (400, True)
    assert shop.refused("POST", "purchases/batch", {"purchases": [good]}, scope="track")[0] == 403
    strict = mesh.client.post(
        f"{mesh.url}{API}/purchases/batch?strict=true", json={"purchases": [{**good, "total": 1}]}, headers=mesh.credentials("site", "1")
    )
    assert strict.json()["rejected"] == 1


def test_a_batch_of_registrations_has_a_verdict_for_each(shop: Shop) -> None:
    wordpress_id, email, session = person()
    users = [
        {"wordpress_id": wordpress_id, "email": email, "session_id": session, "age": 36},
        {"first_name": "Ada"},
        {"email": email, "session_id": "undefined"},
    ]
    answer = shop.post("users/batch", {"users": users})
    assert [verdict["success"] for verdict in answer["results"]] == [True, False, True]
    first, bad, again = answer["results"]
    assert (first["created"], first["ignored_fields"], again["created"]) == (True, ["age"], False)
    assert first["user_id"] == again["user_id"]
    assert "wordpress_id or email" in bad["violations"][0]["description"]
    assert shop.get(f"users/{wordpress_id}")["user"]["email"] == email
    for count_ in (0, 501):
        assert shop.refused("POST", "users/batch", {"users": [users[0]] * count_})[0] == 400
    assert shop.refused("POST", "users/batch", {"users": users}, scope="track")[0] == 403


GOLDEN = {
    "identity.RegisterUser": "POST users/register",
    "identity.IdentifyUser": "POST users/identify",
    "identity.UpdateUser": "PATCH users/42",
    "identity.MergeUsers": "POST users/42/merge",
    "identity.UnmergeUsers": "POST users/42/unmerge",
    "purchases.TrackPurchase": "POST purchases/track",
    "purchases.RefundPurchase": "POST purchases/{order_id}/refunds",
    "purchases.UpdatePaymentStatus": "POST purchases/{order_id}/status",
    "journeys.TrackTouchpoint": "POST journey/touchpoint",
    "journeys.TrackConversion": "POST conversions/track",
    "gdpr.UpdateConsent": "PUT users/42/consent",
    "identity.RegisterUsers": "POST users/batch",
    "purchases.TrackPurchases": "POST purchases/batch",
}
"""Ordered so that each finds the record it refers to."""


def test_the_golden_payloads_are_taken_by_the_gateway(mesh: Mesh, shop: Shop) -> None:
    payloads: dict[str, Json] = {name: json.loads((PAYLOADS / f"{name}.json").read_text()) for name in GOLDEN}
    merged = payloads["identity.MergeUsers"]["merged_user_id"]
    shop.post("users/register", {"wordpress_id": "42", "email": payloads["identity.RegisterUser"]["email"]})
    payloads["identity.MergeUsers"]["merged_user_id"] = payloads["identity.UnmergeUsers"]["merged_user_id"] = shop.post(
        "users/register", {"email": f"{merged}@example.org"}
    )["user_id"]
    order_id = payloads["purchases.TrackPurchase"]["order_id"]
    for name, payload in payloads.items():
        method, path = GOLDEN[name].format(order_id=order_id).split()
        answer = mesh.client.request(
            method, f"{mesh.url}{API}/{path}", json=payload, headers=mesh.credentials("admin" if "merge" in path else "site", "1")
        )
        assert answer.status_code == 200, (name, answer.text)


REFUSED: dict[str, tuple[str, str, Json | None, str, int, str]] = {
    "a registration of nobody": ("POST", "users/register", {"first_name": "Ada"}, "site", 400, "wordpress_id or email"),
    "a registration with a bad e-mail": ("POST", "users/register", {"email": "nobody"}, "site", 400, "email"),
    "a registration from a browser": ("POST", "users/register", {"wordpress_id": "1"}, "track", 403, ""),
    "an identification of nothing": ("POST", "users/identify", {"user_id": "1"}, "site", 400, "session_id or anonymous_id"),
    "an identification as an unknown user": ("POST", "users/identify", {"user_id": "no-such", "session_id": "s"}, "site", 404, "user"),
    "an unknown user": ("GET", "users/no-such", None, "site", 404, "user"),
    "a change of an unknown user": ("PATCH", "users/no-such", {"updated_at": "2026-11-22T10:00:00Z"}, "site", 404, "user"),
    "a change without its time": ("PATCH", "users/1", {"first_name": "Ada"}, "site", 400, "updated_at"),
    "a merge by the shop": ("POST", "users/1/merge", {"merged_user_id": "2"}, "site", 403, ""),
    "a merge of an unknown user": ("POST", "users/no-such/merge", {"merged_user_id": "2"}, "admin", 404, "user"),
    "an unmerge of what is not merged": ("POST", "users/no-such/unmerge", {"merged_user_id": "2"}, "admin", 404, "user"),
    "a purchase without an order": (
        "POST",
        "purchases/track",
        {"timestamp": "2026-11-22T10:00:00Z", "user_id": "1"},
        "site",
        400,
        "order_id",
    ),
    "a purchase of nobody": ("POST", "purchases/track", {"timestamp": "2026-11-22T10:00:00Z", "order_id": "1"}, "site", 400, "user_id"),
    "a purchase in no currency": (
        *("POST", "purchases/track"),
        {"timestamp": now(), "order_id": "1", "user_id": "1", "amount": 1, "currency": "XYZ"},
        *("site", 400, "currency"),
    ),
    "a negative purchase": (
        *("POST", "purchases/track"),
        {"timestamp": now(), "order_id": "1", "user_id": "1", "amount": -1},
        *("site", 400, "amount"),
    ),
    "a purchase two days ahead": (
        *("POST", "purchases/track"),
        {"timestamp": now(2 * 86_400), "order_id": "1", "user_id": "1", "amount": 1},
        *("site", 400, "timestamp"),
    ),
    "a purchase from a browser": ("POST", "purchases/track", {}, "track", 403, ""),
    "a refund of an unknown order": (
        *("POST", "purchases/6f6d2f5c-9d0e-5b1a-8a53-3c1c1f8a7b10/refunds"),
        {"reference": "r", "amount": 1},
        *("site", 404, "purchase"),
    ),
    "a refund without a reference": ("POST", "purchases/no-such/refunds", {"amount": 1}, "site", 400, "reference"),
    "a status nobody knows": ("POST", "purchases/no-such/status", {"payment_status": "lost"}, "site", 400, "payment_status"),
    "the status of an unknown order": (
        *("POST", "purchases/6f6d2f5c-9d0e-5b1a-8a53-3c1c1f8a7b10/status"),
        {"payment_status": "failed"},
        *("site", 404, "purchase"),
    ),
    "an unknown purchase": ("GET", "purchases/no-such", None, "site", 404, "purchase"),
    "a list for the shop's server": ("GET", "purchases", None, "site", 403, ""),
    "a page that nobody gave": ("GET", "purchases?page_token=nonsense", None, "read", 400, "page_token"),
    "a touchpoint of nobody": (
        *("POST", "journey/touchpoint"),
        {"timestamp": now(), "action": "a", "touchpoint": "t"},
        *("track", 400, "user_id or session_id"),
    ),
    "a touchpoint of another": (
        *("POST", "journey/touchpoint"),
        {"timestamp": now(), "action": "a", "touchpoint": "t", "user_id": "2"},
        *("track", 403, "user"),
    ),
    "a stage nobody knows": (
        *("POST", "journey/touchpoint"),
        {"timestamp": now(), "action": "a", "touchpoint": "t", "session_id": "s", "stage": "despair"},
        *("track", 400, "stage"),
    ),
    "a conversion from a browser": ("POST", "conversions/track", {}, "track", 403, ""),
    "a conversion to nothing": ("POST", "conversions/track", {"timestamp": now(), "session_id": "s"}, "site", 400, "conversion_type"),
    "the journey of an unknown user": ("GET", "users/no-such/journey", None, "site", 404, "user"),
    "an attribution nobody knows": ("GET", "attribution?model=guess", None, "read", 400, "model"),
    "an attribution for the shop's server": ("GET", "attribution", None, "site", 403, ""),
    "a funnel without steps": ("GET", "funnels", None, "read", 400, "steps"),
    "a body that is no JSON object": ("POST", "purchases/track", None, "site", 400, ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_caller_does_wrong_is_said(shop: Shop, case: str) -> None:
    method, path, body, scope, status, named = REFUSED[case]
    answered, error = shop.refused(method, path, body, scope=scope)
    assert (answered, named in json.dumps(error)) == (status, True), error
