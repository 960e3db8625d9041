"""The changes that callers ask for. Each is applied to the locked graph, several of them in one transaction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from kit.errors import Conflict, InvalidRequest, NotFound, Violation
from kit.people.identifiers import identifier_of
from kit.people.suppression import Suppressed, for_registration, screen
from kit.times import LIVE_FOR
from services.identity.lifecycle import Campaign
from services.identity.links import Evidence, user_identifier, wordpress_id_of
from services.identity.merges import may_become, merge_refusal, registration_may_merge
from services.identity.profile_changes import write_profile
from services.identity.profiles import Profile, Registration
from services.identity.unit_of_work import Graph


class Effect(Enum):
    """What a command did."""

    CREATED = "it created a user"
    CHANGED = "it changed a user"
    NONE = "it had been done before"


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of a command."""

    user_id: str
    """The user it was about."""
    effect: Effect


class Command(Protocol):
    """A change of the graph."""

    @property
    def identifiers(self) -> Collection[str]:
        """The identifiers it needs loaded, with their suppressions; those of commands applied together are loaded at once."""
        ...

    async def apply(self, graph: Graph, suppressed: Suppressed, /) -> Applied:
        """Changes the graph, of which the identifiers have been loaded.

        Args:
            graph: the graph, locked.
            suppressed: those of the identifiers whose person was erased.

        Raises:
            MeshError: the command is refused; the transaction has to be rolled back.
        """
        ...


@dataclass(frozen=True, slots=True)
class RegisterUser:
    """Creates a user, or brings it up to date.

    The WordPress id and the e-mail address of one registration are strong evidence for one person: where each has a user of its
    own, their persons are merged, unless they are different WordPress users, or an administrator has separated them. Then the
    WordPress id decides, and the address moves to its user.
    """

    registration: Registration

    @property
    def identifiers(self) -> Collection[str]:
        """The identifiers of the registration."""
        return self.registration.identifiers

    async def apply(self, graph: Graph, suppressed: Suppressed) -> Applied:
        """Registers the user.

        Raises:
            Conflict: the person was erased.
            InvalidRequest: its preferences would be too large.
        """
        registration = self.registration.unsuppressed(suppressed)
        at = registration.profile.at
        user_id = await _registered_user(graph, registration)
        effect = Effect.CHANGED if user_id else Effect.CREATED
        if not user_id:
            identifier = registration.account or registration.email
            user_id = graph.create_user(identifier, at, Evidence.REGISTRATION, historical=registration.historical).id
        row = await graph.users.get(user_id)
        if registration.wordpress_id:
            row.wordpress_id = registration.wordpress_id
            graph.link(registration.account, user_id, at, Evidence.REGISTRATION)
        await write_profile(graph, row, registration.profile, Evidence.REGISTRATION)
        if row.registration_date is None:
            row.registration_date = registration.profile.registration_date or at
        if not registration.historical and at - row.registration_date <= LIVE_FOR:
            row.historical = False
        for identifier in registration.browser:
            graph.link(identifier, user_id, at, Evidence.REGISTRATION)
        if registration.campaign:
            graph.facts.add_campaign(user_identifier(user_id), Campaign(at, registration.campaign))
        return Applied(user_id, effect)


@dataclass(frozen=True, slots=True)
class IdentifyUser:
    """Links a session and a visitor with a user; a WordPress user that is not known is created."""

    user: str
    """Its identifier."""
    browser: Collection[str]
    """`session:` and `anonymous:` identifiers."""
    at: datetime

    @property
    def identifiers(self) -> Collection[str]:
        """The identifiers of the user and the browser."""
        return [self.user, *self.browser]

    async def apply(self, graph: Graph, suppressed: Suppressed) -> Applied:
        """Links the identifiers.

        Raises:
            NotFound: there is no such user.
        """
        screened = screen(self.identifiers, self.at, suppressed)
        if screened.is_dropped:
            raise unknown_user("user_id")
        user_id = graph.links.owner(self.user)
        effect = Effect.CHANGED if user_id else Effect.CREATED
        if not user_id:
            if wordpress_id_of(self.user) is None:
                raise unknown_user("user_id")
            user_id = graph.create_user(self.user, self.at, Evidence.IDENTIFY).id
        for identifier in self.browser:
            if identifier not in screened.stripped:
                graph.link(identifier, user_id, self.at, Evidence.IDENTIFY)
        return Applied(user_id, effect)


