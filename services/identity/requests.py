"""Reads requests: checks what a field's rule can't say, and seals personal values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.identity.v1 import identity_pb2 as pb

from kit.errors import Violation
from kit.people.identifiers import identifier_of
from kit.people.keys.seals import EMAIL_CONTEXT, Seal
from kit.people.keys.store import Keys
from kit.rules import ANY_AGE, Period, check, wrong_struct, wrong_time
from services.identity.commands import IdentifyUser, RegisterUser, UpdateUser
from services.identity.links import browser_identifiers
from services.identity.messages import NAME_CONTEXT
from services.identity.profiles import Address, Profile, Registration, Subscription


class _Personal(NamedTuple):
    """The personal values of one request, to be sealed: an address under its own key, names under that of their person."""

    at: datetime
    """When they were stated."""
    email: str
    """Empty for none."""
    email_hash: bytes
    names: Mapping[str, str]
    """`first_name`, `last_name`."""
    person: str = ""
    """The identifier of the person; empty for the person who has the address."""
    returned_at: datetime | None = None
    """When the person registered, who may have been erased before; None for an update."""

    @property
    def own(self) -> str:
        """The identifier of the address; empty for none."""
        return identifier_of(email_hash=self.email_hash)

    @property
    def bearer(self) -> str:
        """The identifier under whose key names are sealed."""
        return self.person or self.own


class RequestReader:
    """Turns requests into commands.

    Raises:
        InvalidRequest: a time or preferences break their rules.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._hasher = keys.hasher

    async def register_users(self, users: Sequence[pb.Registration]) -> list[RegisterUser]:
        """Returns the commands of registrations, which `check_registration` has checked."""
        personal = [self._registered(user) for user in users]
        seals = await self._seals(personal)
        return [_registration(user, _profile(user, each, seals)) for user, each in zip(users, personal, strict=True)]

    async def update_user(self, user_id: str, user: pb.UserUpdate) -> UpdateUser:
        """Returns the command of an update."""
        _check_profile(user, "updated_at", "last_login")
        identifier = identifier_of(user_id=user_id)
        names = {name: getattr(user, name) for name in ("first_name", "last_name") if user.HasField(name)}
        personal = _Personal(_at(user.updated_at), user.email, self._fingerprint(user.email), names, identifier)
        profile = _profile(user, personal, await self._seals([personal]))
        last_login = _at(user.last_login) if user.HasField("last_login") else None
        return UpdateUser(identifier, replace(profile, last_login=last_login))

    def _registered(self, user: pb.Registration) -> _Personal:
        at = _at(user.timestamp)
        names = {name: getattr(user, name) for name in ("first_name", "last_name") if getattr(user, name)}
        account = identifier_of(user_id=str(user.wordpress_id or ""))
        returned_at = min(at, _registration_date(user) or at)
        return _Personal(at, user.email, self._fingerprint(user.email), names, account, returned_at)

    def _fingerprint(self, email: str) -> bytes:
        return self._hasher.fingerprint(email) if email else b""

    async def _seals(self, several: Sequence[_Personal]) -> Mapping[str, Seal]:
        """Returns the keys under which the personal values of requests are sealed."""
        identifiers = {each.own for each in several} | {each.bearer for each in several if any(each.names.values())}
        returned: dict[str, datetime] = {}
        for each in several:
            if each.own and each.returned_at:
                returned[each.own] = max(each.returned_at, returned.get(each.own, each.returned_at))
        return await self._keys.seals(identifiers - {""}, returned)


def check_registration(user: pb.Registration) -> pb.Registration:
    """Checks what a field's rule can't say; returns the registration.

    Raises:
        InvalidRequest: a time or preferences break their rules.
    """
    _check_profile(user, "registration_date", "timestamp")
    return user


def identify_user(request: pb.IdentifyUserRequest) -> IdentifyUser:
    """Returns the command of an identification.

    Raises:
        InvalidRequest: its time breaks its rule.
    """
    check(_wrong("timestamp", request.timestamp))
    browser = browser_identifiers(request.session_id, request.anonymous_id)
    return IdentifyUser(identifier_of(user_id=request.user_id), browser, _at(request.timestamp))


def _check_profile(user: pb.Registration | pb.UserUpdate, *times: str) -> None:
    lists = enumerate(user.email_subscriptions)
    check(
        *(_wrong(name, getattr(user, name)) for name in times),
        *(_wrong(f"email_subscriptions[{index}].changed_at", each.changed_at) for index, each in lists),
        wrong_struct("preferences", user.preferences),
    )


def _registration(user: pb.Registration, profile: Profile) -> RegisterUser:
    campaign = {each.name: value for each, value in user.utm_parameters.ListFields()}
    browser = browser_identifiers(user.session_id, user.anonymous_id)
    dated = replace(profile, registration_date=_registration_date(user))
    return RegisterUser(Registration(user.wordpress_id, browser, campaign, dated, user.historical))


def _registration_date(user: pb.Registration) -> datetime | None:
    return _at(user.registration_date) if user.HasField("registration_date") else None


def _profile(user: pb.Registration | pb.UserUpdate, personal: _Personal, seals: Mapping[str, Seal]) -> Profile:
    """Returns the profile of a request with its personal values sealed; None for a value that is empty or was erased."""
    own, names = personal.own, personal.names
    return Profile(
        personal.at,
        address=Address(personal.email_hash, seals[own].seal(personal.email, context=EMAIL_CONTEXT) or None) if own else None,
        names={name: (value and seals[personal.bearer].seal(value, context=NAME_CONTEXT)) or None for name, value in names.items()},
        preferences=MessageToDict(user.preferences),
        subscriptions=_subscriptions(user, personal.at),
    )


def _at(timestamp: Timestamp) -> datetime:
    """Returns the time, or now when none is given."""
    return timestamp.ToDatetime(UTC) if timestamp.ByteSize() else datetime.now(UTC)


def _wrong(field: str, timestamp: Timestamp) -> Violation | None:
    return wrong_time(field, timestamp, Period.of(ANY_AGE))


def _subscriptions(user: pb.Registration | pb.UserUpdate, at: datetime) -> list[Subscription]:
    """Returns the mailing lists of a profile; one without a time gets that of the profile."""
    return [
        Subscription(each.list, each.subscribed, _at(each.changed_at) if each.HasField("changed_at") else at)
        for each in user.email_subscriptions
    ]
