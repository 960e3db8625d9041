"""Pure decisions: choices, identifiers in paths, the steps of a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pmp.gdpr.v1 import gdpr_pb2 as pb

from kit.errors import InvalidRequest, Violation
from kit.people.identifiers import identifier_of
from kit.people.privacy import PURPOSES

RUNNING: Final = "running"
"""State of a request that is not done."""

DONE: Final = "done"
"""State of a request, or of a step, that is done."""

WAITING: Final = "waiting"
"""State of a step that is not done."""

ERASURE: Final = "erasure"
"""A request to erase a person."""

EXPORT: Final = "export"
"""A request to export a person's data."""

LINK_LASTS: Final = timedelta(minutes=15)
"""How long a link to an archive is valid."""

HOLD: Final = timedelta(minutes=1)
"""How long a fetch holds its link without renewing it."""

OVERDUE: Final = timedelta(minutes=10)
"""How long a step may be tried before an operator has to look at it."""

DUE: Final = timedelta(days=30)
"""The legal deadline of a request: one month."""

SUPPRESS: Final = "suppress"
IDENTIFIERS: Final = "names"
ERASE: Final = "erase"
PURGE: Final = "purge"
REWRITE: Final = "rewrite"
CALL: Final = "call"
DESTINATIONS: Final = "destinations"
"""Also the name of the service that asks them."""
KEYS: Final = "keys"

_LONGEST_WAIT: Final = timedelta(minutes=1)
_VISITOR_KINDS: Final = ("session:", "anonymous:")
_SOURCE: Final = "api"


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice about one purpose."""

    purpose: str
    granted: bool
    decided_at: datetime
    source: str
    policy_version: str


def erasure_steps(holders: Iterable[str], systems: Iterable[str] = ()) -> list[str]:
    """Returns the steps of an erasure, in this order.

    Every holder suppresses the identifiers (suppress); all identifiers are known (names); every holder erases what it had read by then
    and what arrived since (erase); what it published and received is trimmed from the log (purge) and from the log's file (rewrite);
    every other system is called (call), and every destination deletes the person (destinations). Destroying the keys of all identifiers
    (keys) erases copies out of reach, as in backups.
    """
    each = sorted(holders)
    by_holder = [f"{what} {holder}" for what in (ERASE, PURGE) for holder in each]
    outside = [*(f"{CALL} {system}" for system in sorted(systems)), *([DESTINATIONS] if DESTINATIONS in each else [])]
    return [SUPPRESS, IDENTIFIERS, *by_holder, REWRITE, *outside, KEYS]


def person_to_erase(identifiers: Iterable[str], emails: Iterable[str]) -> dict[str, list[str]]:
    """Returns a person for the call to another system, by the identifiers that it may know."""
    values: dict[str, list[str]] = {each: [] for each in ("wordpress", "user", "session", "anonymous")}
    for identifier in sorted(identifiers):
        kind, _, value = identifier.partition(":")
        if kind in values:
            values[kind].append(value)
    return {
        "wordpress_user_ids": values["wordpress"],
        "user_ids": values["user"],
        "session_ids": values["session"],
        "anonymous_ids": values["anonymous"],
        "emails": sorted(emails),
    }


def pause(failures: int) -> timedelta:
    """Returns the delay before a failed step is retried: doubled each time, a minute at most."""
    return min(_LONGEST_WAIT, timedelta(milliseconds=250) * 2 ** min(failures, 10))


def identifier_in_path(id_: str) -> str:
    """Returns the identifier for an id in a path: a session or a visitor with its kind, else a user.

    Raises:
        InvalidRequest: it identifies nobody.
    """
    kind, _, value = id_.partition(":")
    values = {f"{kind}:": value}
    identifier = identifier_of(
        user_id="" if id_.startswith(_VISITOR_KINDS) else id_,
        session_id=values.get("session:", ""),
        anonymous_id=values.get("anonymous:", ""),
    )
    if not identifier:
        raise InvalidRequest([Violation("id", "id stands for nobody: it is what programs write where an id is missing")])
    return identifier


def choices(consent: pb.Consent, now: datetime) -> list[Choice]:
    """Returns the choices that a client reports.

    A choice from the future would override all that the person chooses until then: it counts as made now.
    """
    decided_at = min(consent.timestamp.ToDatetime(UTC), now) if consent.HasField("timestamp") else now
    source = consent.source or _SOURCE
    return [
        Choice(purpose, getattr(consent, purpose), decided_at, source, consent.policy_version)
        for purpose in PURPOSES
        if consent.HasField(purpose)
    ]
