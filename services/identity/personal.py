"""The personal tables of identity. An erasure leaves nothing of them but the figures of orders."""

from __future__ import annotations

from typing import Final

from kit.people.subjects.holdings import LONG, SET, Ages, Kind, PersonalTable, Row, Stays, Tell, nothing
from services.identity.messages import EMAIL_CONTEXT, NAME_CONTEXT
from services.identity.models import CampaignRow, LinkRow, MergeRow, OrderRow, SubscriptionRow, UserRow


def _forgotten(word: str, *columns: str) -> Tell:
    """Returns what gives the key of a row, whose message is removed from the topic's history."""

    def key(row: Row) -> tuple[str, None]:
        return " ".join((word, *(row[column] for column in columns))), None

    return key


HOLDINGS: Final = (
    PersonalTable(
        UserRow,
        section="wordpress_data",
        why="the profile of a registered person, for the shop's own use",
        kept=LONG,
        names={"id": Kind.USER},
        personal=nothing("wordpress_id", "email", "email_hash", "first_name", "last_name", "utm_attribution", "preferences", "field_times"),
        sealed={"email": EMAIL_CONTEXT, "first_name": NAME_CONTEXT, "last_name": NAME_CONTEXT},
        internal=("field_times",),
        deletes_rows=True,
        told=_forgotten("user", "id"),
    ),
    PersonalTable(
        LinkRow,
        section="wordpress_data",
        why="the identifiers of a person, so that sessions and orders find it",
        kept=LONG,
        names={"subject": Kind.SUBJECT, "user_id": Kind.USER},
        deletes_rows=True,
        any_identifier=True,
        told=_forgotten("alias", "subject", "user_id"),
    ),
    PersonalTable(
        MergeRow,
        section="wordpress_data",
        why="users that are one person",
        kept=LONG,
        names={"merged_user_id": Kind.USER, "user_id": Kind.USER},
        personal=nothing("reason"),
        deletes_rows=True,
        any_identifier=True,
        told=_forgotten("merge", "merged_user_id"),
    ),
    PersonalTable(
        SubscriptionRow,
        section="email_data",
        why="the mailing lists a person is on",
        kept=LONG,
        names={"user_id": Kind.USER},
        deletes_rows=True,
    ),
    PersonalTable(
        OrderRow,
        section="",
        why="what a person has paid, from which its value follows; the orders themselves are shown by purchases",
        kept="as long as the order",
        names={"subject": Kind.SUBJECT},
        stays={"purchase_id": Stays.ID},
    ),
    PersonalTable(
        CampaignRow,
        section="analytics_data",
        why="the campaign that led to a person's first session",
        kept=SET,
        names={"subject": Kind.SUBJECT},
        personal=nothing("utm"),
        deletes_rows=True,
        ages=Ages("at"),
    ),
)
