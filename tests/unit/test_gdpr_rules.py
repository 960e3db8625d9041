"""Whose choices are told, and which: pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pmp.gdpr.v1 import gdpr_pb2 as pb

from services.gdpr.rules import choices, subject_named

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("id_", "subject"),
    [
        ("0042", "wordpress:42"),
        ("u-1", "user:u-1"),
        ("session:42", "session:42"),
        ("anonymous:a", "anonymous:a"),
        ("auth0:7", "user:auth0:7"),
    ],
)
def test_an_id_names_a_user_unless_it_says_that_it_is_a_visits(id_: str, subject: str) -> None:
    assert subject_named(id_) == subject


def test_what_is_not_given_is_no_choice() -> None:
    [only] = choices(pb.Consent(marketing_emails=False), NOW)
    assert (only.purpose, only.granted, only.decided_at, only.source, only.policy_version) == ("marketing_emails", False, NOW, "api", "")


@pytest.mark.parametrize(("seconds", "decided"), [(-60, -60), (0, 0), (60, 0)])
def test_no_choice_is_made_after_now(seconds: int, decided: int) -> None:
    consent = pb.Consent(analytics_tracking=True)
    consent.timestamp.FromDatetime(NOW + timedelta(seconds=seconds))
    assert [told.decided_at for told in choices(consent, NOW)] == [NOW + timedelta(seconds=decided)]
