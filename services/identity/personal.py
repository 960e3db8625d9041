"""The personal tables of identity. An erasure leaves nothing of them but the figures of orders."""

from __future__ import annotations

from typing import Final

from kit.people.keys.seals import EMAIL_CONTEXT
from kit.people.subjects.personal_tables import LONG, SET, Ages, IdentifierKind, PersonalTable, Publication, Row, Stays, nothing
from services.identity.messages import NAME_CONTEXT
from services.identity.models import CampaignRow, LinkRow, MergeRow, OrderRow, SubscriptionRow, UserRow


def _forgotten(word: str, *columns: str) -> Publication:
    """Returns what gives the key of a row, whose message is removed from the topic's history."""

    def key(row: Row) -> tuple[str, None]:
        return " ".join((word, *(row[column] for column in columns))), None

    return key


PERSONAL_TABLES: Final = (
    PersonalTable(
        UserRow,
        section="wordpress_data",
        why="the profile of a registered person, for the shop's own use",
        kept=LONG,
        identifiers={"id": IdentifierKind.USER_ID},
        personal=nothing("wordpress_id", "email", "email_hash", "first_name", "last_name", "utm_attribution", "preferences", "field_times"),
        sealed={"email": EMAIL_CONTEXT, "first_name": NAME_CONTEXT, "last_name": NAME_CONTEXT},
        internal=("field_times",),
        deletes_rows=True,
        publication=_forgotten("user", "id"),
    ),
    PersonalTable(
        LinkRow,
        section="wordpress_data",
        why="the identifiers of a person, so that sessions and orders find it",
        kept=LONG,
        identifiers={"subject": IdentifierKind.SUBJECT, "user_id": IdentifierKind.USER_ID},
        deletes_rows=True,
        any_identifier=True,
        publication=_forgotten("alias", "subject", "user_id"),
    ),
    PersonalTable(
        MergeRow,
        section="wordpress_data",
        why="users that are one person",
        kept=LONG,
        identifiers={"merged_user_id": IdentifierKind.USER_ID, "user_id": IdentifierKind.USER_ID},
        personal=nothing("reason"),
        deletes_rows=True,
        any_identifier=True,
        publication=_forgotten("merge", "merged_user_id"),
    ),
    PersonalTable(
        SubscriptionRow,
        section="email_data",
        why="the mailing lists a person is on",
        kept=LONG,
        identifiers={"user_id": IdentifierKind.USER_ID},
        deletes_rows=True,
    ),
    PersonalTable(
        OrderRow,
        section="",
        why="what a person has paid, from which its value follows; the orders themselves are shown by purchases",
        kept="as long as the order",
        identifiers={"subject": IdentifierKind.SUBJECT},
        stays={"purchase_id": Stays.ID, "currency": Stays.WORD},
    ),
    PersonalTable(
        CampaignRow,
        section="analytics_data",
        why="the campaign that led to a person's first session",
        kept=SET,
        identifiers={"subject": IdentifierKind.SUBJECT},
        personal=nothing("utm"),
        deletes_rows=True,
        ages=Ages("at"),
    ),
)
