"""What purchases holds of persons, and what an erasure leaves of it: the money, under a pseudonym."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from kit.subjects.holdings import Ages, Holding, Kind, Part, nothing
from services.purchases.messages import BILLING_CONTEXT, EMAIL_CONTEXT
from services.purchases.models import EntryRow, LineRow, NoticeRow, PurchaseRow

HOLDINGS: Final = (
    Holding(
        PurchaseRow,
        section="purchase_history",
        why="what was sold, for the shop's books and its figures",
        kept="as long as tax law asks, or as long as `PMP_SITE_RETENTION_TABLES` says; "
        "after an erasure without the person, or deleted with it (`PMP_SITE_ERASED_PURCHASES`)",
        names={"subject": Kind.SUBJECT, "user_id": Kind.USER, "email_hash": Kind.EMAIL, "session_id": Kind.SESSION},
        personal=nothing("email", "billing_data", "metadata"),
        sealed={"email": EMAIL_CONTEXT, "billing_data": BILLING_CONTEXT},
        internal=("lines_fixed", "ordered_on"),
        ages=Ages("timestamp", key="id"),
        parts=(
            Part(LineRow, "purchase_id"),
            Part(EntryRow, "purchase_id"),
            Part(NoticeRow, "purchase_id", {"reason": lambda _row: ""}),
        ),
    ),
)


def holdings(erased: Literal["keep", "delete"]) -> tuple[Holding, ...]:
    """What becomes of an erased person's purchases, as the shop chose."""
    return HOLDINGS if erased == "keep" else tuple(replace(holding, goes=True) for holding in HOLDINGS)