@dataclass(frozen=True, slots=True)
class UpdateUser:
    """Changes the profile of a user."""

    user: str
    """Its identifier."""
    profile: Profile

    @property
    def identifiers(self) -> Collection[str]:
        """The identifier of the address."""
        return [self._email]

    async def apply(self, graph: Graph, suppressed: Suppressed) -> Applied:
        """Writes the profile.

        Raises:
            NotFound: there is no such user.
            Conflict: another person has the address, or its person was erased.
            InvalidRequest: its preferences would be too large.
        """
        await graph.load([self.user])
        user_id = graph.links.owner(self.user)
        if not user_id:
            raise unknown_user("id")
        if screen([self._email], self.profile.at, for_registration(suppressed)).is_dropped:
            message = "email: this person was erased"
            raise Conflict(message)
        await write_profile(graph, await graph.users.get(user_id), self.profile, Evidence.UPDATE)
        return Applied(user_id, Effect.CHANGED)

    @property
    def _email(self) -> str:
        return self.profile.address.identifier if self.profile.address else ""


@dataclass(frozen=True, slots=True)
class MergeUsers:
    """Merges the person of one user into that of another."""

    id: str
    merged_user_id: str
    reason: str

    @property
    def identifiers(self) -> Collection[str]:
        """None: it loads the two users itself."""
        return ()

    async def apply(self, graph: Graph, _: Suppressed) -> Applied:
        """Merges the persons.

        Raises:
            NotFound: one of the users does not exist.
            InvalidRequest: they may not be merged.
        """
        user_id, merged = await _two_users(graph, self.id, self.merged_user_id)
        if user_id == merged:
            raise _invalid("merged_user_id is the same user as id")
        one, other = await graph.person_of(user_id), await graph.person_of(merged)
        if one == other:
            return Applied(user_id, Effect.NONE)
        if refusal := merge_refusal(await graph.wordpress_ids(one), await graph.wordpress_ids(other)):
            raise _invalid(refusal.value)
        await graph.merge(one, other, Evidence.MERGE, self.reason)
        return Applied(user_id, Effect.CHANGED)


@dataclass(frozen=True, slots=True)
class UnmergeUsers:
    """Undoes the merge of a user."""

    id: str
    merged_user_id: str

    @property
    def identifiers(self) -> Collection[str]:
        """None: it loads the two users itself."""
        return ()

    async def apply(self, graph: Graph, _: Suppressed) -> Applied:
        """Makes the merged user stand for itself again.

        Raises:
            NotFound: one of the users does not exist, or the second was not merged into the person of the first.
        """
        user_id, merged = await _two_users(graph, self.id, self.merged_user_id)
        merge = await graph.identities.merge(merged)
        if merge is None or (merge.user_id != user_id and await graph.person_of(merged) != await graph.person_of(user_id)):
            message = "merged_user_id: it was not merged into this user"
            raise NotFound(message)
        if merge.undone_at is not None:
            return Applied(merged, Effect.NONE)
        await graph.unmerge(merge)
        return Applied(merged, Effect.CHANGED)


def unknown_user(field: str) -> NotFound:
    """Returns the refusal of a request whose field contains no user that exists."""
    return NotFound(f"{field}: there is no such user")


async def _registered_user(graph: Graph, registration: Registration) -> str:
    """Returns the user that a registration is about; empty for a new one. Merges the person of its address where it may."""
    by_account, by_email = graph.links.owner(registration.account), graph.links.owner(registration.email)
    if not by_email:
        return by_account
    if by_account:
        await _merge_lead(graph, await graph.person_of(by_account), await graph.person_of(by_email))
        return by_account
    wordpress_id = registration.wordpress_id
    if not wordpress_id or may_become(await graph.wordpress_ids(await graph.person_of(by_email)), wordpress_id):
        return by_email
    return ""


async def _merge_lead(graph: Graph, account: str, lead: str) -> None:
    """Merges the person of an address into that of a WordPress user, if allowed and not undone before by an administrator."""
    if account == lead:
        return
    users = await graph.wordpress_ids(account)
    if not registration_may_merge(users, await graph.wordpress_ids(lead)):
        return
    earlier = await graph.identities.merge(lead)
    was_separated = earlier is not None and earlier.undone_at is not None and earlier.user_id in users
    if not was_separated:
        await graph.merge(account, lead, Evidence.REGISTRATION)


async def _two_users(graph: Graph, user_id: str, merged_user_id: str) -> tuple[str, str]:
    identifiers = identifier_of(user_id=user_id), identifier_of(user_id=merged_user_id)
    await graph.load(identifiers)
    users = graph.links.owner(identifiers[0]), graph.links.owner(identifiers[1])
    for field, user in zip(("id", "merged_user_id"), users, strict=True):
        if not user:
            raise unknown_user(field)
    return users


def _invalid(description: str) -> InvalidRequest:
    return InvalidRequest([Violation("merged_user_id", description)])
