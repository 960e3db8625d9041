"""The personal tables of journeys. An erasure leaves anonymous journeys with the same figures."""

from __future__ import annotations

from google.protobuf.message import Message

from kit.people.hashing import KeyedHasher
from kit.people.subjects.holdings import LONG, SET, Ages, Custom, Kind, PersonalTable, Row, Stays, nothing
from kit.people.subjects.words import ACTIONS, MEDIA, OTHER, SENDERS, SOURCES, word
from services.journeys.messages import CLIENT, conversion_recorded, touchpoint_recorded
from services.journeys.models import ConversionRow, OrderRow, PathRow, PendingRow, SessionRow, TouchpointRow


def session_pseudonym(hasher: KeyedHasher, session_id: str) -> str:
    """Returns the pseudonym of an erased person's session: the same in each table, so that orders keep their session."""
    return f"erased-{hasher.digest(session_id.encode(), purpose='visit').hex()}"


def holdings(hasher: KeyedHasher, erase_sessions: Custom, erase_paths: Custom) -> tuple[PersonalTable, ...]:
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
            names={"subject": Kind.SUBJECT, "user_id": Kind.USER, "session_id": Kind.SESSION},
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
            told=_touchpoint,
            ages=Ages("timestamp"),
        ),
        PersonalTable(
            ConversionRow,
            section="journeys",
            why="goals that people reach",
            kept=SET,
            names={"subject": Kind.SUBJECT, "user_id": Kind.USER, "email_hash": Kind.EMAIL, "session_id": Kind.SESSION},
            personal={
                **word("conversion_type", ACTIONS, otherwise=OTHER),
                **word("source", SOURCES | SENDERS),
                **nothing("page_url", "utm_parameters", "metadata"),
            },
            stays={"id": Stays.ID, "currency": Stays.WORD, "content_hash": Stays.HASH},
            told=conversion_recorded,
            ages=Ages("timestamp"),
        ),
        PersonalTable(
            OrderRow,
            section="",
            why="which orders sessions led to; the orders themselves are shown by purchases",
            kept=LONG,
            names={"subject": Kind.SUBJECT},
            personal={"session_id": pseudonym},
            stays={"purchase_id": Stays.ID, "status": Stays.WORD},
        ),
        PersonalTable(
            SessionRow,
            section="journeys",
            why="where sessions came from",
            kept=SET,
            names={"subject": Kind.SUBJECT, "session": Kind.SUBJECT},
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
            names={"owner": Kind.SUBJECT, "ending": Kind.SUBJECT},
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
            names={"subject": Kind.SUBJECT},
            deletes_rows=True,
            derived=True,
        ),
    )


def _touchpoint(row: Row) -> tuple[str, Message] | None:
    """Only what clients track is published, not what is derived from other topics."""
    return touchpoint_recorded(row) if row["origin"] == CLIENT else None
