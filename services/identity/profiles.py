"""What a registration or an update states of a user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from kit.errors import Conflict
from kit.people.identifiers import identifier_of
from kit.people.suppression import Suppressed, for_registration, screen


@dataclass(frozen=True, slots=True)
class Address:
    """An e-mail address."""

    hash: bytes
    sealed: bytes | None
    """None when only the hash is known."""

    @property
    def identifier(self) -> str:
        """The identifier of its user."""
        return identifier_of(email_hash=self.hash)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A mailing list that a user chose, or left."""

    list: str
    subscribed: bool
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Profile:
    """Fields of a profile as written at a time; fields that were not stated are left out."""

    at: datetime
    address: Address | None = None
    names: Mapping[str, bytes | None] = field(default_factory=dict[str, bytes | None])
    """`first_name`, `last_name`: sealed; None removes one."""
    preferences: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """None removes one."""
    subscriptions: Sequence[Subscription] = ()
    registration_date: datetime | None = None
    last_login: datetime | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """Who registers, in which session, and with which profile."""

    wordpress_id: int
    browser: Sequence[str]
    """`session:` and `anonymous:` identifiers."""
    campaign: Mapping[str, str]
    profile: Profile
    historical: bool = False
    """It is imported or backfilled."""

    @property
    def account(self) -> str:
        """The identifier of the WordPress user; empty for none."""
        return f"wordpress:{self.wordpress_id}" if self.wordpress_id else ""

    @property
    def email(self) -> str:
        """The identifier of the address; empty for none."""
        return self.profile.address.identifier if self.profile.address else ""

    @property
    def identifiers(self) -> Sequence[str]:
        """All identifiers; a missing one is empty."""
        return [self.account, self.email, *self.browser]

    def unsuppressed(self, suppressed: Suppressed) -> Registration:
        """Returns the registration without sessions of erased persons.

        Raises:
            Conflict: it is an erased person's. A person comes back by registering anew, with another WordPress user; neither by
                the first registration sent again, nor by a login.
        """
        at = min(self.profile.at, self.profile.registration_date or self.profile.at)
        screened = screen(self.identifiers, at, for_registration(suppressed))
        if screened.is_dropped or self.email in screened.stripped:
            raise Conflict("this person was erased; only a new registration is taken")
        return replace(self, browser=[each for each in self.browser if each not in screened.stripped])
