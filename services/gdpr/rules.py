"""Whose choices are told, and which: decisions without a database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pmp.gdpr.v1 import gdpr_pb2 as pb

from kit.persons import subject_of
from kit.privacy import PURPOSES

_VISITS: Final = ("session:", "anonymous:")
_SOURCE: Final = "api"


@dataclass(frozen=True, slots=True)
class Told:
    """A choice about one purpose as it was told."""

    purpose: str
    granted: bool
    decided_at: datetime
    source: str
    policy_version: str


def subject_named(id_: str) -> str:
    """The subject of an id in a path: a visit's or a visitor's under its kind, else a user's."""
    return id_ if id_.startswith(_VISITS) else subject_of(user_id=id_)


def choices(consent: pb.Consent, now: datetime) -> list[Told]:
    """The choices that a client tells.

    One from the future would outdo all that the person chooses until then: it counts as made now.
    """
    decided_at = min(consent.timestamp.ToDatetime(UTC), now) if consent.HasField("timestamp") else now
    source = consent.source or _SOURCE
    return [
        Told(purpose, getattr(consent, purpose), decided_at, source, consent.policy_version)
        for purpose in PURPOSES
        if consent.HasField(purpose)
    ]
