"""Declares the personal tables of a service, once: export, erasure, retention and documentation follow from the declaration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias, cast

from google.protobuf.message import Message
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase

from kit.people.persons import person_links, persons, users
from kit.people.privacy import person_consents


class IdentifierKind(Enum):
    """Which identifier of a person a column holds."""

    SUBJECT = "subject"
    """An identifier with its kind, such as `wordpress:42`."""
    USER_ID = "user_id"
    """A user's id as it was reported."""
    EMAIL_HASH = "email_hash"
    """The keyed hash of an e-mail address."""
    SESSION_ID = "session_id"
    """A session's id."""


class Stays(Enum):
    """Why a text that an erased row keeps identifies no person."""

    ID = "the id of the row itself or of another row: its rule leaves no room for a text, and no id should identify a person"
    WORD = "one of a closed set of words"
    HASH = "a keyed hash"
    SHOP = "the shop's own: what it sells, and under which number"


Entity: TypeAlias = Table | type[DeclarativeBase]
"""A table, or its model."""
Row: TypeAlias = Mapping[str, Any]
Becomes: TypeAlias = Callable[[Row], Any]
"""Returns the value that a column of an erased row gets."""
Publication: TypeAlias = Callable[[Row], tuple[str, Message | None] | None]
"""Returns what the topic publishes for an erased row: key and message, or a key alone, which is removed; None for nothing."""
After: TypeAlias = Callable[[AsyncSession, Sequence[Row]], Awaitable[None]]
"""Runs in the transaction that erased or deleted rows. Erased rows are passed as they are now, deleted rows as they were."""
Custom: TypeAlias = Callable[[AsyncSession, Sequence[str], str], Awaitable[int]]
"""Erases identifiers from a table, where the pseudonym replaces them; returns the number of rows erased."""


def nothing(*columns: str) -> dict[str, Becomes]:
    """Columns that an erasure empties."""
    return dict.fromkeys(columns, lambda _row: None)


@dataclass(frozen=True, slots=True)
class Part:
    """A table whose rows belong to rows of another table."""

    entity: Entity
    key: str
    """The column that refers to them."""
    personal: Mapping[str, Becomes] = field(default_factory=dict[str, Becomes])
    stays: Mapping[str, Stays] = field(default_factory=dict[str, Stays])

    @property
    def table(self) -> Table:
        """The table."""
        return _table(self.entity)


@dataclass(frozen=True, slots=True)
class Ages:
    """How the age of a table's rows is determined."""

    column: str
    """The time from which a row's age counts."""
    by: str = ""
    """A column with an index that orders the rows by age, where the time has none."""
    key: str = ""
    """The column with the key of the topic's messages about them, where those are removed with them."""


@dataclass(frozen=True, slots=True)
class PersonalTable:
    """A table with personal data."""

    entity: Entity
    section: str
    """The section of an export that its rows belong to; empty for a table that is not exported."""
    why: str
    """Purpose of processing."""
    kept: str
    """Retention period."""
    identifiers: Mapping[str, IdentifierKind]
    """The columns that identify a person, the strongest first: the first that is filled decides whose row it is."""
    personal: Mapping[str, Becomes] = field(default_factory=dict[str, Becomes])
    """Further columns about the person, and what they become in an erasure."""
    stays: Mapping[str, Stays] = field(default_factory=dict[str, Stays])
    """Texts that an erased row keeps. It always keeps times and numbers."""
    sealed: Mapping[str, str] = field(default_factory=dict[str, str])
    """Columns that are sealed, with the context of each."""
    internal: Collection[str] = ()
    """Columns of the mesh's own bookkeeping, which are not exported."""
    keys: Collection[str] = ()
    """Columns of idempotency keys, which are exported as the ids that clients chose."""
    deletes_rows: bool = False
    """An erasure deletes the row; otherwise the row stays without the person."""
    any_identifier: bool = False
    """Any of the identifiers makes it the person's row, not only the strongest: it relates several."""
    derived: bool = False
    """Its rows are derived from other tables and rebuilt when those change: an erasure deletes them without counting them."""
    parts: Sequence[Part] = ()
    publication: Publication | None = None
    """What the topic publishes once a row is erased."""
    erase: Custom | None = None
    """Set if rows can't be erased one by one."""
    ages: Ages | None = None
    """Set if rows expire."""

    @property
    def table(self) -> Table:
        """The table."""
        return _table(self.entity)


LONG: Final = "until the person is erased"
"""The retention period of most tables."""
SET: Final = f"{LONG}, or as long as `PMP_SITE_RETENTION_TABLES` says"
"""The retention period of tables whose rows expire."""

SHARED: Final = (
    *(
        PersonalTable(
            table,
            "",
            "resolves identifiers, so that sessions and orders find their person",
            LONG,
            identifiers,
            deletes_rows=True,
            any_identifier=True,
        )
        for table, identifiers in (
            (persons, {"subject": IdentifierKind.SUBJECT, "person_id": IdentifierKind.USER_ID}),
            (person_links, {"subject": IdentifierKind.SUBJECT, "user_id": IdentifierKind.USER_ID}),
            (users, {"user_id": IdentifierKind.USER_ID, "merged_into": IdentifierKind.USER_ID}),
        )
    ),
    PersonalTable(
        person_consents,
        "",
        "what the person allows, checked when something is stored",
        LONG,
        {"subject": IdentifierKind.SUBJECT},
        nothing(*(column.name for column in person_consents.c if column.name != "subject")),
        deletes_rows=True,
    ),
)
"""Personal tables that every service has beside its own."""


def _table(entity: Entity) -> Table:
    return entity if isinstance(entity, Table) else cast("Table", entity.__table__)
