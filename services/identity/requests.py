"""Reads requests: checks what a field's rule can't say, and seals personal values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.identity.v1 import identity_pb2 as pb

from kit.errors import Violation
from kit.people.identifiers import identifier_of
from kit.people.keys.store import Keys
from kit.rules import ANY_AGE, Period, check, wrong_struct, wrong_time
from services.identity.commands import IdentifyUser, RegisterUser, UpdateUser
from services.identity.links import browser_identifiers
from services.identity.messages import EMAIL_CONTEXT, NAME_CONTEXT
from services.identity.profiles import Address, Profile, Registration, Subscription


class _Sealed(NamedTuple):
    """Personal values, sealed."""

    address: Address | None
    names: Mapping[str, bytes | None]


class RequestReader:
    """Turns requests into commands.

    Raises:
        InvalidRequest: a time or preferences break their rules.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._hasher = keys.hasher

    async def register_user(self, user: pb.Registration) -> RegisterUser:
        """Returns the command of a registration."""
        _check_profile(user, "registration_date", "timestamp")
        at = _at(user.timestamp)
        names = {name: getattr(user, name) for name in ("first_name", "last_name") if getattr(user, name)}
        registered = _at(user.registration_date) if user.HasField("registration_date") else None
        account = identifier_of(user_id=str(user.wordpress_id or ""))
        profile = await self._profile(user, at, account, names, returned_at=min(at, registered or at))
        campaign = {each.name: value for each, value in user.utm_parameters.ListFields()}
        browser = browser_identifiers(user.session_id, user.anonymous_id)
        return RegisterUser(Registration(user.wordpress_id, browser, campaign, replace(profile, registration_date=registered)))

    async def update_user(self, user_id: str, user: pb.UserUpdate) -> UpdateUser:
        """Returns the command of an update."""
        _check_profile(user, "updated_at", "last_login")
        identifier, at = identifier_of(user_id=user_id), _at(user.updated_at)
        names = {name: getattr(user, name) for name in ("first_name", "last_name") if user.HasField(name)}
        profile = await self._profile(user, at, identifier, names)
        last_login = _at(user.last_login) if user.HasField("last_login") else None
        return UpdateUser(identifier, replace(profile, last_login=last_login))

    async def _profile(
        self,
        user: pb.Registration | pb.UserUpdate,
        at: datetime,
        identifier: str,
        names: Mapping[str, str],
        *,
        returned_at: datetime | None = None,
    ) -> Profile:
        sealed = await self._seal(identifier, user.email, names, returned_at)
        preferences, subscriptions = MessageToDict(user.preferences), _subscriptions(user, at)
        return Profile(at, address=sealed.address, names=sealed.names, preferences=preferences, subscriptions=subscriptions)

    async def _seal(self, identifier: str, email: str, names: Mapping[str, str], returned_at: datetime | None) -> _Sealed:
        """Seals an address under its own key, and names under that of their person; None for a value that is empty or was erased.

        Args:
            identifier: whose names they are; empty for the person who has the address.
            email: empty for none.
            names: `first_name`, `last_name`.
            returned_at: when the person registered, who may have been erased before; None for an update.
        """
        email_hash = self._hasher.fingerprint(email) if email else b""
        own = identifier_of(email_hash=email_hash)
        bearer = identifier or own
        seals = await self._keys.seals(
            {*([own] if own else ()), *([bearer] if any(names.values()) else ())}, {own: returned_at} if own and returned_at else None
        )
        address = Address(email_hash, seals[own].seal(email, context=EMAIL_CONTEXT) or None) if own else None
        sealed = {name: (value and seals[bearer].seal(value, context=NAME_CONTEXT)) or None for name, value in names.items()}
        return _Sealed(address, sealed)


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
