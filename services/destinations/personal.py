"""The personal tables of destinations. An erasure deletes the messages; deliveries stay for the books, without their person."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from kit.people.keys.seals import EMAIL_CONTEXT
from kit.people.subjects.personal_tables import LONG, SET, Ages, IdentifierKind, PersonalTable, Stays, nothing
from services.destinations.models import ContactRow, DeliveryRow, MessageRow

KEPT_FOR: Final = timedelta(days=30)
"""How long deliveries that are decided, and the messages they are made of, can be looked up and replayed."""
KEPT: Final = {"delivery_messages": KEPT_FOR}
"""The retention periods of tables whose rows expire: as long as a delivery can be replayed."""

PERSONAL_TABLES: Final = (
    PersonalTable(
        ContactRow,
        section="email_data",
        why="under which addresses e-mail tools keep the person, to follow a change of address and to delete the person there",
        kept=LONG,
        identifiers={"user_id": IdentifierKind.USER_ID, "subject": IdentifierKind.SUBJECT},
        personal=nothing("email"),
        sealed={"email": EMAIL_CONTEXT},
        any_identifier=True,
        deletes_rows=True,
    ),
    PersonalTable(
        MessageRow,
        section="",
        why="what is to be delivered to other systems; the services that published it show it",
        kept=SET,
        identifiers=dict.fromkeys(("subject", "session", "email"), IdentifierKind.SUBJECT),
        any_identifier=True,
        deletes_rows=True,
        ages=Ages("stored_at"),
    ),
    PersonalTable(
        DeliveryRow,
        section="deliveries",
        why="which systems were sent what, and when",
        kept="until the person is erased; then without the person",
        identifiers={"subject": IdentifierKind.SUBJECT},
        # Some keys are made of a user's id; what replaces them is unique as well.
        personal={"order_by": lambda _row: "", "key": lambda row: f"erased:{row['id']}"},
        stays={
            "destination": Stays.WORD,
            "name": Stays.WORD,
            "about": Stays.ID,
            "message_id": Stays.ID,
            "state": Stays.WORD,
            "claim": Stays.ID,
            "detail": Stays.WORD,
        },
        internal=("key", "message_id", "order_by", "needs_consent", "claim", "not_before"),
    ),
)
