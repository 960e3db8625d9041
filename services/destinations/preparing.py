"""Collects all that deliveries are made of, before an attempt at them is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from kit.errors import Unavailable
from kit.people.keys.seals import Unsealable
from kit.people.keys.store import Keys
from services.destinations.clearance import ERASED, SEALED, Cleared, sealed_fields
from services.destinations.contacts import Contacts
from services.destinations.kind import Destination, Outcome, Outgoing, Result
from services.destinations.profiles import Profiles
from services.destinations.queue import delivery_id
from services.destinations.settling import PutOff

_SECONDS: Final = 10.0


class Preparing:
    """Prepares the deliveries to one destination.

    Args:
        keys: what is sealed in messages is opened with.
        profiles: of persons, for kinds that need them.
        contacts: of the destination.
    """

    def __init__(self, destination: Destination[Any], keys: Keys, profiles: Profiles, contacts: Contacts) -> None:
        self._destination = destination
        self._keys = keys
        self._profiles = profiles
        self._contacts = contacts

    def id_of(self, cleared: Cleared) -> str:
        """Returns the id of a delivery to the destination."""
        return delivery_id(self._destination.name, cleared.claimed.wanted.key)

    async def outgoing(self, cleared: Sequence[Cleared]) -> tuple[Sequence[Outgoing], dict[str, Result | PutOff]]:
        """Returns deliveries with all that they are made of, and the results of those that can't or may not be sent, by id."""
        sealed = {self.id_of(each): sealed_fields(each.message) for each in cleared}
        people = frozenset(each.consent.person_id for each in cleared if self._destination.uses_profile(each.message)) - {""}
        outgoing: list[Outgoing] = []
        without: dict[str, Result | PutOff] = {}
        try:
            async with asyncio.timeout(_SECONDS):
                decryptor = await self._keys.decryptor(value for fields in sealed.values() for value in fields.values())
                profiles = await self._profiles.of(people) if people else {}
                sources = await self._profiles.first_sources(people) if people and self._destination.needs_first_source else {}
                for each in cleared:
                    id_ = self.id_of(each)
                    try:
                        opened = {name: decryptor.open(value, context=SEALED[name]) for name, value in sealed[id_].items()}
                    except Unsealable as error:
                        without[id_] = Result(Outcome.RETRY, type(error).__name__)
                        continue
                    if not all(opened.values()):
                        without[id_] = Result(Outcome.WITHHELD, ERASED)
                        continue
                    person = each.consent.person_id
                    profile, source = profiles.get(person), sources.get(person)
                    whole = Outgoing(id_, each.claimed.wanted, each.message, each.consent, profile, sealed=opened, first_source=source)
                    outgoing.append(await self._addressed(whole))
        except (Unavailable, TimeoutError) as error:
            return (), {self.id_of(each): PutOff(str(error) or "preparing took too long") for each in cleared}
        return outgoing, without

    async def _addressed(self, outgoing: Outgoing) -> Outgoing:
        """Remembers under which address the destination keeps the person, and adds those it has to leave."""
        person = outgoing.consent.person_id
        if email := self._destination.contact(outgoing):
            return replace(outgoing, former=await self._contacts.remember(person, email))
        if person and self._destination.unsubscribes(outgoing):
            # The person may have another address since the destination was last sent something.
            current = outgoing.profile.email if outgoing.profile is not None else ""
            return replace(outgoing, former=await self._contacts.others(person, current))
        return outgoing
