"""What people allow: what a service knows of it from the topic `gdpr`, in its own database.

A choice is made under a name, as a banner does for a visit, and is the person's once the name leads to one: whose it is
gets looked up when it is asked for, so that choices join, move and leave with what identity learns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from pmp.gdpr.v1 import change_pb2 as pb
from sqlalchemy import Boolean, Column, CompoundSelect, MetaData, RowMapping, Table, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import Id, UtcDateTime
from kit.database.transactions import upsert
from kit.log.streams import Delivery
from kit.people.persons import persons
from kit.people.suppression import Suppressions

Purpose: TypeAlias = Literal["analytics_tracking", "marketing_emails", "third_party_sharing"]

PURPOSES: Final[tuple[Purpose, ...]] = ("analytics_tracking", "marketing_emails", "third_party_sharing")
"""What one may allow or not, each by itself."""

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
"""Names, and the choices in force that were made under each; NULL for none."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice about one purpose."""

    granted: bool
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Consent:
    """What somebody allows. None of a purpose that nothing was told about."""

    analytics_tracking: Choice | None = None
    marketing_emails: Choice | None = None
    third_party_sharing: Choice | None = None
    person_id: str = field(default="", kw_only=True)
    """The person; empty for nobody that is known."""


_NO_CHOICE: Final = Consent()


def in_force(choices: Iterable[Choice | None]) -> Choice | None:
    """The choice that holds of one person's about one purpose, in whatever order they come: the last; at one instant the denial."""
    made = (choice for choice in choices if choice is not None)
    return max(made, key=lambda choice: (choice.decided_at, not choice.granted), default=None)


def of_one(consents: Collection[Consent], person_id: str = "") -> Consent:
    """What one person allows who made choices under several names."""
    if not consents:
        return Consent(person_id=person_id)
    return Consent(*(in_force(getattr(consent, purpose) for consent in consents) for purpose in PURPOSES), person_id=person_id)


def of_several(consents: Sequence[Consent]) -> Consent:
    """What is allowed with something that was told under several names, the strongest first.

    Names that lead to nobody are taken for the same person's, who evidently goes by them now. Where others lead to
    somebody else, as in a browser that two people use, a denial of any of them holds.
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
    """What people allow, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def of(self, subjects: Collection[str]) -> Mapping[str, Consent]:
        """What is allowed under each of these names: all that the person it leads to has chosen. Two queries, however many names."""
        leads = select(persons.c.subject, persons.c.person_id).where(persons.c.subject.in_(sorted(subjects)))
        people = {row.subject: row.person_id for row in await self._session.execute(leads) if row.person_id}
        strangers = set(subjects) - people.keys()
        made: dict[tuple[bool, str], list[Consent]] = defaultdict(list)
        for row in (await self._session.execute(_made_by(set(people.values()), strangers))).mappings():
            made[bool(row["known"]), row["name"]].append(_consent(row))
        of_people = {person: of_one(made.get((True, person), ()), person) for person in set(people.values())}
        # Of hardly any of the many visitors a choice is known.
        of_strangers = {subject: of_one(choices) if (choices := made.get((False, subject))) else _NO_CHOICE for subject in strangers}
        return of_strangers | {subject: of_people[person] for subject, person in people.items()}

    async def lock(self, subjects: Collection[str]) -> None:
        """Waits until nobody else learns of these names; what is read of them afterwards stays so until the transaction ends."""
        await upsert(self._session, person_consents, [{"subject": subject} for subject in sorted(subjects)])

    async def learn(self, changes: Iterable[pb.ConsentChanged]) -> None:
        """Takes in what the topic tells. Applying something again, or something older, changes nothing."""
        told: dict[str, list[Consent]] = defaultdict(list)
        for change in changes:
            told[change.subject].append(_told(change))
        await self.lock(told)
        rows = await self._session.execute(select(person_consents).where(person_consents.c.subject.in_(sorted(told))))
        for row in rows.mappings():
            told[row["subject"]].append(_consent(row))
        await upsert(self._session, person_consents, [_row(subject, of_one(told[subject])) for subject in sorted(told)])


async def project_consent(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
    """Handler of the topic `gdpr` for services that hold something of persons. What a newer gdpr tells beyond this is passed over."""
    changes = [pb.GdprChanged.FromString(delivery.record.payload) for delivery in deliveries]
    await Consents(session).learn(change.consent for change in changes if change.HasField("consent"))
    await Suppressions(session).learn(change.suppression for change in changes if change.HasField("suppression"))


def _made_by(people: Collection[str], strangers: Collection[str]) -> CompoundSelect[int, str]:
    """The choices of persons under any of their names, and those under names that lead to nobody."""
    choices = [column for column in person_consents.c if column.name != "subject"]
    known = select(literal(1).label("known"), persons.c.person_id.label("name"), *choices).join_from(
        persons, person_consents, person_consents.c.subject == persons.c.subject
    )
    unknown = select(literal(0), person_consents.c.subject, *choices)
    return union_all(known.where(persons.c.person_id.in_(sorted(people))), unknown.where(person_consents.c.subject.in_(sorted(strangers))))


def _told(change: pb.ConsentChanged) -> Consent:
    return Consent(*(_choice(getattr(change, purpose)) if change.HasField(purpose) else None for purpose in PURPOSES))


def _choice(choice: pb.Choice) -> Choice:
    return Choice(choice.granted, choice.decided_at.ToDatetime(UTC))


def _consent(row: RowMapping) -> Consent:
    return Consent(*(None if row[purpose] is None else Choice(row[purpose], row[f"{purpose}_at"]) for purpose in PURPOSES))


def _row(subject: str, consent: Consent) -> dict[str, Any]:
    row: dict[str, Any] = {"subject": subject}
    for purpose in PURPOSES:
        choice: Choice | None = getattr(consent, purpose)
        row[purpose] = choice.granted if choice else None
        row[f"{purpose}_at"] = choice.decided_at if choice else None
    return row
