"""Consent through the real gateway: withdrawn while the person is on the site, enforced within seconds, and accounted for."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from cli.layout import Processes
from tests.e2e.mesh import Mesh, running
from tests.servers import until

API = "/api/v1"
PAYLOAD = Path(__file__).parent.parent / "payloads" / "gdpr.UpdateConsent.json"
USER, SESSION = "42", "visit-42"
OBEYED_SECONDS = 5
RATE, PACK = 200, 10


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh"), processes=Processes.EACH) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def dropping_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("dropping"), environment={"PMP_SITE_CONSENT_DENIED": "drop"}) as mesh:
        yield mesh


def choose(mesh: Mesh, id_: str, *, scope: str = "site", **consent: Any) -> Any:
    return mesh.client.put(f"{mesh.url}{API}/users/{id_}/consent", json=consent, headers=mesh.credentials(scope, USER))


def shown(mesh: Mesh, id_: str) -> dict[str, Any]:
    answer = mesh.client.get(f"{mesh.url}{API}/users/{id_}/consent", headers=mesh.credentials("site", USER))
    assert answer.status_code == 200, answer.text
    return answer.json()


class Visitor(Thread):
    """One person, 200 events per second."""

    def __init__(self, mesh: Mesh, user: str = USER) -> None:
        super().__init__()
        self.user, self.session = user, f"visit-{user}"
        self._mesh = mesh
        self._left = Event()
        self.sent = 0

    def run(self) -> None:
        headers = self._mesh.credentials("site", self.user)
        due = time.monotonic()
        while not self._left.is_set():
            events = [self._event(self.sent + number) for number in range(PACK)]
            answer = self._mesh.client.post(f"{self._mesh.url}{API}/events/batch", json={"events": events}, headers=headers)
            assert answer.status_code == 200, answer.text
            self.sent += PACK
            due += PACK / RATE
            time.sleep(max(0.0, due - time.monotonic()))

    def leave(self) -> None:
        self._left.set()
        self.join(30)

    def _event(self, number: int) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        return {
            "id": f"{self.user}-{number}",
            "event_type": "page_view",
            "timestamp": now,
            "user_id": self.user,
            "session_id": self.session,
            "user_agent": "Firefox",
        }


@contextmanager
def visitor(mesh: Mesh) -> Generator[Visitor]:
    one = Visitor(mesh)
    one.start()
    try:
        yield one
    finally:
        one.leave()


def stored(mesh: Mesh) -> list[tuple[datetime, bool]]:
    """When each stored event was received, and whether its row identifies the person."""
    with closing(sqlite3.connect(f"file:{mesh.data}/ingestion.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT received_at, user_id, session_id, event_data, email_hash FROM events").fetchall()
    return [(datetime.fromisoformat(received).replace(tzinfo=UTC), _leads(*columns)) for received, *columns in rows]


def touched(mesh: Mesh, user: str = USER, session: str = SESSION) -> list[datetime]:
    """Times of the touchpoints in a journey."""
    with closing(sqlite3.connect(f"file:{mesh.data}/journeys.db?mode=ro", uri=True)) as database:
        identifiers = (user, session, f"%:{user}", f"%{session}")
        query = "SELECT timestamp FROM user_journeys WHERE user_id = ? OR session_id = ? OR subject LIKE ? OR subject LIKE ?"
        return [datetime.fromisoformat(at).replace(tzinfo=UTC) for (at,) in database.execute(query, identifiers)]


def _leads(user_id: str | None, session_id: str | None, event_data: str, email_hash: bytes | None) -> bool:
    return bool(user_id or session_id or email_hash or USER in event_data or "user_agent" in json.loads(event_data))


def withdrawn(mesh: Mesh) -> tuple[int, datetime]:
    """A person withdraws consent while on the site and stays a while; returns the number of events, and when it took effect."""
    assert choose(mesh, USER, analytics_tracking=True, source="banner").status_code == 200
    with visitor(mesh) as one:
        time.sleep(3)
        answer = choose(mesh, USER, analytics_tracking=False, source="form")
        answered = datetime.now(UTC)
        assert answer.status_code == 200, answer.text
        time.sleep(OBEYED_SECONDS + 3)
    return one.sent, answered + timedelta(seconds=OBEYED_SECONDS)


def test_consent_withdrawn_under_load_is_obeyed_within_seconds(mesh: Mesh) -> None:
    sent, obeyed_at = withdrawn(mesh)
    assert sent >= RATE * 8
    books = mesh.drained()
    rows = stored(mesh)
    assert (books["stored"], books["suppressed"], books["balanced"]) == (sent, 0, True)
    assert len(rows) == sent
    assert [leads for received, leads in rows if received < obeyed_at].count(True) >= RATE
    late = [leads for received, leads in rows if received >= obeyed_at]
    assert len(late) >= RATE
    assert not any(late)
    assert touched(mesh)
    assert max(touched(mesh)) < obeyed_at


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_was_answered_is_obeyed_though_gdpr_is_gone_at_once(mesh: Mesh, number: signal.Signals) -> None:
    denier, erased = (Visitor(mesh, f"{word}-{number.value}") for word in ("denier", "erased"))
    with mesh.unattended():
        for one in (denier, erased):
            one.start()
        until(lambda: all(leading(mesh, one) and touched(mesh, one.user, one.session) for one in (denier, erased)))
        assert choose(mesh, denier.user, analytics_tracking=False).status_code == 200
        answer = mesh.client.delete(f"{mesh.url}{API}/users/{erased.user}/data", headers=mesh.credentials("site", USER))
        os.kill(mesh.pid("gdpr"), number)
        obeyed_at = datetime.now(UTC) + timedelta(seconds=OBEYED_SECONDS)
        assert answer.status_code == 200, answer.text
        time.sleep(OBEYED_SECONDS + 2)
        for one in (denier, erased):
            one.leave()
        books = mesh.drained()
        assert books["balanced"]
        assert books["suppressed"] > 0
        for one in (denier, erased):
            received = leading(mesh, one)
            assert received
            assert max(received) < obeyed_at
            assert max(touched(mesh, one.user, one.session)) < obeyed_at
        if number == signal.SIGSTOP:
            os.kill(mesh.pid("gdpr"), signal.SIGCONT)
    until(lambda: choose(mesh, denier.user, analytics_tracking=False).status_code == 200)


def leading(mesh: Mesh, one: Visitor) -> list[datetime]:
    """When the events of a visitor were received whose rows identify the visitor."""
    with closing(sqlite3.connect(f"file:{mesh.data}/ingestion.db?mode=ro", uri=True)) as database:
        query = "SELECT received_at FROM events WHERE user_id = ? OR session_id = ? OR event_data LIKE ?"
        rows = database.execute(query, (one.user, one.session, f"%{one.user}%")).fetchall()
    return [datetime.fromisoformat(received).replace(tzinfo=UTC) for (received,) in rows]


def test_the_history_of_what_was_chosen_is_shown(mesh: Mesh) -> None:
    state = shown(mesh, USER)
    assert state["consent"]["analytics_tracking"]["state"] == "denied"
    assert [(entry["state"], entry["source"]) for entry in state["history"]] == [("denied", "form"), ("granted", "banner")]


def test_a_shop_that_drops_accounts_for_what_it_does_not_store(dropping_mesh: Mesh) -> None:
    sent, obeyed_at = withdrawn(dropping_mesh)
    books = dropping_mesh.drained()
    rows = stored(dropping_mesh)
    assert books["balanced"]
    assert (books["received"], books["stored"] + books["suppressed"]) == (sent, sent)
    assert books["suppressed"] >= RATE
    assert len(rows) == books["stored"]
    assert max(received for received, _ in rows) < obeyed_at
    assert all(leads for _, leads in rows)


def test_a_visit_that_is_not_known_yet_may_choose(mesh: Mesh) -> None:
    answer = choose(mesh, "session:new-visit", **json.loads(PAYLOAD.read_text()))
    assert answer.status_code == 200, answer.text
    assert answer.json()["user_id"] == "session:new-visit"
    assert shown(mesh, "session%3Anew-visit")["consent"] == answer.json()["consent"]


def test_what_a_visit_chose_is_the_persons_once_it_is_known(mesh: Mesh) -> None:
    headers = mesh.credentials("site", USER)
    assert choose(mesh, "session:first-visit", analytics_tracking=False, source="banner").status_code == 200
    registration = {"wordpress_id": "77", "session_id": "first-visit"}
    known = mesh.client.post(f"{mesh.url}{API}/users/register", json=registration, headers=headers).json()["user_id"]
    until(lambda: shown(mesh, "77")["consent"]["analytics_tracking"]["state"] == "denied")
    assert shown(mesh, "77")["user_id"] == known
    numbers = count()

    def later_visit_is_anonymous() -> bool:
        id_ = f"later-{next(numbers)}"
        event = {"id": id_, "event_type": "login", "timestamp": datetime.now(UTC).isoformat(), "user_id": "77", "session_id": "later-visit"}
        assert mesh.client.post(f"{mesh.url}{API}/events/track", json=event, headers=headers).status_code == 200
        mesh.drained()
        with closing(sqlite3.connect(f"file:{mesh.data}/ingestion.db?mode=ro", uri=True)) as database:
            return database.execute("SELECT user_id, session_id FROM events WHERE id = ?", (id_,)).fetchall() == [(None, None)]

    until(later_visit_is_anonymous, OBEYED_SECONDS)


def test_what_is_no_choice_or_nobodys_to_make_is_refused(mesh: Mesh) -> None:
    refused = {
        "nothing chosen": (choose(mesh, USER), 400),
        "an unknown source": (choose(mesh, USER, analytics_tracking=True, source="guess"), 400),
        "no user": (choose(mesh, "email:ab", analytics_tracking=True), 400),
        "a browser": (choose(mesh, USER, scope="track", analytics_tracking=True), 403),
        "a report": (choose(mesh, USER, scope="read", analytics_tracking=True), 403),
    }
    assert {name: answer.status_code for name, (answer, _) in refused.items()} == {name: status for name, (_, status) in refused.items()}
    assert all(set(answer.json()) == {"code", "message", "details"} for answer, _ in refused.values())
    assert len(shown(mesh, USER)["history"]) == 2
