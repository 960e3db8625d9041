"""The personal tables of analytics. An erasure deletes facts, or takes the person from them; totals stay."""

from __future__ import annotations

from typing import Final

from kit.people.subjects.personal_tables import LONG, SET, Ages, IdentifierKind, PersonalTable, Row, Stays
from services.analytics.models import OrderRow, PresenceRow, RegistrationRow, SessionRow
from services.analytics.orders import Order


def _without_campaign(row: Row) -> str:
    """Returns an order without the texts of its campaign, which may name a person."""
    payload: str = row["payload"]
    return payload and Order.loads(payload)._replace(source="", medium="", campaign="").dumps()


PERSONAL_TABLES: Final = (
    PersonalTable(
        SessionRow,
        section="analytics_data",
        why="which sessions there were and what was viewed in them, for totals by day",
        kept=SET,
        identifiers={"subject": IdentifierKind.SUBJECT, "carrier": IdentifierKind.SUBJECT},
        any_identifier=True,
        deletes_rows=True,
        ages=Ages("started_at"),
    ),
    PersonalTable(
        PresenceRow,
        section="",
        why="on which days a person visited or bought, so that each counts once in any period",
        kept=LONG,
        identifiers={"subject": IdentifierKind.SUBJECT, "visitor": IdentifierKind.SUBJECT},
        any_identifier=True,
        deletes_rows=True,
    ),
    PersonalTable(
        RegistrationRow,
        section="",
        why="who registered when, for totals by day; identity shows it",
        kept=LONG,
        identifiers={"user_id": IdentifierKind.USER_ID},
        deletes_rows=True,
    ),
    PersonalTable(
        OrderRow,
        section="",
        why="revenue by day and customers; the orders themselves are shown by purchases",
        kept=LONG,
        identifiers={"subject": IdentifierKind.SUBJECT, "carrier": IdentifierKind.SUBJECT},
        personal={"payload": _without_campaign},
        stays={"purchase_id": Stays.ID},
    ),
)
