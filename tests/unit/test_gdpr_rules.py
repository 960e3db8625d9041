"""Identifiers in paths and the times of choices: pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pmp.gdpr.v1 import gdpr_pb2 as pb

from services.gdpr.rules import choices, identifier_in_path

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("id_", "identifier"),
    [
        ("0042", "wordpress:42"),
        ("u-1", "user:u-1"),
        ("session:42", "session:42"),
        ("anonymous:a", "anonymous:a"),
        ("auth0:7", "user:auth0:7"),
    ],
)
def test_an_id_is_a_users_unless_it_has_the_kind_of_a_session_or_visitor(id_: str, identifier: str) -> None:
    assert identifier_in_path(id_) == identifier


def test_what_is_not_given_is_no_choice() -> None:
    [only] = choices(pb.Consent(marketing_emails=False), NOW)
    assert (only.purpose, only.granted, only.decided_at, only.source, only.policy_version) == ("marketing_emails", False, NOW, "api", "")


@pytest.mark.parametrize(("seconds", "decided"), [(-60, -60), (0, 0), (60, 0)])
def test_no_choice_is_made_after_now(seconds: int, decided: int) -> None:
    consent = pb.Consent(analytics_tracking=True)
    consent.timestamp.FromDatetime(NOW + timedelta(seconds=seconds))
    assert [choice.decided_at for choice in choices(consent, NOW)] == [NOW + timedelta(seconds=decided)]
