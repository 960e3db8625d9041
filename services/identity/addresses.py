"""Which of two users has an e-mail address that both state. Decisions without a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from services.identity.fields import wins
from services.identity.links import Evidence


class AddressClaim(Enum):
    """What follows for a user that states an address while another user is linked with it."""

    HELD_BY_SAME_PERSON = "the other user is the same person and has the address: it stays there"
    SEEN_BY_SAME_PERSON = "the other user is the same person, without the address: both are linked with it"
    MOVES = "the other user loses its link, and the address if it has it"
    OUTDATED = "the other user stated the address later: it stays there"
    CONFLICTS = "the other user has the address, which an update must not take from it"


@dataclass(frozen=True, slots=True)
class OtherUser:
    """Another user linked with the address."""

    is_same_person: bool
    has_address: bool
    """The address is in its profile."""
    field_times: Mapping[str, int]


def address_claim(field_times: Mapping[str, int], other: OtherUser, at: datetime, evidence: Evidence) -> AddressClaim:
    """Decides between a user that states an address and another one linked with it.

    Args:
        field_times: those of the user that states it.
        other: the one linked with it.
        at: when it was stated.
        evidence: what states it.
    """
    if other.is_same_person:
        return AddressClaim.HELD_BY_SAME_PERSON if other.has_address else AddressClaim.SEEN_BY_SAME_PERSON
    if other.has_address and evidence is Evidence.UPDATE:
        return AddressClaim.CONFLICTS if wins(field_times, "email", at) else AddressClaim.OUTDATED
    if other.has_address and not wins(other.field_times, "email", at):
        return AddressClaim.OUTDATED
    return AddressClaim.MOVES
