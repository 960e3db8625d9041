"""What is told of users: a registration, a change of a profile, an address and whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from google.protobuf.struct_pb2 import Struct

from kit.errors import Conflict
from kit.people.persons import subject_of
from kit.people.suppression import Suppressed
from kit.rules import check, wrong_struct
from services.identity import rules
from services.identity.graph import Graph
from services.identity.models import UserRow

REGISTRATION = "registration"
"""Evidence of what a registration says."""

UPDATE = "update"
"""Evidence of what a change of a profile says."""


@dataclass(frozen=True, slots=True)
class Address:
    """An e-mail address."""

    hash: bytes
    sealed: bytes | None
    """None when only the hash is known."""

    @property
    def subject(self) -> str:
        """The name under which its user is found."""
        return subject_of(email_hash=self.hash)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A mailing list that somebody chose, or left."""

    list: str
    subscribed: bool
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Profile:
    """Fields of a profile as told at a time; what is not told is left out."""

    at: datetime
    address: Address | None = None
    names: Mapping[str, bytes | None] = field(default_factory=dict[str, bytes | None])
    """`first_name`, `last_name`: sealed; None forgets one."""
    preferences: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """None takes one away."""
    subscriptions: Sequence[Subscription] = ()
    registration_date: datetime | None = None
    last_login: datetime | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """Who registers, in which visit, and what is told of the person."""

    wordpress_id: int
    visit: Sequence[str]
    """`session:` and `anonymous:` names."""
    campaign: Mapping[str, str]
    profile: Profile

    @property
    def wordpress_subject(self) -> str:
        """The name of the WordPress user; empty for none."""
        return f"wordpress:{self.wordpress_id}" if self.wordpress_id else ""

    @property
    def names(self) -> Sequence[str]:
        """All names it tells, and empty ones."""
        return [self.wordpress_subject, self.profile.address.subject if self.profile.address else "", *self.visit]


def unsuppressed(told: Registration, suppressed: Suppressed) -> Registration:
    """A registration as it may be taken in: without visits of an erased person.

    Raises:
        Conflict: it is an erased person's. Somebody comes back by registering anew, with another WordPress user: by the first
            registration told again, or a login, nobody does.
    """
    profile = told.profile
    at = min(profile.at, profile.registration_date or profile.at)
    email = profile.address.subject if profile.address else ""
    if suppressed.holds(told.wordpress_subject, at) or suppressed.precedes(email, at):
        raise Conflict("this person was erased; only a new registration is taken")
    return replace(told, visit=[name for name in told.visit if not suppressed.holds(name, at)])


async def register(graph: Graph, told: Registration) -> tuple[str, bool]:
    """Makes a user known or brings it up to date; answers it, and whether it is new.

    The WordPress id and the e-mail address of one registration are strong evidence for one person: users of their own
    become one, unless they are different WordPress users, or an administrator has separated them. Then the WordPress id
    decides, and the address moves to it.
    """
    profile = told.profile
    email = profile.address.subject if profile.address else ""
    await graph.know(told.names)
    user_id, by_email = graph.owner(told.wordpress_subject), graph.owner(email)
    if user_id and by_email:
        await _join(graph, await graph.person(user_id), await graph.person(by_email))
    elif by_email and await _may_be(graph, by_email, told.wordpress_id):
        user_id = by_email
    created = not user_id
    if created:
        user_id = graph.create(told.wordpress_subject or email, profile.at, REGISTRATION).id
    row = await graph.user(user_id)
    if told.wordpress_id:
        row.wordpress_id = told.wordpress_id
        graph.link(told.wordpress_subject, user_id, profile.at, REGISTRATION)
    await write(graph, row, profile, REGISTRATION)
    if row.registration_date is None:
        row.registration_date = profile.registration_date or profile.at
    for subject in told.visit:
        graph.link(subject, user_id, profile.at, REGISTRATION)
    if told.campaign:
        graph.campaign(f"user:{user_id}", profile.at, told.campaign)
    return user_id, created


async def write(graph: Graph, row: UserRow, profile: Profile, evidence: str) -> None:
    """Changes the fields of a user that the profile tells, where it is the later writer.

    Raises:
        Conflict: an update gives it an address that another has.
        InvalidRequest: its preferences would be too large.
    """
    if profile.address:
        await take_address(graph, row, profile.address, profile.at, evidence)
    for name, sealed in profile.names.items():
        _write(row, name, sealed, profile.at)
    if profile.registration_date:
        _write(row, "registration_date", profile.registration_date, profile.at)
    if profile.last_login and (row.last_login is None or profile.last_login > row.last_login):
        row.last_login = profile.last_login
    if profile.preferences:
        row.preferences, row.field_times = rules.written(row.preferences, row.field_times, profile.preferences, profile.at)
        whole = Struct()
        whole.update(row.preferences)
        check(wrong_struct("preferences", whole))
    for each in profile.subscriptions:
        graph.subscribe(row.id, each.list, each.changed_at, subscribed=each.subscribed)


async def take_address(graph: Graph, row: UserRow, address: Address, at: datetime, evidence: str) -> None:
    """An address is a user's. Whoever had it before has it no more, unless that is the same person, or had it told later.

    Raises:
        Conflict: an update gives it to a user while another has it.
    """
    await graph.know([address.subject])
    for other in await graph.users([user_id for user_id in graph.owners(address.subject) if user_id != row.id]):
        has_it = other.email_hash == address.hash
        if await graph.person(other.id) == await graph.person(row.id):
            if has_it:
                _hold(other, address, at)
                return
            continue
        if has_it and evidence == UPDATE:
            if rules.wins(row.field_times, "email", at):
                message = "email: another user has this address"
                raise Conflict(message)
            return
        if has_it and not rules.wins(other.field_times, "email", at):
            return
        graph.withdraw(address.subject, other.id)
        if has_it:
            other.email = other.email_hash = None
            other.field_times = {name: time for name, time in other.field_times.items() if name != "email"}
            await graph.identities.flush()  # the address is unique
    if rules.wins(row.field_times, "email", at):
        _hold(row, address, at)
    graph.link(address.subject, row.id, at, evidence)


def fill_in(row: UserRow, address: Address) -> None:
    """An address of which the hash alone was known."""
    if row.email is None and row.email_hash == address.hash:
        row.email = address.sealed


def _hold(row: UserRow, address: Address, at: datetime) -> None:
    if row.email_hash != address.hash:
        row.email, row.email_hash = address.sealed, address.hash
    fill_in(row, address)
    if rules.wins(row.field_times, "email", at):
        row.field_times = {**row.field_times, "email": rules.instant(at)}


def _write(row: UserRow, name: str, value: object, at: datetime) -> None:
    if rules.wins(row.field_times, name, at):
        setattr(row, name, value)
        row.field_times = {**row.field_times, name: rules.instant(at)}


async def _may_be(graph: Graph, user_id: str, wordpress_id: int) -> bool:
    """A user known by its address may be this WordPress user when its person is no other one."""
    known = await graph.wordpress_ids(await graph.person(user_id))
    return not wordpress_id or all(number in (None, wordpress_id) for number in known.values())


async def _join(graph: Graph, person: str, other: str) -> None:
    """Merges the person of an address into that of a WordPress user, where that may be."""
    if person == other:
        return
    ours, theirs = await graph.wordpress_ids(person), await graph.wordpress_ids(other)
    if any(theirs.values()) or rules.merge_refusal(ours, theirs):
        return
    before = await graph.identities.merge(other)
    if before is None or before.undone_at is None or before.user_id not in ours:
        await graph.join(person, other, REGISTRATION)
