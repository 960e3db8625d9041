"""Links of the identity graph: which user an identifier leads to. Decisions without a database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Final

from kit.boundary.nobody import names_nobody
from kit.people.persons import subject_of

USER: Final = "user:"
"""Kind of identifier that contains the id of a user, which needs no link."""

_WORDPRESS_IDS: Final = 2**63


class Evidence(Enum):
    """What states that a link or a merge is true."""

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
        """Those of some identifiers whose links are yet to be loaded."""
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
        """The user that an identifier leads to: the first it was seen with. Empty for none."""
        if identifier.startswith(USER):
            user_id = identifier.removeprefix(USER)
            return user_id if user_id in self._user_ids else ""
        return next(iter(self.users_seen_with(identifier)), "")

    def users_seen_with(self, identifier: str) -> Sequence[str]:
        """The users linked with an identifier, the earliest first."""
        links = [link for link in self._links.get(identifier, {}).values() if not link.withdrawn]
        return [link.user_id for link in sorted(links, key=lambda link: (link.linked_at, link.user_id))]

    def adds(self, identifier: str, user_id: str, at: datetime) -> bool:
        """True when a link would change the graph: there is none that is as old, and the identifier does not stand for a missing value."""
        if names_nobody(identifier.partition(":")[2]):
            return False
        link = self._links.get(identifier, {}).get(user_id)
        return link is None or link.withdrawn or at < link.linked_at

    def put(self, link: Link) -> None:
        """Adds a link, or replaces the one between the same identifier and user."""
        self._links.setdefault(link.identifier, {})[link.user_id] = link

    def withdrawn(self, identifier: str, user_id: str) -> Link:
        """A link as it is once withdrawn."""
        return replace(self._links[identifier][user_id], withdrawn=True)


def user_identifier(user_id: str) -> str:
    """The identifier of a user."""
    return f"{USER}{user_id}"


def user_ids_in(identifiers: Iterable[str]) -> set[str]:
    """The ids of users that identifiers contain."""
    return {each.removeprefix(USER) for each in identifiers if each.startswith(USER)}


def browser_identifiers(session_id: str, anonymous_id: str) -> list[str]:
    """The identifiers of a session and a visitor, without those that are missing."""
    return [each for each in (subject_of(session_id=session_id), subject_of(anonymous_id=anonymous_id)) if each]


def wordpress_id_of(identifier: str) -> int | None:
    """The WordPress user of an identifier; None for an identifier of another kind, or a number that no user can have."""
    kind, _, digits = identifier.partition(":")
    if kind != "wordpress" or not 0 < int(digits) < _WORDPRESS_IDS:
        return None
    return int(digits)


def may_create_user(identifier: str) -> bool:
    """True when an identifier that leads to no user creates one: an address, or a WordPress user."""
    return identifier.startswith("email:") or wordpress_id_of(identifier) is not None


def affected_by_merge(user_ids: Collection[str], identifiers: Iterable[str]) -> set[str]:
    """The identifiers that may lead to another person once two persons become one, or two again.

    An identifier that several persons share counts as well: how many share it decides whether it leads to any.

    Args:
        user_ids: all users of both persons.
        identifiers: those linked with any of the users.
    """
    return {*map(user_identifier, user_ids), *identifiers}
