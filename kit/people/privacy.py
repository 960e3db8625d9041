"""Consent: each service projects the choices of persons from the topic `gdpr` into its own database.

A choice is made under an identifier, for example that of a session in a cookie banner, and counts for the person that the
identifier leads to. The person is resolved when the consent is read, so that choices follow the links and merges of identity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from pmp.gdpr.v1 import change_pb2 as pb
from sqlalchemy import Boolean, Column, CompoundSelect, MetaData, RowMapping, Table, bindparam, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import Id, UtcDateTime
from kit.database.transactions import upsert
from kit.log.streams import Delivery
from kit.people.persons import persons
from kit.people.suppression import Suppressions

Purpose: TypeAlias = Literal["analytics_tracking", "marketing_emails", "third_party_sharing"]

PURPOSES: Final[tuple[Purpose, ...]] = ("analytics_tracking", "marketing_emails", "third_party_sharing")
"""What a person grants or denies, each by itself."""

person_consents = Table(
    "person_consents",
    MetaData(),
    Column("subject", Id(280), primary_key=True),
    Column("analytics_tracking", Boolean),
    Column("analytics_tracking_at", UtcDateTime),
    Column("marketing_emails", Boolean),
    Column("marketing_emails_at", UtcDateTime),
    Column("third_party_sharing", Boolean),
    Column("third_party_sharing_at", UtcDateTime),
)
"""Identifiers, and the choices in force that were made under each; NULL for none."""

_LEADS: Final = select(persons.c.subject, persons.c.person_id).where(persons.c.subject.in_(bindparam("identifiers", expanding=True)))


def _made_by() -> CompoundSelect[int, str]:
    """Selects the choices of persons under any of their identifiers, and those under identifiers that lead to no person."""
    choices = [column for column in person_consents.c if column.name != "subject"]
    of_people = select(literal(1).label("is_person"), persons.c.person_id.label("made_by"), *choices).join_from(
        persons, person_consents, person_consents.c.subject == persons.c.subject
    )
    of_others = select(literal(0), person_consents.c.subject, *choices)
    return union_all(
        of_people.where(persons.c.person_id.in_(bindparam("people", expanding=True))),
        of_others.where(person_consents.c.subject.in_(bindparam("unresolved", expanding=True))),
    )


_MADE_BY: Final = _made_by()


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice about one purpose."""

    granted: bool
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Consent:
    """The choices in force; None for a purpose without a choice."""

    analytics_tracking: Choice | None = None
    marketing_emails: Choice | None = None
    third_party_sharing: Choice | None = None
    person_id: str = field(default="", kw_only=True)
    """The person; empty if none is known."""


_NO_CHOICE: Final = Consent()


def in_force(choices: Iterable[Choice | None]) -> Choice | None:
    """Returns the choice in force out of one person's about one purpose, in any order: the latest; of two at one instant, the denial."""
    made = (choice for choice in choices if choice is not None)
    return max(made, key=lambda choice: (choice.decided_at, not choice.granted), default=None)


def of_one(consents: Collection[Consent], person_id: str = "") -> Consent:
    """Returns the consent of one person who made choices under several identifiers."""
    if not consents:
        return Consent(person_id=person_id)
    return Consent(*(in_force(getattr(consent, purpose) for consent in consents) for purpose in PURPOSES), person_id=person_id)


def of_several(consents: Sequence[Consent]) -> Consent:
    """Returns the consent for a record with several identifiers, given the consent of each, the strongest first.

    Identifiers that lead to no person count as the same person's, since the record has them together. Where one leads to another
    person, as in a browser that two people use, that person's denial applies as well.
    """
    if consents and all(consent is consents[0] for consent in consents):
        return consents[0]
    person_id = next((consent.person_id for consent in consents if consent.person_id), "")
    own = of_one([consent for consent in consents if consent.person_id in ("", person_id)], person_id)
    others = [consent for consent in consents if consent.person_id not in ("", person_id)]
    return Consent(*(_unless_denied(own, others, purpose) for purpose in PURPOSES), person_id=person_id) if others else own


def _unless_denied(own: Consent, others: Sequence[Consent], purpose: str) -> Choice | None:
    choices: Iterable[Choice | None] = (getattr(consent, purpose) for consent in others)
    return next((choice for choice in choices if choice is not None and not choice.granted), getattr(own, purpose))


class Consents:
    """The consents that a service knows, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def of(self, identifiers: Collection[str]) -> Mapping[str, Consent]:
        """Returns consents by identifier: all choices of the person that it leads to. Two queries for any number of identifiers."""
        leads = await self._session.execute(_LEADS, {"identifiers": sorted(identifiers)})
        people = {row.subject: row.person_id for row in leads if row.person_id}
        unresolved = set(identifiers) - people.keys()
        made: dict[tuple[bool, str], list[Consent]] = defaultdict(list)
        asked = {"people": sorted(set(people.values())), "unresolved": sorted(unresolved)}
        for row in (await self._session.execute(_MADE_BY, asked)).mappings():
            made[bool(row["is_person"]), row["made_by"]].append(_stored(row))
        of_people = {person: of_one(made.get((True, person), ()), person) for person in set(people.values())}
        # Hardly any of the many visitors has made a choice.
        of_unresolved = {each: of_one(choices) if (choices := made.get((False, each))) else _NO_CHOICE for each in unresolved}
        return of_unresolved | {identifier: of_people[person] for identifier, person in people.items()}

    async def lock(self, identifiers: Collection[str]) -> None:
        """Locks the choices under these identifiers until the end of the transaction."""
        await upsert(self._session, person_consents, [{"subject": identifier} for identifier in sorted(identifiers)])

    async def apply(self, changes: Iterable[pb.ConsentChanged]) -> None:
        """Applies changes of the topic. Applying one again, or an older one, changes nothing."""
        made: dict[str, list[Consent]] = defaultdict(list)
        for change in changes:
            made[change.subject].append(_changed(change))
        await self.lock(made)
        rows = await self._session.execute(select(person_consents).where(person_consents.c.subject.in_(sorted(made))))
        for row in rows.mappings():
            made[row["subject"]].append(_stored(row))
        await upsert(self._session, person_consents, [_row(identifier, of_one(made[identifier])) for identifier in sorted(made)])


async def project_consent(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
    """Handler of the topic `gdpr` for services that hold personal data. Kinds of change that this version does not know are skipped."""
    changes = [pb.GdprChanged.FromString(delivery.record.payload) for delivery in deliveries]
    await Consents(session).apply(change.consent for change in changes if change.HasField("consent"))
    await Suppressions(session).apply(change.suppression for change in changes if change.HasField("suppression"))


def _changed(change: pb.ConsentChanged) -> Consent:
    return Consent(*(_choice(getattr(change, purpose)) if change.HasField(purpose) else None for purpose in PURPOSES))


def _choice(choice: pb.Choice) -> Choice:
    return Choice(choice.granted, choice.decided_at.ToDatetime(UTC))


def _stored(row: RowMapping) -> Consent:
    return Consent(*(None if row[purpose] is None else Choice(row[purpose], row[f"{purpose}_at"]) for purpose in PURPOSES))


def _row(identifier: str, consent: Consent) -> dict[str, Any]:
    row: dict[str, Any] = {"subject": identifier}
    for purpose in PURPOSES:
        choice: Choice | None = getattr(consent, purpose)
        row[purpose] = choice.granted if choice else None
        row[f"{purpose}_at"] = choice.decided_at if choice else None
    return row
