"""The personal tables of analytics. An erasure deletes facts, or takes the person from them; totals stay."""

from __future__ import annotations

from functools import partial

from kit.people.subjects.personal_tables import LONG, SET, Ages, IdentifierKind, PersonalTable, Stays, nothing
from services.analytics.days import Calendar
from services.analytics.models import CustomerMonthRow, OrderRow, PresenceRow, RegistrationRow, SessionRow
from services.analytics.projection import erase_customer_months, erase_orders, erase_sessions


def personal_tables(calendar: Calendar) -> tuple[PersonalTable, ...]:
    """The tables of analytics.

    Args:
        calendar: assigns facts to the totals in which they count.
    """
    return (
        PersonalTable(
            SessionRow,
            section="analytics_data",
            why="which sessions there were and what was viewed in them, for totals by day",
            kept=SET,
            identifiers={"subject": IdentifierKind.SUBJECT, "carrier": IdentifierKind.SUBJECT},
            any_identifier=True,
            deletes_rows=True,
            erase=partial(erase_sessions, calendar),
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
            CustomerMonthRow,
            section="",
            why="what a customer bought by month, so that each is in one cohort; the orders themselves are shown by purchases",
            kept=LONG,
            identifiers={"subject": IdentifierKind.SUBJECT, "customer": IdentifierKind.SUBJECT},
            any_identifier=True,
            erase=partial(erase_customer_months, calendar),
        ),
        PersonalTable(
            OrderRow,
            section="",
            why="revenue by day and customers; the orders themselves are shown by purchases",
            kept=LONG,
            identifiers=dict.fromkeys(("subject", "carrier", "visitor"), IdentifierKind.SUBJECT),
            personal=nothing("payload"),
            stays={"purchase_id": Stays.ID},
            erase=partial(erase_orders, calendar),
        ),
    )
