"""Writes profiles: fields of users, their addresses and which user has one."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.struct_pb2 import Struct

from kit.errors import Conflict
from kit.rules import check, wrong_struct
from services.identity import fields
from services.identity.addresses import AddressClaim, OtherUser, address_claim
from services.identity.links import Evidence
from services.identity.models import UserRow
from services.identity.profiles import Address, Profile
from services.identity.unit_of_work import Graph


async def write_profile(graph: Graph, row: UserRow, profile: Profile, evidence: Evidence) -> None:
    """Changes the fields of a user that a profile states, where it is the later writer.

    Raises:
        Conflict: an update states an address that another person has.
        InvalidRequest: the user's preferences would be too large.
    """
    if profile.address:
        await assign_address(graph, row, profile.address, profile.at, evidence)
    for name, sealed in profile.names.items():
        _write_field(row, name, sealed, profile.at)
    if profile.registration_date:
        _write_field(row, "registration_date", profile.registration_date, profile.at)
    if profile.last_login:
        record_login(row, profile.last_login)
    if profile.preferences:
        row.preferences, row.field_times = fields.apply_preferences(row.preferences, row.field_times, profile.preferences, profile.at)
        whole = Struct()
        whole.update(row.preferences)
        check(wrong_struct("preferences", whole))
    for each in profile.subscriptions:
        graph.facts.add_subscription(row.id, each)


async def assign_address(graph: Graph, row: UserRow, address: Address, at: datetime, evidence: Evidence) -> None:
    """Gives a user an address, taking it from another person that has it, unless that one stated it later.

    Raises:
        Conflict: an update states an address that another person has.
    """
    await graph.load([address.identifier])
    others = [user_id for user_id in graph.links.users_seen_with(address.identifier) if user_id != row.id]
    for other in await graph.users.load(others):
        same_person = await graph.person_of(other.id) == await graph.person_of(row.id)
        claim = address_claim(row.field_times, OtherUser(same_person, other.email_hash == address.hash, other.field_times), at, evidence)
        match claim:
            case AddressClaim.HELD_BY_SAME_PERSON:
                _set_address(other, address, at)
                return
            case AddressClaim.CONFLICTS:
                message = "email: another user has this address"
                raise Conflict(message)
            case AddressClaim.OUTDATED:
                return
            case AddressClaim.MOVES:
                await _take_address(graph, other, address)
            case AddressClaim.SEEN_BY_SAME_PERSON:
                pass
    if fields.wins(row.field_times, "email", at):
        _set_address(row, address, at)
    graph.link(address.identifier, row.id, at, evidence)


def complete_address(row: UserRow, address: Address) -> None:
    """Adds the sealed address where only its hash was known."""
    if row.email is None and row.email_hash == address.hash:
        row.email = address.sealed


def record_login(row: UserRow, at: datetime) -> None:
    """Sets the time of the last login, unless there was a later one."""
    if row.last_login is None or at > row.last_login:
        row.last_login = at


async def _take_address(graph: Graph, other: UserRow, address: Address) -> None:
    graph.withdraw(address.identifier, other.id)
    if other.email_hash == address.hash:
        other.email = other.email_hash = None
        other.field_times = {name: time for name, time in other.field_times.items() if name != "email"}
        await graph.identities.flush()  # the address is unique


def _set_address(row: UserRow, address: Address, at: datetime) -> None:
    if row.email_hash != address.hash:
        row.email, row.email_hash = address.sealed, address.hash
    complete_address(row, address)
    if fields.wins(row.field_times, "email", at):
        row.field_times = {**row.field_times, "email": fields.microseconds(at)}


def _write_field(row: UserRow, name: str, value: object, at: datetime) -> None:
    if fields.wins(row.field_times, name, at):
        setattr(row, name, value)
        row.field_times = {**row.field_times, name: fields.microseconds(at)}
