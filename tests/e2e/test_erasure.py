"""A person is erased while the shop is running: nothing that identifies her remains, in spite of crashes, and nothing brings her back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.layout import Processes
from tests.e2e.mesh import Mesh, running
from tests.e2e.person import Person, another_visitor, asked, call, event, known, now, order
from tests.receiver import SECRET, Receiver, receiving
from tests.servers import until

API = "/api/v1"
ADA = Person(
    id="ada",
    wordpress="7311973119731",
    last_name="Lovelace",
    street="12 Dorset Street",
    emails=["ada.lovelace@analytical.example", "countess@analytical.example"],
    sessions=["visit-of-ada-1815", "visit-of-ada-1852"],
)
WORDPRESS, EMAIL, SESSIONS = ADA.wordpress, ADA.emails[0], ADA.sessions
EVENTS, ORDERS = 300, 4
DONE_SECONDS = 60


@pytest.fixture(scope="module")
def crm() -> Iterator[Receiver]:
    """Another system that has her data."""
    with receiving() as crm:
        yield crm


@pytest.fixture(scope="module")
def newsletter() -> Iterator[Receiver]:
    """A destination that deletes persons."""
    with receiving() as newsletter:
        yield newsletter


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, crm: Receiver, newsletter: Receiver) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("mesh")
    destinations = folder.with_suffix(".toml")
    destinations.write_text(
        "".join(
            f'[{name}]\nkind = "webhook"\nurl = "{newsletter.url}"\nsecrets = ["NEWSLETTER_SECRET"]\nconsent = "none"\n'
            f"allow_private_networks = true\ntypes = {json.dumps(types)}\n"
            for name, types in {"newsletter": ["person.erased", "order.*"], "feed": ["event.never_happens"]}.items()
        )
    )
    environment = {
        "PMP_SITE_ERASURE_CALLS": json.dumps({"crm": crm.url}),
        "PMP_SITE_ERASURE_SECRET": SECRET,
        "PMP_DESTINATIONS": str(destinations),
        "NEWSLETTER_SECRET": SECRET,
    }
    with running(folder, environment=environment, processes=Processes.EACH) as mesh:
        yield mesh


def rows(mesh: Mesh, service: str, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{mesh.data}/{service}.db?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def followed(mesh: Mesh) -> bool:
    (journeys,) = rows(mesh, "journeys", "SELECT (SELECT count(*) FROM user_journeys), (SELECT count(*) FROM journey_orders)")
    (orders,) = rows(mesh, "identity", "SELECT count(*) FROM user_orders")
    return journeys[0] >= EVENTS + ORDERS and journeys[1] == ORDERS and orders[0] == ORDERS and counted(mesh) == (EVENTS + 1, ORDERS)


def counted(mesh: Mesh) -> tuple[int, int]:
    """The events and orders in the totals of analytics."""
    ((events,),) = rows(mesh, "analytics", "SELECT sum(events) FROM analytics_traffic WHERE dimension = 'site' AND day > 0")
    ((orders,),) = rows(mesh, "analytics", "SELECT sum(orders) FROM analytics_revenue WHERE dimension = 'site' AND day > 0")
    return events, orders


def places(mesh: Mesh, values: list[str]) -> list[str]:
    """Files of the mesh in which one of these is found: databases with their write-ahead logs, Redis's file, logs."""
    found: list[str] = []
    for path in sorted(Path(mesh.data).rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found += [f"{path.relative_to(mesh.data)}: {value}" for value in values if value.encode() in content]
    return found


@pytest.fixture(scope="module")
def erased(mesh: Mesh) -> list[str]:
    """The users of a person who was erased while another visitor was on the site, and while gdpr was killed."""
    users = known(mesh, ADA, events=EVENTS, orders=ORDERS)
    until(lambda: followed(mesh), 60)
    with another_visitor(mesh) as sent:
        would_go = call(mesh, "DELETE", f"users/{WORDPRESS}/data?dry_run=true")["would_go"]
        assert {holder["service"] for holder in would_go if holder["tables"]} == {
            "analytics",
            "destinations",
            "gdpr",
            "identity",
            "ingestion",
            "journeys",
            "purchases",
        }
        request = call(mesh, "DELETE", f"users/{WORDPRESS}/data")["request"]
        mesh.kill("gdpr")
        until(lambda: again(mesh)["id"] == request["id"])
        until(lambda: asked(mesh, request["id"])["state"] == "done", DONE_SECONDS)
    mesh.drained()
    assert rows(mesh, "ingestion", "SELECT count(*) FROM events WHERE user_id = '99'") == [(len(sent),)]
    steps = asked(mesh, request["id"])["steps"]
    assert {step["state"] for step in steps} == {"done"}
    events = sum(
        int(table["rows"]) for step in steps if step["name"] == "erase ingestion" for table in step["tables"] if table["table"] == "events"
    )
    assert events == EVENTS + 1
    return users


def again(mesh: Mesh) -> dict[str, Any]:
    """Requests the same by another of her identifiers, from a service that may be restarting."""
    answer = mesh.client.delete(f"{mesh.url}{API}/users/session:{SESSIONS[0]}/data", headers=mesh.credentials("admin"))
    return answer.json()["request"] if answer.status_code == 200 else {"id": ""}


def test_nothing_is_left_that_leads_to_an_erased_person(mesh: Mesh, erased: list[str]) -> None:
    assert places(mesh, [*ADA.personal_values, *erased]) == []


def test_another_system_was_called_with_the_identifiers_it_may_know(mesh: Mesh, erased: list[str], crm: Receiver) -> None:
    data = crm.received[0]["data"]
    assert set(SESSIONS) <= set(data["session_ids"])
    assert (data["wordpress_user_ids"], data["emails"]) == ([WORDPRESS], [*ADA.emails])
    assert set(erased) <= set(data["user_ids"])
    request = call(mesh, "POST", "users/erase", {"email": ADA.emails[1]})["request"]
    assert (crm.ids[0], request["state"]) == (f"{request['id']}-crm", "done"), "an address in a body names her as well"


def test_destinations_delete_the_person_and_the_receipt_says_what_each_answered(
    mesh: Mesh, erased: list[str], newsletter: Receiver
) -> None:
    (webhook,) = [each for each in newsletter.received if each["type"] == "person.erased"]
    assert webhook["data"]["emails"] == [*ADA.emails]
    assert {f"user:{each}" for each in erased} | {f"session:{each}" for each in SESSIONS} <= set(webhook["data"]["identifiers"])
    assert rows(mesh, "destinations", "SELECT count(*) FROM delivery_messages") == [(0,)]
    assert rows(mesh, "destinations", "SELECT DISTINCT state, substr(subject, 1, 7) FROM deliveries") == [("delivered", "erased:")]
    request = call(mesh, "POST", "users/erase", {"email": ADA.emails[1]})["request"]
    steps = json.loads(request["receipt"]["document"])["steps"]
    assert next(step["answers"] for step in steps if step["name"] == "destinations") == {
        "feed": "offers no way to delete a person; nothing more is sent",
        "newsletter": "deleted (HTTP 200)",
    }


def test_figures_stay(mesh: Mesh, erased: list[str]) -> None:
    assert erased
    assert rows(mesh, "ingestion", "SELECT count(*) FROM events WHERE id LIKE 'ada-%'") == [(EVENTS + 1,)]
    assert rows(mesh, "purchases", "SELECT count(*), count(DISTINCT subject) FROM purchases") == [(ORDERS, 1)]
    of_others = rows(mesh, "ingestion", "SELECT count(*) FROM events WHERE id NOT LIKE 'ada-%'")[0][0]
    until(lambda: counted(mesh) == (EVENTS + 1 + of_others, ORDERS))
    assert mesh.books()["balanced"]


def test_what_comes_late_or_again_is_suppressed_and_accounted_for(mesh: Mesh, erased: list[str]) -> None:
    before = mesh.drained()
    call(mesh, "POST", "events/track", event("ada-late", user_id=WORDPRESS))
    call(mesh, "POST", "events/track", event("ada-later", session_id=SESSIONS[1]))
    call(mesh, "POST", "events/track", event("ada-lead-late", event_type="lead_capture", email=EMAIL))
    books = mesh.drained()
    assert (books["suppressed"] - before["suppressed"], books["stored"] - before["stored"], books["balanced"]) == (3, 0, True)
    call(mesh, "POST", "purchases/track", order("ada-1", user_id=WORDPRESS))
    call(mesh, "POST", "purchases/track", order("ada-77", user_id=WORDPRESS, email=EMAIL))
    assert rows(
        mesh, "purchases", "SELECT count(*) FROM purchases WHERE user_id IS NOT NULL OR email_hash IS NOT NULL OR billing_data IS NOT NULL"
    ) == [(0,)]
    for service in ("analytics", "identity", "journeys"):
        mesh.pmp("replay", service)
    until(lambda: rows(mesh, "journeys", "SELECT count(*) FROM journey_orders") == [(ORDERS + 1,)])
    until(lambda: rows(mesh, "analytics", "SELECT count(*) FROM analytics_orders") == [(ORDERS + 1,)])
    assert (int(WORDPRESS),) not in rows(mesh, "identity", "SELECT wordpress_id FROM users")
    assert erased


def test_only_a_new_registration_brings_a_person_back_without_old_data(mesh: Mesh, erased: list[str]) -> None:
    headers = mesh.credentials("site")
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    refused = [
        {"wordpress_id": WORDPRESS, "email": EMAIL, "timestamp": now()},
        {"wordpress_id": "7311973119732", "email": EMAIL, "timestamp": before},
        {"wordpress_id": "7311973119732", "email": EMAIL, "timestamp": now(), "registration_date": before},
    ]
    answers = [mesh.client.post(f"{mesh.url}{API}/users/register", json=registration, headers=headers) for registration in refused]
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
    assert not any(value in receipt["document"] for value in [*ADA.personal_values, *erased])
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
