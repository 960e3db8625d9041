"""The personal tables of journeys. An erasure leaves anonymous journeys with the same figures."""

from __future__ import annotations

from google.protobuf.message import Message

from kit.people.hashing import KeyedHasher
from kit.people.subjects.personal_tables import LONG, SET, Ages, Custom, IdentifierKind, PersonalTable, Row, Stays, nothing
from kit.people.subjects.words import ACTIONS, MEDIA, OTHER, SENDERS, SOURCES, word
from services.journeys.messages import CLIENT, conversion_recorded, touchpoint_recorded
from services.journeys.models import ConversionRow, OrderRow, PathRow, PendingRow, SessionRow, TouchpointRow


def session_pseudonym(hasher: KeyedHasher, session_id: str) -> str:
    """Returns the pseudonym of an erased person's session: the same in each table, so that orders keep their session."""
    return f"erased-{hasher.digest(session_id.encode(), purpose='visit').hex()}"


def personal_tables(hasher: KeyedHasher, erase_sessions: Custom, erase_paths: Custom) -> tuple[PersonalTable, ...]:
    """The tables of journeys.

    Args:
        hasher: makes the pseudonyms of sessions.
        erase_sessions: removes identifiers from sessions, whose keys they are.
        erase_paths: removes them from what is derived from sessions and orders.
    """

    def pseudonym(row: Row) -> str | None:
        return session_pseudonym(hasher, row["session_id"]) if row["session_id"] else None

    return (
        PersonalTable(
            TouchpointRow,
            section="journeys",
            why="how people come to buy",
            kept=SET,
            identifiers={"subject": IdentifierKind.SUBJECT, "user_id": IdentifierKind.USER_ID, "session_id": IdentifierKind.SESSION_ID},
            personal={
                **word("touchpoint", ACTIONS, otherwise=OTHER),
                **word("action_taken", ACTIONS, otherwise=OTHER),
                **word("source", SOURCES),
                **word("medium", MEDIA),
                **nothing("campaign", "page_url", "metadata"),
            },
            stays={
                "id": Stays.ID,
                "stage": Stays.WORD,
                "channel": Stays.WORD,
                "origin": Stays.WORD,
                "content_hash": Stays.HASH,
            },
            keys=("id",),
            publication=_touchpoint,
            ages=Ages("timestamp"),
        ),
        PersonalTable(
            ConversionRow,
            section="journeys",
            why="goals that people reach",
            kept=SET,
            identifiers={
                "subject": IdentifierKind.SUBJECT,
                "user_id": IdentifierKind.USER_ID,
                "email_hash": IdentifierKind.EMAIL_HASH,
                "session_id": IdentifierKind.SESSION_ID,
            },
            personal={
                **word("conversion_type", ACTIONS, otherwise=OTHER),
                **word("source", SOURCES | SENDERS),
                **nothing("page_url", "utm_parameters", "metadata"),
            },
            stays={"id": Stays.ID, "currency": Stays.WORD, "content_hash": Stays.HASH},
            publication=conversion_recorded,
            ages=Ages("timestamp"),
        ),
        PersonalTable(
            OrderRow,
            section="",
            why="which orders sessions led to; the orders themselves are shown by purchases",
            kept=LONG,
            identifiers={"subject": IdentifierKind.SUBJECT},
            personal={"session_id": pseudonym},
            stays={"purchase_id": Stays.ID, "status": Stays.WORD},
        ),
        PersonalTable(
            SessionRow,
            section="journeys",
            why="where sessions came from",
            kept=SET,
            identifiers={"subject": IdentifierKind.SUBJECT, "session": IdentifierKind.SUBJECT},
            any_identifier=True,
            personal={**word("source", SOURCES), **word("medium", MEDIA), **nothing("campaign")},
            stays={"external_id": Stays.ID},
            erase=erase_sessions,
            ages=Ages("started_at"),
        ),
        PersonalTable(
            PathRow,
            section="",
            why="which sessions led to which orders, for attribution; it follows from both",
            kept="as long as the sessions and orders that it is made of",
            identifiers={"owner": IdentifierKind.SUBJECT, "ending": IdentifierKind.SUBJECT},
            any_identifier=True,
            derived=True,
            personal=nothing("payload"),
            erase=erase_paths,
        ),
        PersonalTable(
            PendingRow,
            section="",
            why="whose paths have to be rebuilt",
            kept="until they are rebuilt, within seconds",
            identifiers={"subject": IdentifierKind.SUBJECT},
            deletes_rows=True,
            derived=True,
        ),
    )


def _touchpoint(row: Row) -> tuple[str, Message] | None:
    """Only what clients track is published, not what is derived from other topics."""
    return touchpoint_recorded(row) if row["origin"] == CLIENT else None
