"""Whose choices are told, and which: decisions without a database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from pmp.gdpr.v1 import gdpr_pb2 as pb

from kit.errors import InvalidRequest, Violation
from kit.persons import subject_of
from kit.privacy import PURPOSES

RUNNING: Final = "running"
"""State of a request that is not done."""

DONE: Final = "done"
"""State of a request, or of a step, that is."""

WAITING: Final = "waiting"
"""State of a step that is not done."""

ERASURE: Final = "erasure"
"""A request to forget a person."""

EXPORT: Final = "export"
"""A request to see what is held of a person."""

LINK_LASTS: Final = timedelta(minutes=15)
"""How long a link to an archive is valid."""

HOLD: Final = timedelta(minutes=1)
"""How long a fetch holds its link without a word."""

OVERDUE: Final = timedelta(minutes=10)
"""How long a step may be tried before somebody is to look at it."""

DUE: Final = timedelta(days=30)
"""How long the law gives for a request: one month."""

SUPPRESS: Final = "suppress"
NAMES: Final = "names"
ERASE: Final = "erase"
PURGE: Final = "purge"
REWRITE: Final = "rewrite"
CALL: Final = "call"
KEYS: Final = "keys"

_LONGEST_WAIT: Final = timedelta(minutes=1)
_VISITS: Final = ("session:", "anonymous:")
_SOURCE: Final = "api"


Place: TypeAlias = tuple[str, int]
"""A topic and one of its partitions."""


@dataclass(frozen=True, slots=True)
class Told:
    """A choice about one purpose as it was told."""

    purpose: str
    granted: bool
    decided_at: datetime
    source: str
    policy_version: str


def erasure_steps(holders: Iterable[str], systems: Iterable[str] = ()) -> list[str]:
    """What an erasure takes, in this order.

    Every holder obeys (suppress), all names are known (names), every holder has erased what it had read by then and what
    came meanwhile (erase), what it published and received is out of the log (purge), and out of the log's file (rewrite), and
    every other system was told (call). With the keys of all names (keys) go the copies that nobody can look for, as in backups.
    """
    each = sorted(holders)
    by_holder = [f"{what} {holder}" for what in (ERASE, PURGE) for holder in each]
    return [SUPPRESS, NAMES, *by_holder, REWRITE, *(f"{CALL} {system}" for system in sorted(systems)), KEYS]


def whom(names: Iterable[str], emails: Iterable[str]) -> dict[str, list[str]]:
    """Whom another system is to forget, by the names that it may know."""
    told: dict[str, list[str]] = {each: [] for each in ("wordpress", "user", "session", "anonymous")}
    for name in sorted(names):
        kind, _, value = name.partition(":")
        if kind in told:
            told[kind].append(value)
    return {
        "wordpress_user_ids": told["wordpress"],
        "user_ids": told["user"],
        "session_ids": told["session"],
        "anonymous_ids": told["anonymous"],
        "emails": sorted(emails),
    }


def pause(failures: int) -> timedelta:
    """How long a step that failed waits: twice as long each time, a minute at most."""
    return min(_LONGEST_WAIT, timedelta(milliseconds=250) * 2 ** min(failures, 10))


def reached(read: Mapping[Place, str], places: Mapping[Place, str]) -> bool:
    """True when a reader has come at least as far as places in the log, of those topics that it reads."""
    topics = {topic for topic, _ in read}
    return all(_number(read.get(place, "0-0")) >= _number(position) for place, position in places.items() if place[0] in topics)


def _number(position: str) -> tuple[int, int]:
    first, _, second = position.partition("-")
    return int(first), int(second or 0)


def subject_named(id_: str) -> str:
    """The subject of an id in a path: a visit's or a visitor's under its kind, else a user's.

    Raises:
        InvalidRequest: it names nobody.
    """
    kind, _, name = id_.partition(":")
    visit = {f"{kind}:": name}
    subject = subject_of(
        user_id="" if id_.startswith(_VISITS) else id_, session_id=visit.get("session:", ""), anonymous_id=visit.get("anonymous:", "")
    )
    if not subject:
        raise InvalidRequest([Violation("id", "id stands for nobody: it is what programs write where an id is missing")])
    return subject


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
