"""A person is erased while the shop goes on: nothing is left that leads to her, whatever died on the way, and nothing brings her back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.e2e.mesh import Mesh, running
from tests.receiver import SECRET, Receiver, receiving
from tests.servers import until

API = "/api/v1"
WORDPRESS = "7311973119731"
EMAIL = "ada.lovelace@analytical.example"
SECOND_EMAIL = "countess@analytical.example"
SESSIONS = ["visit-of-ada-1815", "visit-of-ada-1852"]
NAMES = [EMAIL, SECOND_EMAIL, "Lovelace", "Dorset Street", *SESSIONS]
EVENTS, ORDERS = 300, 4
DONE_SECONDS = 60


@pytest.fixture(scope="module")
def crm() -> Iterator[Receiver]:
    """Another system that knows her."""
    with receiving() as crm:
        yield crm


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, crm: Receiver) -> Iterator[Mesh]:
    calls = {"PMP_SITE_ERASURE_CALLS": json.dumps({"crm": crm.url}), "PMP_SITE_ERASURE_SECRET": SECRET}
    with running(tmp_path_factory.mktemp("mesh"), environment=calls) as mesh:
        yield mesh


def call(mesh: Mesh, method: str, path: str, body: Any = None, *, scope: str = "site") -> Any:
    answer = mesh.client.request(method, f"{mesh.url}{API}/{path}", json=body, headers=mesh.credentials(scope))
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


def now() -> str:
    return datetime.now(UTC).isoformat()


def event(id_: str, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "event_type": "page_view", "timestamp": now(), **fields}


def order(number: int, **who: str) -> dict[str, Any]:
    line = {"product_id": "c1", "product_name": "Course", "product_type": "course", "amount": 10}
    fields = {"order_id": f"{number}", "timestamp": now(), "amount": 10, "currency": "USD", "payment_status": "completed", "lines": [line]}
    return {**fields, "id": f"order-{number}-completed", "billing_address": {"street": "12 Dorset Street"}, **who}


@contextmanager
def another_visitor(mesh: Mesh) -> Generator[list[str]]:
    """Somebody else is on the site meanwhile."""
    left, sent = Event(), list[str]()

    def visit() -> None:
        for number in count():
            if left.wait(0.05):
                return
            call(mesh, "POST", "events/track", event(f"bob-{number}", user_id="99", session_id="visit-of-bob"))
            sent.append(f"bob-{number}")

    thread = Thread(target=visit)
    thread.start()
    try:
        yield sent
    finally:
        left.set()
        thread.join(30)


def known(mesh: Mesh) -> list[str]:
    """A person with events, orders, two merged users, a subscription, touchpoints and choices; answers her users."""
    registration = {"wordpress_id": WORDPRESS, "email": EMAIL, "last_name": "Lovelace", "session_id": SESSIONS[0], "timestamp": now()}
    user = call(mesh, "POST", "users/register", registration)["user_id"]
    second = call(mesh, "POST", "users/register", {"email": SECOND_EMAIL, "session_id": SESSIONS[1], "timestamp": now()})["user_id"]
    call(mesh, "POST", f"users/{user}/merge", {"merged_user_id": second, "reason": "Lovelace told so"}, scope="admin")
    events = [
        event(f"ada-{n}", user_id=WORDPRESS if n % 2 else "", session_id=SESSIONS[n % 2], user_agent="Firefox") for n in range(EVENTS)
    ]
    call(mesh, "POST", "events/batch", {"events": events})
    call(mesh, "POST", "events/track", event("ada-lead", event_type="lead_capture", email=EMAIL, session_id=SESSIONS[0]))
    for number in range(ORDERS):
        who = {"user_id": WORDPRESS} if number % 2 else {"email": SECOND_EMAIL, "session_id": SESSIONS[1]}
        call(mesh, "POST", "purchases/track", order(number, **who))
    touchpoint = {"session_id": SESSIONS[0], "touchpoint": "phone", "action": "call", "timestamp": now()}
    call(mesh, "POST", "journey/touchpoint", {"id": "ada-call", **touchpoint})
    call(mesh, "POST", "conversions/track", {"id": "ada-goal", "conversion_type": "lead", "email": EMAIL, "timestamp": now()})
    call(mesh, "PUT", f"users/session:{SESSIONS[0]}/consent", {"analytics_tracking": True})
    return [user, second]


def rows(mesh: Mesh, service: str, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{mesh.data}/{service}.db?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def followed(mesh: Mesh) -> bool:
    (journeys,) = rows(mesh, "journeys", "SELECT (SELECT count(*) FROM user_journeys), (SELECT count(*) FROM journey_orders)")
    (orders,) = rows(mesh, "identity", "SELECT count(*) FROM user_orders")
    return journeys[0] >= EVENTS + ORDERS and journeys[1] == ORDERS and orders[0] == ORDERS


def places(mesh: Mesh, names: list[str]) -> list[str]:
    """Files of the mesh in which one of these is found: databases with their write-ahead logs, Redis's file, logs."""
    found: list[str] = []
    for path in sorted(Path(mesh.data).rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found += [f"{path.relative_to(mesh.data)}: {name}" for name in names if name.encode() in content]
    return found


@pytest.fixture(scope="module")
def erased(mesh: Mesh) -> list[str]:
    """The users of a person who was erased while somebody else was on the site, and while gdpr died."""
    users = known(mesh)
    until(lambda: followed(mesh), 60)
    with another_visitor(mesh) as sent:
        would_go = call(mesh, "DELETE", f"users/{WORDPRESS}/data?dry_run=true")["would_go"]
        assert {holder["service"] for holder in would_go if holder["tables"]} == {"gdpr", "identity", "ingestion", "journeys", "purchases"}
        request = call(mesh, "DELETE", f"users/{WORDPRESS}/data")["request"]
        mesh.kill("gdpr")
        until(lambda: again(mesh)["id"] == request["id"])
        until(lambda: shown(mesh, request["id"])["state"] == "done", DONE_SECONDS)
    mesh.drained()
    assert rows(mesh, "ingestion", "SELECT count(*) FROM events WHERE user_id = '99'") == [(len(sent),)]
    steps = shown(mesh, request["id"])["steps"]
    assert {step["state"] for step in steps} == {"done"}
    events = sum(
        int(table["rows"]) for step in steps if step["name"] == "erase ingestion" for table in step["tables"] if table["table"] == "events"
    )
    assert events == EVENTS + 1
    return users


def again(mesh: Mesh) -> dict[str, Any]:
    """The same is asked by another of her names, of a service that may be on its way back."""
    answer = mesh.client.delete(f"{mesh.url}{API}/users/session:{SESSIONS[0]}/data", headers=mesh.credentials("admin"))
    return answer.json()["request"] if answer.status_code == 200 else {"id": ""}


def shown(mesh: Mesh, request: str) -> dict[str, Any]:
    return call(mesh, "GET", f"gdpr/requests/{request}")["request"]


def test_nothing_is_left_that_leads_to_an_erased_person(mesh: Mesh, erased: list[str]) -> None:
    assert places(mesh, [*NAMES, *erased, WORDPRESS]) == []


def test_another_system_was_told_by_the_names_it_may_know(mesh: Mesh, erased: list[str], crm: Receiver) -> None:
    told = crm.told[0]["data"]
    assert set(SESSIONS) <= set(told["session_ids"])
    assert (told["wordpress_user_ids"], told["emails"]) == ([WORDPRESS], [EMAIL, SECOND_EMAIL])
    assert set(erased) <= set(told["user_ids"])
    request = call(mesh, "POST", "users/erase", {"email": SECOND_EMAIL})["request"]
    assert (crm.ids[0], request["state"]) == (f"{request['id']}-crm", "done"), "an address in a body names her as well"


def test_figures_stay(mesh: Mesh, erased: list[str]) -> None:
    assert erased
    assert rows(mesh, "ingestion", "SELECT count(*) FROM events WHERE id LIKE 'ada-%'") == [(EVENTS + 1,)]
    assert rows(mesh, "purchases", "SELECT count(*), count(DISTINCT subject) FROM purchases") == [(ORDERS, 1)]
    assert mesh.books()["balanced"]


def test_what_comes_late_or_again_is_suppressed_and_accounted_for(mesh: Mesh, erased: list[str]) -> None:
    before = mesh.drained()
    call(mesh, "POST", "events/track", event("ada-late", user_id=WORDPRESS))
    call(mesh, "POST", "events/track", event("ada-later", session_id=SESSIONS[1]))
    call(mesh, "POST", "events/track", event("ada-lead-late", event_type="lead_capture", email=EMAIL))
    books = mesh.drained()
    assert (books["suppressed"] - before["suppressed"], books["stored"] - before["stored"], books["balanced"]) == (3, 0, True)
    call(mesh, "POST", "purchases/track", order(1, user_id=WORDPRESS))
    call(mesh, "POST", "purchases/track", order(77, user_id=WORDPRESS, email=EMAIL))
    assert rows(
        mesh, "purchases", "SELECT count(*) FROM purchases WHERE user_id IS NOT NULL OR email_hash IS NOT NULL OR billing_data IS NOT NULL"
    ) == [(0,)]
    for service in ("identity", "journeys"):
        mesh.pmp("replay", service)
    until(lambda: rows(mesh, "journeys", "SELECT count(*) FROM journey_orders") == [(ORDERS + 1,)])
    assert (int(WORDPRESS),) not in rows(mesh, "identity", "SELECT wordpress_id FROM users")
    assert erased


def test_only_a_new_registration_brings_somebody_back_and_nothing_of_before(mesh: Mesh, erased: list[str]) -> None:
    headers = mesh.credentials("site")
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    refused = [
        {"wordpress_id": WORDPRESS, "email": EMAIL, "timestamp": now()},
        {"wordpress_id": "7311973119732", "email": EMAIL, "timestamp": before},
        {"wordpress_id": "7311973119732", "email": EMAIL, "timestamp": now(), "registration_date": before},
    ]
    answers = [mesh.client.post(f"{mesh.url}{API}/users/register", json=told, headers=headers) for told in refused]
    assert [answer.status_code for answer in answers] == [409] * 3
    anew = {"wordpress_id": "7311973119732", "email": EMAIL, "session_id": SESSIONS[0], "timestamp": now()}
    user = call(mesh, "POST", "users/register", anew)["user_id"]
    assert user not in erased
    until(lambda: rows(mesh, "ingestion", "SELECT person_id FROM persons").count((user,)) == 3)
    shown_ = call(mesh, "GET", f"users/{user}")["user"]
    assert {link["kind"] for link in shown_["links"]} == {"email", "wordpress"}
    call(mesh, "POST", "events/track", event("ada-back", event_type="lead_capture", email=EMAIL))
    mesh.drained()
    assert rows(mesh, "ingestion", "SELECT count(*) FROM events WHERE id = 'ada-back' AND email_hash IS NOT NULL") == [(1,)]


def test_the_receipt_and_the_audit_log_prove_it_and_a_change_is_found(mesh: Mesh, erased: list[str]) -> None:
    receipt = again(mesh)["receipt"]
    assert "erase purchases" in receipt["document"]
    assert not any(name in receipt["document"] for name in [*NAMES, *erased, WORDPRESS])
    assert mesh.pmp("audit", "verify").stdout == "2 entries, 0 faults\n"
    with closing(sqlite3.connect(Path(mesh.data) / "gdpr.db", timeout=30)) as database, database:
        database.execute("DELETE FROM audit_log WHERE number = 2")
    refused = mesh.pmp("audit", "verify", check=False)
    assert refused.returncode == 1
    assert "is missing" in refused.stdout


def test_only_the_shops_server_and_an_administrator_erase(mesh: Mesh) -> None:
    for scope in ("track", "read"):
        answer = mesh.client.delete(f"{mesh.url}{API}/users/99/data", headers=mesh.credentials(scope, "99"))
        assert answer.status_code == 403
