"""A person receives all of her data and nobody else's, by a link that is valid for one download."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.layout import Processes
from tests.e2e.mesh import Mesh, running
from tests.servers import until

WORDPRESS, MANY = 4711, 4712
SESSIONS = ["visit-of-ada-1815", "visit-of-ada-1852"]
REGISTERED = {
    "email": "ada.lovelace@analytical.example",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "preferences": {"language": "en", "topics": ["exam"]},
}
LISTS = {"newsletter": True, "offers": False}
SECOND_EMAIL = "countess@analytical.example"
ADDRESS = {"first_name": "Ada", "address_1": "12 St James's Square", "city": "London"}
LINES = [("course", "Course", 2, 0.1), ("guide", "Guide, größer", 1, 129.9)]
BOBS = ["visit-of-bob", "bob@calculus.example", "Boole", "Lincoln"]
EVENTS, MANY_EVENTS = 40, 10_000
MEGABYTES = 100 * MANY_EVENTS / 100_000
"""The limit for 100 000 events is 100 MB, and proportionally less for fewer."""
INSERT = """
INSERT INTO events (id, user_id, event_type, platform, event_data, content_hash, client, scope, processed,
  timestamp, received_at, created_at, topic_partition, topic_position, topic_ordinal)
VALUES (:id, :user_id, 'page_view', 'web', :event_data, x'00', 'shop', 'site', 1, :at, :at, :at, 0, 0, 0)
"""
SECTIONS = ["wordpress_data", "analytics_data", "purchase_history", "email_data", "consents", "journeys", "deliveries"]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh"), processes=Processes.EACH) as mesh:
        yield mesh


def send(mesh: Mesh, method: str, path: str, body: Any = None, *, scope: str = "site", user: str = "") -> httpx.Response:
    return mesh.client.request(method, f"{mesh.url}{path}", json=body, headers=mesh.credentials(scope, user))


def call(mesh: Mesh, method: str, path: str, body: Any = None, *, scope: str = "site", user: str = "") -> Any:
    answer = send(mesh, method, f"/api/v1/{path}", body, scope=scope, user=user)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


def asked(mesh: Mesh, who: object, user: str = "") -> dict[str, Any]:
    return call(mesh, "POST", f"users/{who}/export", user=user)["request"]


def now() -> str:
    return datetime.now(UTC).isoformat()


def event(number: int) -> dict[str, Any]:
    who = {"user_id": f"{WORDPRESS}"} if number % 2 else {}
    page = {"page_url": f"https://shop.example/course/{number}?utm_source=press", "page_title": f"Page “{number}”"}
    return {"id": f"ada-{number}", "event_type": "page_view", "timestamp": now(), "session_id": SESSIONS[number % 2], **page, **who}


def order(number: int, **who: Any) -> dict[str, Any]:
    lines = [{"product_id": id_, "product_name": name, "product_type": "course", "quantity": n, "amount": a} for id_, name, n, a in LINES]
    money = {"amount": 130.1, "currency": "EUR", "payment_status": "completed", "lines": lines}
    return {"id": f"order-{number}-paid", "order_id": f"{number}", "timestamp": now(), **money, **who}


def rows(mesh: Mesh, service: str, query: str, *parameters: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{mesh.data}/{service}.db?mode=ro", uri=True)) as database:
        return database.execute(query, parameters).fetchall()


def change(mesh: Mesh, query: str, *parameters: str) -> None:
    with closing(sqlite3.connect(mesh.data / "gdpr.db", timeout=60)) as database, database:
        database.execute(query, parameters)


@pytest.fixture(scope="module")
def events(mesh: Mesh) -> list[dict[str, Any]]:
    """The events of a person with data in every service; Bob is on the site as well."""
    lists = [{"list": name, "subscribed": chosen, "changed_at": now()} for name, chosen in LISTS.items()]
    registration = {**REGISTERED, "wordpress_id": f"{WORDPRESS}", "session_id": SESSIONS[0], "timestamp": now()}
    user = call(mesh, "POST", "users/register", {**registration, "email_subscriptions": lists})["user_id"]
    second = call(mesh, "POST", "users/register", {"email": SECOND_EMAIL, "session_id": SESSIONS[1], "timestamp": now()})["user_id"]
    call(mesh, "POST", f"users/{user}/merge", {"merged_user_id": second, "reason": "she said so"}, scope="admin")
    sent = [event(number) for number in range(EVENTS)]
    session, email, name, city = BOBS
    bob = {"wordpress_id": "4713", "email": email, "last_name": name, "session_id": session, "timestamp": now()}
    call(mesh, "POST", "users/register", bob)
    others = [{**event(number), "id": f"bob-{number}", "user_id": "4713", "session_id": session} for number in range(EVENTS)]
    call(mesh, "POST", "events/batch", {"events": sent + others})
    call(mesh, "POST", "purchases/track", order(1, user_id=f"{WORDPRESS}", email=REGISTERED["email"], billing_address=ADDRESS))
    call(mesh, "POST", "purchases/track", order(2, email=SECOND_EMAIL))
    call(mesh, "POST", "purchases/track", order(3, user_id="4713", email=email, billing_address={"city": city}))
    facts = {"timestamp": now(), "session_id": SESSIONS[1]}
    call(mesh, "POST", "journey/touchpoint", {"id": "ada-call", "touchpoint": "phone", "action": "call", **facts})
    call(mesh, "POST", "conversions/track", {"id": "ada-goal", "conversion_type": "lead", "value": 12.5, **facts})
    call(mesh, "PUT", f"users/{WORDPRESS}/consent", {"analytics_tracking": True, "timestamp": "2026-11-20T10:00:00Z"})
    call(mesh, "PUT", f"users/session:{SESSIONS[1]}/consent", {"marketing_emails": False, "timestamp": "2026-11-20T11:00:00Z"})
    mesh.drained()
    until(lambda: len(rows(mesh, "gdpr", "SELECT 1 FROM persons WHERE person_id = ?", user)) == 7)
    until(lambda: rows(mesh, "journeys", "SELECT count(*) FROM user_journeys") == [(2 * EVENTS + 3 + 1,)])
    of_events = "SELECT sum(events) FROM analytics_traffic WHERE dimension = 'site' AND day > 0"
    until(lambda: rows(mesh, "analytics", of_events) == [(2 * EVENTS,)])
    return sent


def fetched(mesh: Mesh, who: object) -> dict[str, Any]:
    answer = send(mesh, "GET", asked(mesh, who)["download"]["path"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["cache-control"] == "no-store"
    assert not any(word in answer.text for word in BOBS), "another person's"
    return answer.json()


def test_an_archive_is_what_was_sent(mesh: Mesh, events: list[dict[str, Any]]) -> None:
    archive = fetched(mesh, WORDPRESS)
    assert list(archive) == ["archive", *SECTIONS, "rows", "complete"]
    sections = {name: archive[name] for name in SECTIONS}
    assert all(section["about"] for section in sections.values())
    assert archive["rows"] == {
        name: sum(len(table) for table in section.values()) - len(section["about"]) for name, section in sections.items()
    }
    stored = {row["id"]: row for row in archive["analytics_data"]["events"]}
    assert stored.keys() == {each["id"] for each in events}
    for each in events:
        row = stored[each["id"]]
        shown = {name: row[name] for name in ("event_type", "session_id", "page_url")}
        assert shown == {name: each[name] for name in shown}
        assert (row["user_id"] or "", row["event_data"]["page_title"]) == (each.get("user_id", ""), each["page_title"])
        assert datetime.fromisoformat(row["timestamp"]) == datetime.fromisoformat(each["timestamp"])
    visits = archive["analytics_data"]["analytics_sessions"]
    assert {key for row in visits for _, key, *_ in json.loads(row["payload"])} <= stored.keys()
    assert {row["carrier"] for row in visits} >= {f"session:{each}" for each in {row["session_id"] for row in stored.values()} - {None}}
    first, second = sorted(archive["wordpress_data"]["users"], key=lambda user: user["wordpress_id"] or 9999)
    assert {name: first[name] for name in REGISTERED} == REGISTERED
    assert (first["wordpress_id"], second["email"]) == (WORDPRESS, SECOND_EMAIL)
    assert {f"session:{session}" for session in SESSIONS} <= {link["subject"] for link in archive["wordpress_data"]["identity_links"]}
    assert [merge["reason"] for merge in archive["wordpress_data"]["user_merges"]] == ["she said so"]
    assert {row["list"]: row["subscribed"] for row in archive["email_data"]["email_subscriptions"]} == LISTS
    account, guest = sorted(archive["purchase_history"]["purchases"], key=lambda row: row["order_id"])
    assert (Decimal(account["amount"]), account["currency"], account["email"]) == (Decimal("130.1"), "EUR", REGISTERED["email"])
    assert (json.loads(account["billing_data"]), guest["email"]) == (ADDRESS, SECOND_EMAIL)
    for each in (account, guest):
        lines = [line for line in archive["purchase_history"]["purchase_lines"] if line["purchase_id"] == each["id"]]
        assert [(line["product_id"], line["product_name"], line["quantity"], float(line["amount"])) for line in lines] == LINES
    choices = [(row["subject"], row["purpose"], bool(row["granted"]), row["decided_at"]) for row in archive["consents"]["consents"]]
    assert sorted(choices) == [
        (f"session:{SESSIONS[1]}", "marketing_emails", False, "2026-11-20T11:00:00+00:00"),
        (f"wordpress:{WORDPRESS}", "analytics_tracking", True, "2026-11-20T10:00:00+00:00"),
    ]
    assert {row["id"] for row in archive["journeys"]["user_journeys"]} > {"ada-call", *stored}
    assert [(row["id"], float(row["value"])) for row in archive["journeys"]["conversions"]] == [("ada-goal", 12.5)]


def test_any_of_her_names_leads_to_one_request(mesh: Mesh, events: list[dict[str, Any]]) -> None:
    assert events
    request = asked(mesh, WORDPRESS)
    by_address = call(mesh, "POST", "users/export", {"email": SECOND_EMAIL.upper()})["request"]
    assert (asked(mesh, f"session:{SESSIONS[1]}")["id"], by_address["id"]) == (request["id"], request["id"])
    assert (request["kind"], request["state"]) == ("export", "done")
    assert rows(mesh, "gdpr", "SELECT count(*) FROM archive_links") == [(1,)]
    assert b"lovelace" not in (mesh.data / "gdpr.db").read_bytes()


def test_a_link_is_used_once(mesh: Mesh) -> None:
    request = asked(mesh, WORDPRESS)
    path = request["download"]["path"]
    assert call(mesh, "GET", f"gdpr/requests/{request['id']}")["request"]["download"]["path"] == path
    assert [send(mesh, "GET", path).status_code for _ in range(2)] == [200, 404]
    assert "download" not in call(mesh, "GET", f"gdpr/requests/{request['id']}")["request"]
    assert asked(mesh, WORDPRESS)["id"] != request["id"]
    actions = [json.loads(entry)["action"] for (entry,) in rows(mesh, "gdpr", "SELECT entry FROM audit_log") if request["id"] in entry]
    assert actions == ["export asked", "export done"]


def test_a_link_is_valid_for_its_requester_only(mesh: Mesh) -> None:
    own, other, of_server = asked(mesh, WORDPRESS, "7"), asked(mesh, WORDPRESS, "8"), asked(mesh, WORDPRESS)
    assert len({own["id"], other["id"], of_server["id"]}) == 3
    path = own["download"]["path"]
    wrong = path[:-1] + ("0" if path[-1] != "0" else "1")
    refused = [
        send(mesh, "GET", wrong, user="7"),
        send(mesh, "GET", path.partition("?")[0], user="7"),
        send(mesh, "GET", path, user="8"),
        send(mesh, "GET", path),
        send(mesh, "GET", path.replace(own["id"], other["id"]), user="7"),
        send(mesh, "GET", of_server["download"]["path"], user="7"),
    ]
    assert {(answer.status_code, answer.json()["message"]) for answer in refused} == {(404, refused[0].json()["message"])}
    assert "download" not in call(mesh, "GET", f"gdpr/requests/{own['id']}", user="8")["request"]
    assert send(mesh, "GET", path, scope="track", user="7").status_code == 403
    assert send(mesh, "POST", "/api/v1/users/7/export", scope="track", user="7").status_code == 403
    assert send(mesh, "GET", path, user="7").status_code == 200


def test_a_link_expires_is_swept_and_asking_again_makes_a_new_one(mesh: Mesh) -> None:
    request = asked(mesh, WORDPRESS)
    change(mesh, "UPDATE archive_links SET expires_at = '2026-01-01 00:00:00.000000' WHERE request_id = ?", request["id"])
    assert "download" not in call(mesh, "GET", f"gdpr/requests/{request['id']}")["request"]
    assert send(mesh, "GET", request["download"]["path"]).status_code == 404
    assert asked(mesh, WORDPRESS)["id"] != request["id"]
    change(mesh, "UPDATE archive_links SET expires_at = '2026-01-01 00:00:00.000000'")
    mesh.kill("gdpr")  # it cleans up when it starts
    until(lambda: rows(mesh, "gdpr", "SELECT count(*) FROM archive_links") == [(0,)])
    until(lambda: send(mesh, "GET", f"/api/v1/gdpr/requests/{request['id']}").status_code == 200)


def test_a_person_without_data_gets_an_empty_archive(mesh: Mesh) -> None:
    archive = fetched(mesh, "session:never-seen")
    assert (archive["rows"], archive["complete"]) == (dict.fromkeys(SECTIONS, 0), True)


@pytest.fixture(scope="module")
def much(mesh: Mesh) -> str:
    """A person with more data than fits into any buffer."""
    data = {"user_agent": "Mozilla/5.0 (X11; Linux x86_64)", "metadata": {"text": "x" * 1000}, "enrichment": {"channel": "CHANNEL_DIRECT"}}
    same = {"user_id": f"{MANY}", "event_data": json.dumps(data), "at": "2026-11-20 10:00:00.000000"}
    with closing(sqlite3.connect(mesh.data / "ingestion.db", timeout=60)) as database, database:
        database.executemany(INSERT, ({**same, "id": f"many-{number}"} for number in range(MANY_EVENTS)))
    return f"{MANY}"


def memory(mesh: Mesh, name: str, what: str) -> float:
    """Memory of a process in megabytes: current (VmRSS), or peak (VmHWM)."""
    status = Path(f"/proc/{mesh.pid(name)}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


def test_much_data_takes_little_memory(mesh: Mesh, much: str) -> None:
    before: dict[str, float] = {}
    path = asked(mesh, much)["download"]["path"]
    for name in ("gdpr", "ingestion"):
        Path(f"/proc/{mesh.pid(name)}/clear_refs").write_text("5")  # resets VmHWM
        before[name] = memory(mesh, name, "VmRSS")
    archive = send(mesh, "GET", path).json()
    assert archive["rows"]["analytics_data"] == len({row["id"] for row in archive["analytics_data"]["events"]}) == MANY_EVENTS
    more = {name: memory(mesh, name, "VmHWM") - rss for name, rss in before.items()}
    assert all(megabytes < MEGABYTES for megabytes in more.values()), more


@pytest.mark.parametrize("killed", ["ingestion", "gdpr", "client"])
def test_a_fetch_that_breaks_off_is_no_archive_and_leaves_the_link(mesh: Mesh, much: str, killed: str) -> None:
    request = asked(mesh, much)
    path, received = request["download"]["path"], bytearray()
    with mesh.client.stream("GET", f"{mesh.url}{path}", headers=mesh.credentials("site")) as answer:
        pieces = answer.iter_raw()
        received += next(pieces)
        assert send(mesh, "GET", path).status_code == 409, "one at a time"
        if killed != "client":
            mesh.kill(killed)
            with suppress(httpx.RemoteProtocolError):
                received += b"".join(pieces)
    with pytest.raises(json.JSONDecodeError):
        json.loads(received)
    if killed == "gdpr":
        until(lambda: send(mesh, "GET", path).status_code == 409)
        change(mesh, "UPDATE archive_links SET held_until = '2026-01-01 00:00:00.000000' WHERE request_id = ?", request["id"])
    answers: list[httpx.Response] = []

    def whole() -> bool:
        answers.append(send(mesh, "GET", path))
        assert answers[-1].status_code in {200, 409, 503}, answers[-1].text
        return answers[-1].status_code == 200

    until(whole, 45 if killed == "client" else 120)  # a lock that was never released would last longer
    assert answers[-1].json()["rows"]["analytics_data"] == MANY_EVENTS
    assert send(mesh, "GET", path).status_code == 404
