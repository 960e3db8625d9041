"""How an event may be kept: pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pmp.ingestion.v1 import event_pb2 as pb

from kit.people.privacy import Choice
from services.ingestion.consent import Policy, Treatment, anonymous, identifiers, is_anonymous

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PERSONAL = pb.ReceivedEvent(
    event=pb.Event(id="e1", event_type="page_view", user_id="0042", session_id="s1", ip_address="203.0.113.0", user_agent="Firefox"),
    sealed_email=b"sealed",
    email_hash=b"\xab",
    content_hash=b"hash",
    address="203.0.113.0",
)


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (Choice(granted=True, decided_at=NOW), Treatment.STORE),
        (Choice(granted=False, decided_at=NOW), Treatment.DROP),
        (None, Treatment.ANONYMOUS),
    ],
)
def test_a_choice_and_the_shops_policy_decide(choice: Choice | None, kept: Treatment) -> None:
    assert Policy.of("drop", "anonymous").treatment(choice) is kept


def test_the_names_of_an_event_come_strongest_first() -> None:
    assert identifiers(PERSONAL) == ("wordpress:42", "email:ab", "session:s1")
    assert identifiers(pb.ReceivedEvent(event=pb.Event(session_id="s1"))) == ("session:s1",)
    assert identifiers(pb.ReceivedEvent()) == ()


@pytest.mark.parametrize("field", ["user_id", "session_id", "ip_address", "user_agent"])
def test_one_field_that_identifies_a_person_is_enough(field: str) -> None:
    assert not is_anonymous(pb.ReceivedEvent(event=pb.Event(**{field: "x"})))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("tag", ["ga_client_id", "ga_session_id", "fbp", "fbc"])
def test_an_id_that_another_system_gave_the_browser_identifies_it(tag: str) -> None:
    received = pb.ReceivedEvent(event=pb.Event(id="e1", event_type="page_view"))
    received.event.metadata.update({"value": 49})
    assert is_anonymous(received)
    received.event.metadata.update({tag: "1.2"})
    assert not is_anonymous(received)


def test_an_event_made_anonymous_is_anonymous_and_still_known_by_its_id_and_content() -> None:
    before = PERSONAL.SerializeToString(deterministic=True)
    kept, found = anonymous(PERSONAL, pb.Enrichment(device="mobile", visitor="0042", session="s1"))
    assert is_anonymous(kept)
    assert identifiers(kept) == ()
    assert kept == pb.ReceivedEvent(event=pb.Event(id="e1", event_type="page_view"), content_hash=b"hash")
    assert found == pb.Enrichment(device="mobile")
    assert PERSONAL.SerializeToString(deterministic=True) == before
