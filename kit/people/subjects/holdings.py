"""What a service holds of persons, declared once: what is exported, what an erasure leaves, and what is documented follow from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias, cast

from google.protobuf.message import Message
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase

from kit.people.persons import aliases, persons, users
from kit.people.privacy import person_consents


class Kind(Enum):
    """How a column says whose a row is."""

    SUBJECT = "subject"
    """A name with its kind."""
    USER = "user"
    """A user's id as it was told."""
    EMAIL = "email"
    """The keyed hash of an address."""
    SESSION = "session"
    """A visit's id."""


class Stays(Enum):
    """Why a text that an erased row keeps names nobody."""

    ID = "an id of the row itself or of another row: its rule leaves no room for a text, and no id should name anybody"
    WORD = "one of a closed set of words"
    HASH = "a keyed hash"
    SHOP = "the shop's own: what it sells, and under which number"


Entity: TypeAlias = Table | type[DeclarativeBase]
"""A table, or its model."""
Row: TypeAlias = Mapping[str, Any]
Becomes: TypeAlias = Callable[[Row], Any]
"""What a column of an erased row becomes."""
Tell: TypeAlias = Callable[[Row], tuple[str, Message | None] | None]
"""What the service's topic has to tell of an erased row: its key and a message, or none to forget the key; None where it tells nothing."""
After: TypeAlias = Callable[[AsyncSession, Sequence[Row]], Awaitable[None]]
"""Does in the same transaction what follows from rows having been erased or deleted.

They are given as they are now, or as they were when they are gone.
"""
Custom: TypeAlias = Callable[[AsyncSession, Sequence[str], str], Awaitable[int]]
"""Erases names, for which the pseudonym stands, from a table in a way of its own; says how many rows that were."""


def nothing(*columns: str) -> dict[str, Becomes]:
    """Columns of which nothing is left."""
    return dict.fromkeys(columns, lambda _row: None)


@dataclass(frozen=True, slots=True)
class Part:
    """A table whose rows belong to rows of another."""

    entity: Entity
    key: str
    """The column that names them."""
    personal: Mapping[str, Becomes] = field(default_factory=dict[str, Becomes])
    stays: Mapping[str, Stays] = field(default_factory=dict[str, Stays])

    @property
    def table(self) -> Table:
        """The table."""
        return _table(self.entity)


@dataclass(frozen=True, slots=True)
class Ages:
    """How the rows of a table grow old."""

    column: str
    """The time that says how old a row is."""
    by: str = ""
    """A column in whose order they do so, where there is no index of the time."""
    key: str = ""
    """The column that is the key of what the service's topic told of them, where that is forgotten with them."""


@dataclass(frozen=True, slots=True)
class PersonalTable:
    """A table that holds something of persons."""

    entity: Entity
    section: str
    """The part of an export that its rows belong to; empty for what only tells who is who, and is not shown."""
    why: str
    """What it is kept for."""
    kept: str
    """How long."""
    names: Mapping[str, Kind]
    """The columns that lead to a person, the strongest first: the first that is filled decides whose a row is."""
    personal: Mapping[str, Becomes] = field(default_factory=dict[str, Becomes])
    """Further columns about the person, and what an erasure makes of them."""
    stays: Mapping[str, Stays] = field(default_factory=dict[str, Stays])
    """Texts of a row that stays which an erasure leaves as they are. Times and numbers always stay."""
    sealed: Mapping[str, str] = field(default_factory=dict[str, str])
    """Columns that are sealed, and in which context."""
    internal: Collection[str] = ()
    """Columns of the mesh's own bookkeeping, which are not shown."""
    keys: Collection[str] = ()
    """Columns of idempotency keys, which are shown as the ids that clients chose."""
    deletes_rows: bool = False
    """An erased row is deleted; else it stays without the person."""
    any_identifier: bool = False
    """Every one of the names makes a row the person's: it tells of both."""
    derived: bool = False
    """Its rows are made of other tables' and made anew when those change: an erasure takes them, and does not count them."""
    parts: Sequence[Part] = ()
    told: Tell | None = None
    erase: Custom | None = None
    """Where rows can't be erased one by one."""
    ages: Ages | None = None
    """Where rows may be deleted once they are too old."""

    @property
    def table(self) -> Table:
        """The table."""
        return _table(self.entity)


_WHO: Final = "who is who, so that visits and orders find their person"
LONG: Final = "until the person is erased"
"""How long most is kept."""
SET: Final = f"{LONG}, or as long as `PMP_SITE_RETENTION_TABLES` says"
"""How long what grows old is kept."""

SHARED: Final = (
    PersonalTable(persons, "", _WHO, LONG, {"subject": Kind.SUBJECT, "person_id": Kind.USER}, deletes_rows=True, any_identifier=True),
    PersonalTable(aliases, "", _WHO, LONG, {"subject": Kind.SUBJECT, "user_id": Kind.USER}, deletes_rows=True, any_identifier=True),
    PersonalTable(users, "", _WHO, LONG, {"user_id": Kind.USER, "merged_into": Kind.USER}, deletes_rows=True, any_identifier=True),
    PersonalTable(
        person_consents,
        "",
        "what the person allows, checked when something is stored",
        LONG,
        {"subject": Kind.SUBJECT},
        nothing(*(column.name for column in person_consents.c if column.name != "subject")),
        deletes_rows=True,
    ),
)
"""What every service keeps of persons beside its own tables."""


def _table(entity: Entity) -> Table:
    return entity if isinstance(entity, Table) else cast("Table", entity.__table__)
