"""A person with data in every service of a mesh."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from threading import Event, Thread
from typing import Any

from tests.e2e.mesh import Mesh

_API = "/api/v1"
_BATCH = 500


@dataclass(frozen=True)
class Person:
    """A person with several addresses and sessions; each address is a user, and the users are merged."""

    id: str
    """Prefix of the ids of events and orders."""
    wordpress: str
    last_name: str
    street: str
    emails: Sequence[str]
    sessions: Sequence[str]

    @property
    def personal_values(self) -> list[str]:
        """The values that identify the person, except ids assigned by the mesh."""
        return [self.wordpress, self.last_name, self.street, *self.emails, *self.sessions]


def call(mesh: Mesh, method: str, path: str, body: Any = None, *, scope: str = "site") -> Any:
    """Calls the API; asserts that it succeeds."""
    answer = mesh.client.request(method, f"{mesh.url}{_API}/{path}", json=body, headers=mesh.credentials(scope))
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


def now() -> str:
    """The current time in the format of clients."""
    return datetime.now(UTC).isoformat()


def event(id_: str, **fields: Any) -> dict[str, Any]:
    """A page view with the current time."""
    return {"id": id_, "event_type": "page_view", "timestamp": now(), **fields}


def order(id_: str, **fields: Any) -> dict[str, Any]:
    """A paid order."""
    line = {"product_id": "c1", "product_name": "Course", "product_type": "course", "amount": 10}
    paid = {"timestamp": now(), "amount": 10, "currency": "USD", "payment_status": "completed", "lines": [line]}
    return {"id": f"order-{id_}-completed", "order_id": id_, **paid, **fields}


def known(mesh: Mesh, person: Person, *, events: int, orders: int) -> list[str]:
    """Reports a person's events and one more with an e-mail address, orders, merged users, a touchpoint, a conversion and a choice.

    Answers the users.
    """
    first, *others = person.emails
    registration = {"wordpress_id": person.wordpress, "email": first, "last_name": person.last_name, "session_id": person.sessions[0]}
    users = [call(mesh, "POST", "users/register", {**registration, "timestamp": now()})["user_id"]]
    for email, session in zip(others, person.sessions[1:], strict=True):
        users.append(call(mesh, "POST", "users/register", {"email": email, "session_id": session, "timestamp": now()})["user_id"])
        merge = {"merged_user_id": users[-1], "reason": f"{person.last_name} said so"}
        call(mesh, "POST", f"users/{users[0]}/merge", merge, scope="admin")
    views = [_viewed(person, number) for number in range(events)]
    for start in range(0, events, _BATCH):
        call(mesh, "POST", "events/batch", {"events": views[start : start + _BATCH]})
    call(mesh, "POST", "events/track", event(f"{person.id}-lead", event_type="lead_capture", email=first, session_id=person.sessions[0]))
    for number in range(orders):
        who = {"user_id": person.wordpress} if number % 2 else {"email": others[-1], "session_id": person.sessions[-1]}
        billed = {"last_name": person.last_name, "street": person.street}
        call(mesh, "POST", "purchases/track", order(f"{person.id}-{number}", billing_address=billed, **who))
    touchpoint = {"session_id": person.sessions[0], "touchpoint": "phone", "action": "call", "timestamp": now()}
    call(mesh, "POST", "journey/touchpoint", {"id": f"{person.id}-call", **touchpoint})
    goal = {"conversion_type": "lead", "email": first, "timestamp": now()}
    call(mesh, "POST", "conversions/track", {"id": f"{person.id}-goal", **goal})
    call(mesh, "PUT", f"users/session:{person.sessions[0]}/consent", {"analytics_tracking": True})
    return users


def _viewed(person: Person, number: int) -> dict[str, Any]:
    """Every second event has the user, the others only the session."""
    session = person.sessions[number % len(person.sessions)]
    fields = {"session_id": session, "user_agent": "Firefox", "page_url": f"https://shop.example/course?visit={session}"}
    return event(f"{person.id}-{number}", user_id=person.wordpress if number % 2 else "", metadata={"greeting": person.last_name}, **fields)


@contextmanager
def another_visitor(mesh: Mesh) -> Generator[list[str]]:
    """Another visitor is on the site meanwhile; returns the events that were sent."""
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


def asked(mesh: Mesh, request: str) -> dict[str, Any]:
    """The current state of a request."""
    return call(mesh, "GET", f"gdpr/requests/{request}")["request"]
