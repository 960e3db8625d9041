"""What purchases holds of persons, and what an erasure leaves of it: the money, under a pseudonym."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from kit.people.subjects.holdings import Ages, Becomes, Kind, Part, PersonalTable, Row, Stays, nothing
from kit.people.subjects.words import OTHER, PAYMENTS, SENDERS, word
from kit.people.vault import Vault
from services.purchases.messages import BILLING_CONTEXT, EMAIL_CONTEXT, reference_pseudonym
from services.purchases.models import EntryRow, LineRow, NoticeRow, PurchaseRow
from services.purchases.rules import Reason


def _reason(row: Row) -> str:
    """Why an order stands so, which is one of the contract's words; what somebody wrote about a refund goes."""
    return row["reason"] if row["reason"] in set(Reason) else ""


def holdings(vault: Vault, erased: Literal["keep", "delete"]) -> tuple[PersonalTable, ...]:
    """The tables of purchases.

    Args:
        vault: makes the pseudonyms of references.
        erased: what becomes of an erased person's purchases, as the shop chose.
    """

    def reference(row: Row) -> str:
        return reference_pseudonym(vault, row["reference"])

    referred: dict[str, Becomes] = {"reference": reference}
    ids = {"purchase_id": Stays.ID, "site": Stays.ID, "order_id": Stays.SHOP}
    products = {"product_id": Stays.SHOP, "product_name": Stays.SHOP, "product_type": Stays.WORD}
    kept = PersonalTable(
        PurchaseRow,
        section="purchase_history",
        why="what was sold, for the shop's books and its figures",
        kept="as long as tax law asks, or as long as `PMP_SITE_RETENTION_TABLES` says; "
        "after an erasure without the person, or deleted with it (`PMP_SITE_ERASED_PURCHASES`)",
        names={"subject": Kind.SUBJECT, "user_id": Kind.USER, "email_hash": Kind.EMAIL, "session_id": Kind.SESSION},
        personal={**nothing("email", "billing_data", "metadata", "utm_attribution"), **word("payment_method", PAYMENTS, otherwise=OTHER)},
        stays={
            "id": Stays.ID,
            "site": Stays.ID,
            "order_id": Stays.SHOP,
            **products,
            "currency": Stays.WORD,
            "payment_status": Stays.WORD,
            "base_currency": Stays.WORD,
        },
        sealed={"email": EMAIL_CONTEXT, "billing_data": BILLING_CONTEXT},
        internal=("lines_fixed", "ordered_on"),
        ages=Ages("timestamp", key="id"),
        parts=(
            Part(LineRow, "purchase_id", stays={"purchase_id": Stays.ID, **products}),
            Part(EntryRow, "purchase_id", referred, {**ids, "kind": Stays.WORD, "reason": Stays.WORD}),
            Part(
                NoticeRow,
                "purchase_id",
                {**referred, "reason": _reason, **word("source", SENDERS, otherwise=OTHER)},
                {"purchase_id": Stays.ID, **dict.fromkeys(("kind", "status", "currency", "changed"), Stays.WORD)},
            ),
        ),
    )
    return (kept if erased == "keep" else replace(kept, deletes_rows=True),)
