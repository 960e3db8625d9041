"""Links of the identity graph: which user an identifier leads to. Decisions without a database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Final

from kit.boundary.nobody import names_nobody
from kit.people.identifiers import identifier_of

USER: Final = "user:"
"""Kind of identifier that contains the id of a user, which needs no link."""

_WORDPRESS_IDS: Final = 2**63


class Evidence(Enum):
    """The source of a link or a merge."""

    REGISTRATION = "registration"
    IDENTIFY = "identify"
    UPDATE = "update"
    EVENT = "event"
    PURCHASE = "purchase"
    MERGE = "merge"


@dataclass(frozen=True, slots=True)
class Link:
    """An identifier seen with a user."""

    identifier: str
    user_id: str
    linked_at: datetime
    evidence: Evidence
    withdrawn: bool = False

    @property
    def kind(self) -> str:
        """The kind of the identifier."""
        return self.identifier.partition(":")[0]


class Links:
    """Links of the identifiers loaded so far."""

    def __init__(self) -> None:
        self._links: dict[str, dict[str, Link]] = {}
        self._user_ids: set[str] = set()

    def missing(self, identifiers: Iterable[str]) -> set[str]:
        """Returns the identifiers whose links have yet to be loaded."""
        return {each for each in identifiers if each and not each.startswith(USER)} - self._links.keys()

    def load(self, identifiers: Iterable[str], links: Iterable[Link]) -> None:
        """Adds identifiers with all their links, the withdrawn ones too."""
        found: dict[str, dict[str, Link]] = defaultdict(dict)
        for link in links:
            found[link.identifier][link.user_id] = link
        self._links |= {identifier: found[identifier] for identifier in identifiers}

    def load_users(self, user_ids: Iterable[str]) -> None:
        """Adds users that exist."""
        self._user_ids.update(user_ids)

    def owner(self, identifier: str) -> str:
        """Returns the user that an identifier leads to, the first it was seen with; empty for none."""
        if identifier.startswith(USER):
            user_id = identifier.removeprefix(USER)
            return user_id if user_id in self._user_ids else ""
        return next(iter(self.users_seen_with(identifier)), "")

    def users_seen_with(self, identifier: str) -> Sequence[str]:
        """Returns the users linked with an identifier, the earliest first."""
        links = [link for link in self._links.get(identifier, {}).values() if not link.withdrawn]
        return [link.user_id for link in sorted(links, key=lambda link: (link.linked_at, link.user_id))]

    def adds(self, identifier: str, user_id: str, at: datetime) -> bool:
        """Returns True when a link would change the graph: there is none as old, and the id is not a word for a missing one."""
        if names_nobody(identifier.partition(":")[2]):
            return False
        link = self._links.get(identifier, {}).get(user_id)
        return link is None or link.withdrawn or at < link.linked_at

    def put(self, link: Link) -> None:
        """Adds a link, or replaces the one between the same identifier and user."""
        self._links.setdefault(link.identifier, {})[link.user_id] = link

    def withdrawn(self, identifier: str, user_id: str) -> Link:
        """Returns a link in its withdrawn state."""
        return replace(self._links[identifier][user_id], withdrawn=True)


def user_identifier(user_id: str) -> str:
    """Returns the identifier of a user."""
    return f"{USER}{user_id}"


def user_ids_in(identifiers: Iterable[str]) -> set[str]:
    """Returns the ids in identifiers of kind `user:`."""
    return {each.removeprefix(USER) for each in identifiers if each.startswith(USER)}


def browser_identifiers(session_id: str, anonymous_id: str) -> list[str]:
    """Returns the identifiers of a session and a visitor, without missing ones."""
    return [each for each in (identifier_of(session_id=session_id), identifier_of(anonymous_id=anonymous_id)) if each]


def wordpress_id_of(identifier: str) -> int | None:
    """Returns the WordPress id in an identifier; None for another kind, or a number that no user can have."""
    kind, _, digits = identifier.partition(":")
    if kind != "wordpress" or not 0 < int(digits) < _WORDPRESS_IDS:
        return None
    return int(digits)


def may_create_user(identifier: str) -> bool:
    """Returns True for an identifier that creates a user when it leads to none: an address, or a WordPress user."""
    return identifier.startswith("email:") or wordpress_id_of(identifier) is not None


def affected_by_merge(user_ids: Collection[str], identifiers: Iterable[str]) -> set[str]:
    """Returns the identifiers that may lead to another person after two persons are merged, or unmerged.

    An identifier that several persons share counts as well: how many share it decides whether it leads to any.

    Args:
        user_ids: all users of both persons.
        identifiers: those linked with any of the users.
    """
    return {*map(user_identifier, user_ids), *identifiers}
